"""The present states of all cameras, as the active recorder sees them and receivers with states show them. Pure.

The recorder puts a new picture of all cameras on the board once a second; receivers read it in threads of their own.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping

from msgspec import Struct

from events.camera_watch import CameraState
from events.minute_counts import MinuteCount
from events.rule_types import CameraBack, CameraRule, RuleSet
from pipeline.bus.status import State


class RuleStatus(Struct, frozen=True, kw_only=True):
    """A rule at one camera. is_open: whether an event of it is open there."""

    name: str
    kind: str
    is_open: bool


class CameraStatus(Struct, frozen=True, kw_only=True):
    """One camera. minute: counts of its last complete minute; None if it had no frames in it."""

    name: str
    state: State
    rules: list[RuleStatus]
    minute: MinuteCount | None = None


class StateBoard:
    """What is known of all cameras now, and the counts of their last two minutes. Safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cameras: tuple[CameraStatus, ...] = ()
        self._forgotten: tuple[CameraStatus, ...] = ()
        self._minutes: dict[str, dict[int, MinuteCount]] = {}

    @property
    def cameras(self) -> tuple[CameraStatus, ...]:
        """All cameras, by name."""
        with self._lock:
            return self._cameras

    @property
    def forgotten(self) -> tuple[CameraStatus, ...]:
        """Cameras that are out of use, of which receivers show nothing any more."""
        with self._lock:
            return self._forgotten

    def show(self, cameras: Iterable[CameraStatus], at: float, forgotten: Iterable[CameraStatus] = ()) -> None:
        """Put the present states on the board. at: the present time, on the clock of events."""
        last = int(at // 60) - 1
        with self._lock:
            statuses = [_with_minute(one, self._minutes.get(one.name, {}).get(last)) for one in cameras]
            self._cameras = tuple(sorted(statuses, key=lambda one: one.name))
            self._forgotten = tuple(forgotten)

    def add_counts(self, camera: str, counts: Mapping[int, MinuteCount]) -> None:
        """Add what was counted of a camera, by Unix minute."""
        with self._lock:
            minutes = self._minutes.setdefault(camera, {})
            for minute, count in counts.items():
                minutes[minute] = _sum(minutes.get(minute, MinuteCount()), count)
            for old in sorted(minutes)[:-2]:
                del minutes[old]


def camera_status(name: str, state: State, rules: RuleSet, seen: CameraState) -> CameraStatus:
    """Return what a board shows of a camera. seen: what its watch remembers."""
    zones = {zone.name for zone in rules.zones if zone.camera == name}
    found = []
    for rule in rules.rules:
        zone = None if isinstance(rule, CameraRule) else rule.zone
        if isinstance(rule, CameraBack) or (rule.cameras and name not in rule.cameras):
            continue  # an event of a camera that is back is over when it opens
        if zone is None or zone in zones:
            conditions = seen.rules[rule.name].conditions.values() if rule.name in seen.rules else ()
            is_open = any(condition.opened_at is not None for condition in conditions)
            found.append(RuleStatus(name=rule.name, kind=str(rule.__struct_config__.tag), is_open=is_open))
    return CameraStatus(name=name, state=state, rules=found)


def _with_minute(status: CameraStatus, minute: MinuteCount | None) -> CameraStatus:
    return CameraStatus(name=status.name, state=status.state, rules=status.rules, minute=minute)


def _sum(one: MinuteCount, other: MinuteCount) -> MinuteCount:
    return MinuteCount(
        people_s=one.people_s + other.people_s,
        masks_s=one.masks_s + other.masks_s,
        most=max(one.most, other.most),
        frames=one.frames + other.frames,
    )
