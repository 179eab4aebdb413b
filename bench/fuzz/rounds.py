"""What the rounds of all targets use: notes of inputs, rounds of hypothesis, and the limit of a process' memory."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy

MAX_NOTE = 20_000  # characters of an input in the text of a finding
EXAMPLES = 100  # of a round of hypothesis

Round = Callable[[Random], int]


class BrokenPromise(Exception):
    """An input was not handled as promised."""


@contextmanager
def noting(given_input: object) -> Iterator[None]:
    """Add the input to the text of any error that the block raises."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"input: {given_input!r:.{MAX_NOTE}}")
        raise


def examples(strategy: SearchStrategy[Any], check: Callable[[Any], object], random: Random) -> int:
    """Check examples of a strategy, as many as returned; hypothesis shrinks the one that fails, and notes it."""
    checked = 0

    @seed(random.getrandbits(64))
    @settings(
        max_examples=EXAMPLES,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def run(example: Any) -> None:
        nonlocal checked
        checked += 1
        check(example)

    run()
    return checked


def limit_memory(more_bytes: int) -> None:
    """Let this process allocate no more than so many bytes on top of what it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + more_bytes,) * 2)
