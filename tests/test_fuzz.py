"""A short run of the fuzzer on each decoder that needs no server; `make fuzz` runs all of them for longer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
from feeding import REPOSITORY

from bench.fuzz.mutate import mutated_bytes, mutated_text

SEED = 20  # of every run, so that it tries the same inputs, as many as there is time for
MINUTES = 0.1


@pytest.mark.parametrize("target", ["message", "jpeg", "settings", "sources", "annotations"])
def test_what_others_send_is_decoded_or_rejected(pictures: Path, target: str) -> None:
    command = [sys.executable, "-m", "bench.fuzz", target, "--seed", str(SEED), "--minutes", str(MINUTES)]

    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)

    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.split()[-3]) > 0, "nothing was tried"


def test_a_seed_repeats_its_damage() -> None:
    found = [
        [(mutated_bytes(random, b"valid bytes"), mutated_text(random, "a valid text")) for _ in range(100)]
        for random in (Random("20 message 7"), Random("20 message 7"))
    ]

    assert found[0] == found[1]
    assert len(set(found[0])) > 50
