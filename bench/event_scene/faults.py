"""What is done to recorders, Redis and the database while a scene is fed, at moments that a seed draws."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

FIRST, LAST = 0.08, 0.92  # shares of the scene between which faults happen
Kind = Literal["kill", "redis", "database"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """at: seconds of the scene. recorder: the number of the one that is killed."""

    at: float
    kind: Kind
    recorder: int = 0


def draw_faults(rng: random.Random, seconds: float, *, recorders: int, kills: int) -> list[Fault]:
    """Return when each recorder is killed so many times, Redis restarts and the database goes away, in order."""
    kinds: list[tuple[Kind, int]] = [("kill", number) for number in range(recorders) for _ in range(kills)]
    kinds += [("redis", 0), ("database", 0)]
    faults = [Fault(at=rng.uniform(FIRST, LAST) * seconds, kind=kind, recorder=recorder) for kind, recorder in kinds]
    return sorted(faults, key=lambda fault: fault.at)
