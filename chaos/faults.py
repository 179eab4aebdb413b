"""Draw the faults of a run from its seed. Pure: the same seed gives the same faults at the same times."""

from __future__ import annotations

import random
from typing import Literal, get_args

import msgspec
from msgspec import Struct

Mode = Literal["complete", "live"]
Kind = Literal[
    "kill", "suspend", "stop", "redis-kill", "flush", "cut", "refuse", "memory", "clock", "label-kill", "primary-kill"
]
KINDS: tuple[Kind, ...] = get_args(Kind)

WORKERS = ("detect-1", "detect-2", "classify-1", "classify-2", "view")
CAMERAS = {"camera-door": 10.0, "camera-hall": 6.0}  # frames a second
LABEL = "label"
HEARTBEATS = "the heartbeats"

FAULTS = (3, 8)  # fewest and most of a run
PERIOD_S = 6.0  # in which they begin
SUSPENDED_S = (0.2, 4.0)  # around the 2 s after which an entry is reclaimed
REDIS_AWAY_S = (0.1, 2.0)
REFUSED_S = (0.2, 2.0)
MEMORY_FULL_S = (0.5, 3.0)
CLOCK_STEP_S = (1.0, 3600.0)
PRIMARY_AWAY_S = (0.5, 5.0)  # at least: it returns when its replica has taken over, which takes 3 to 4 s
FIRST_DEATH_S = 1.0  # a primary dies within this time, while `label` is busy even where it is fast


class Fault(Struct, frozen=True, kw_only=True):
    """One fault.

    at_s: since the beginning of the faults. lasts_s: 0 for what happens at once.
    process: that it is done to, "" for Redis and the connections to it; in a cluster, whose primary dies or is set its
    clock. step_s: of the clock.
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
            "clock": f"set the clock of {self._redis} by {self.step_s:+.0f} s",
            "label-kill": "kill -9 label, and resume",
            "primary-kill": f"kill -9 {self._redis}, which returns after {self.lasts_s:.1f} s or more",
        }
        return words[self.kind]

    @property
    def loses_memory(self) -> bool:
        """Whether Redis forgets everything."""
        return self.kind in ("redis-kill", "flush")

    @property
    def needs_whole_redis(self) -> bool:
        """Whether it waits until nothing of a cluster is missing, because one dead node is what a cluster endures."""
        return self.kind in ("redis-kill", "primary-kill", "flush", "clock")

    @property
    def _redis(self) -> str:
        return f"the primary of {self.process}" if self.process else "Redis"


def kinds_of(mode: Mode, *, cluster: bool) -> list[Kind]:
    """Return the kinds of faults that runs have."""
    possible = {"label-kill": mode == "complete", "primary-kill": cluster}
    return [kind for kind in KINDS if possible.get(kind, True)]


def draw_faults(seed: int, mode: Mode, *, cluster: bool = False) -> list[Fault]:
    """Return the faults of a run in the order of their times. In a cluster one of the first is a primary's death."""
    rng = random.Random(f"{mode} {seed}")
    kinds = kinds_of(mode, cluster=cluster)
    times = sorted(round(rng.uniform(0, PERIOD_S), 2) for _ in range(rng.randint(*FAULTS)))
    if not cluster:
        return [_draw(rng, rng.choice(kinds), at_s, mode) for at_s in times]
    faults = [_draw(rng, rng.choice(kinds), at_s, mode, cluster=True) for at_s in times[1:]]
    death = _draw(rng, "primary-kill", round(rng.uniform(0, FIRST_DEATH_S), 2), mode, cluster=True)
    return _clocks_forward(sorted([*faults, death], key=lambda fault: fault.at_s))


def _draw(rng: random.Random, kind: Kind, at_s: float, mode: Mode, *, cluster: bool = False) -> Fault:
    processes = [*WORKERS, *(CAMERAS if mode == "live" else ())]
    if kind == "suspend" and mode == "complete":
        processes.append(LABEL)
    if cluster and kind in ("primary-kill", "clock"):
        processes = [*(CAMERAS if mode == "live" else [LABEL] * len(CAMERAS)), HEARTBEATS]
    lasts = {
        "suspend": SUSPENDED_S,
        "redis-kill": REDIS_AWAY_S,
        "refuse": REFUSED_S,
        "memory": MEMORY_FULL_S,
        "primary-kill": PRIMARY_AWAY_S,
    }
    smallest, largest = CLOCK_STEP_S
    has_process = kind in ("kill", "suspend", "stop", "primary-kill") or (cluster and kind == "clock")
    return Fault(
        kind=kind,
        at_s=at_s,
        lasts_s=round(rng.uniform(*lasts[kind]), 2) if kind in lasts else 0.0,
        process=rng.choice(processes) if has_process else "",
        step_s=round(rng.choice((-1, 1)) * smallest * (largest / smallest) ** rng.random(), 1)
        if kind == "clock"
        else 0.0,
    )


def _clocks_forward(faults: list[Fault]) -> list[Fault]:
    """Return the faults with clocks that are set back only after the last death of a primary.

    A primary whose clock was set back does not vote for a replica that it has voted for before the time it had.
    """
    last = max(fault.at_s for fault in faults if fault.kind == "primary-kill")
    return [
        msgspec.structs.replace(fault, step_s=abs(fault.step_s)) if fault.at_s <= last else fault for fault in faults
    ]
