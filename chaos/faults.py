"""Draw the faults of a run from its seed. Pure: the same seed gives the same faults at the same times."""

from __future__ import annotations

import random
from typing import Literal, get_args

from msgspec import Struct

Mode = Literal["complete", "live"]
Kind = Literal["kill", "suspend", "stop", "redis-kill", "flush", "cut", "refuse", "memory", "clock", "label-kill"]
KINDS: tuple[Kind, ...] = get_args(Kind)

WORKERS = ("detect-1", "detect-2", "classify-1", "classify-2", "view")
CAMERAS = {"camera-door": 10.0, "camera-hall": 6.0}  # frames a second
LABEL = "label"

FAULTS = (3, 8)  # fewest and most of a run
PERIOD_S = 6.0  # in which they begin
SUSPENDED_S = (0.2, 4.0)  # around the 2 s after which an entry is reclaimed
REDIS_AWAY_S = (0.1, 2.0)
REFUSED_S = (0.2, 2.0)
MEMORY_FULL_S = (0.5, 3.0)
CLOCK_STEP_S = (1.0, 3600.0)


class Fault(Struct, frozen=True, kw_only=True):
    """One fault.

    at_s: since the beginning of the faults. lasts_s: 0 for what happens at once.
    process: that it is done to, "" for Redis and the connections to it. step_s: of the clock.
    """

    kind: Kind
    at_s: float
    lasts_s: float = 0.0
    process: str = ""
    step_s: float = 0.0

    @property
    def text(self) -> str:
        """What is done, in a few words."""
        words = {
            "kill": f"kill -9 {self.process}",
            "suspend": f"suspend {self.process} for {self.lasts_s:.1f} s",
            "stop": f"stop {self.process}",
            "redis-kill": f"kill -9 Redis, a new one after {self.lasts_s:.1f} s",
            "flush": "empty Redis",
            "cut": "cut all connections half-way",
            "refuse": f"refuse connections for {self.lasts_s:.1f} s",
            "memory": f"memory full for {self.lasts_s:.1f} s",
            "clock": f"set Redis' clock by {self.step_s:+.0f} s",
            "label-kill": "kill -9 label, and resume",
        }
        return words[self.kind]

    @property
    def loses_memory(self) -> bool:
        """Whether Redis forgets everything."""
        return self.kind in ("redis-kill", "flush")


def draw_faults(seed: int, mode: Mode) -> list[Fault]:
    """Return the faults of a run in the order of their times."""
    rng = random.Random(f"{mode} {seed}")
    kinds = [kind for kind in KINDS if kind != "label-kill" or mode == "complete"]
    times = sorted(round(rng.uniform(0, PERIOD_S), 2) for _ in range(rng.randint(*FAULTS)))
    return [_draw(rng, rng.choice(kinds), at_s, mode) for at_s in times]


def _draw(rng: random.Random, kind: Kind, at_s: float, mode: Mode) -> Fault:
    processes = [*WORKERS, *(CAMERAS if mode == "live" else ())]
    if kind == "suspend" and mode == "complete":
        processes.append(LABEL)
    lasts = {"suspend": SUSPENDED_S, "redis-kill": REDIS_AWAY_S, "refuse": REFUSED_S, "memory": MEMORY_FULL_S}
    smallest, largest = CLOCK_STEP_S
    return Fault(
        kind=kind,
        at_s=at_s,
        lasts_s=round(rng.uniform(*lasts[kind]), 2) if kind in lasts else 0.0,
        process=rng.choice(processes) if kind in ("kill", "suspend", "stop") else "",
        step_s=round(rng.choice((-1, 1)) * smallest * (largest / smallest) ** rng.random(), 1)
        if kind == "clock"
        else 0.0,
    )
