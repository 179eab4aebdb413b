"""Watch one camera: its results, in the order of the stream, and its state in; events that open and close out. Pure.

The same results give the same events, in any process and in however many steps: the clock of the rules about faces is
the time at which frames were captured, and all that is remembered is in a CameraState, which can be stored. A result
that comes after one of a later frame is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Struct

from events import rules as looks
from events.conditions import Evidence, RuleState, Source, end_earlier, open_evidence, release, see
from events.event_types import Change, EventEvidence
from events.minute_counts import MinuteCounts
from events.rule_types import CameraBack, CameraOffline, CameraRule, Point, Rule, RuleSet
from events.rules import MAX_STEP_S, Seen
from events.schedule import in_force
from pipeline.bus.messages import FrameResult
from pipeline.bus.status import State
from pipeline.vision.tracks import FaceTracker, TrackedFace, TrackerState

RELEASE_S = 1.0  # a condition that was not seen in frames for longer has ended
SILENT_S = 5.0  # a camera without new results for longer shows nothing any more
MAX_GAP_S = 10.0  # between two frames of a camera that is slow, not away
MAX_POLL_GAP_S = 5.0  # a camera's state that nobody looked at for longer begins anew
PRODUCER_TIMEOUT_S = 2.0  # a producer that began earlier takes over when the other one was silent for this long
SAME_FRAME_S = 0.01  # a frame that is later than the newest one of an offline camera by more is one after it
BACKWARDS_S = 5.0  # a frame that is older than the one before it by more shows that the clock was set back


class CameraState(Struct, kw_only=True):
    """What is remembered of a camera. start, seq, captured_at: of its last frame. rules: by name.

    gap_s: between its last two frames, 0 if it was longer than MAX_GAP_S. offline_since: when its newest frame was
    captured, while it is offline.
    """

    start: int = -1
    seq: int = -1
    captured_at: float = 0.0
    gap_s: float = 0.0
    tracker: TrackerState = TrackerState()
    rules: dict[str, RuleState] = {}
    offline_since: float | None = None


class CameraWatch:
    """The rules that hold for one camera. state: of an earlier watch, which this one continues; it is changed.

    Attributes:
        counts: what it has counted since the counts were last taken.
        faces: of the last frame.
    """

    def __init__(self, camera: str, rules: RuleSet, state: CameraState | None = None) -> None:
        self.camera = camera
        self.counts = MinuteCounts()
        self.faces: Sequence[TrackedFace] = ()
        self._state = state or CameraState()
        self._tracker = FaceTracker(self._state.tracker)
        self._heard = False  # a result came since the last poll
        self._heard_at: float | None = None  # when a poll last found one
        self._timezone = ZoneInfo(rules.timezone)
        self._polygons: dict[str, list[Point]] = {one.name: one.polygon for one in rules.zones if one.camera == camera}
        self._rules = [rule for rule in rules.rules if self._is_for_us(rule)]
        self._settings = {rule.name: msgspec.json.encode(rule).decode() for rule in self._rules}

    @property
    def state(self) -> CameraState:
        """All that another watch needs to continue; encode it before the next change."""
        self._state.tracker = self._tracker.state
        return self._state

    def is_at(self, result: FrameResult) -> bool:
        """Return whether this result was the last one that counted."""
        return (self._state.start, self._state.seq) == (result.start, result.seq)

    def may_open(self) -> bool:
        """Return whether something holds before the camera whose event has not opened yet."""
        conditions = [one for state in self._state.rules.values() for one in state.conditions.values()]
        return any(condition.opened_at is None for condition in conditions)

    def open_evidence(self) -> dict[str, EventEvidence]:
        """Return what the open events of this camera are built on until now, by event ID."""
        found: dict[str, EventEvidence] = {}
        for rule in self._rules:
            found |= open_evidence(self._source(rule), self._rule_state(rule))
        return found

    def close_removed(self) -> list[Change]:
        """Return the events that close because their rules are no longer there, or are for another zone."""
        kept = {rule.name: (_Kind(rule).kind, _zone(rule)) for rule in self._rules}
        changes = []
        for name, state in list(self._state.rules.items()):
            if kept.get(name) != (state.kind, state.zone):
                changes += release(Source(rule=name, camera=self.camera, hold_s=0, cooldown_s=0), state, float("inf"))
                del self._state.rules[name]
        return changes

    def add(self, result: FrameResult) -> list[Change]:
        """Take the next result; return the events that open and close."""
        state, at = self._state, result.captured_at
        changes: list[Change] = []
        if state.offline_since is not None and at > state.offline_since + SAME_FRAME_S:
            changes += self._find_absence(state.offline_since, at)
            changes += self._return(state.offline_since, at)
        if result.outcome != "labelled" or not self._is_next(result):
            return changes
        self._heard = True
        if result.start != state.start or at < state.captured_at - BACKWARDS_S:
            self._tracker = FaceTracker()
            changes += self._release_faces(float("inf"))
        gap_s = max(at - state.captured_at, 0.0)
        longest_s = max(MAX_STEP_S, 2 * state.gap_s)  # a longer gap is a pause, in which nobody knows what was there
        before = state.captured_at if gap_s <= longest_s else at
        state.start, state.seq, state.captured_at = result.start, result.seq, at
        state.gap_s = gap_s if gap_s <= MAX_GAP_S else 0.0
        faces = self.faces = self._tracker.update(result.faces, at, seq=result.seq)
        step_s, size = min(gap_s, longest_s), (result.width, result.height)
        seen = Seen(at=at, step_s=step_s, size=size, faces=faces, model=result.model)
        self.counts.add(seen)
        return [*changes, *(change for rule in self._rules for change in self._apply(rule, seen, before))]

    def poll(self, camera: State, newest_at: float | None, at: float, *, caught_up: bool) -> list[Change]:
        """Take the camera's present state; return the events that open and close.

        Args:
            newest_at: when its newest frame was captured; None without one.
            at: the present time.
            caught_up: all results until now were taken, so that what they do not show is not there.
        """
        changes = self._release_faces(float("inf")) if self._is_silent(at) and caught_up else []
        if camera == "offline":
            self._state.offline_since = self._state.offline_since or newest_at or at
        elif camera in ("live", "unlabelled") and self._state.offline_since is not None and caught_up:
            changes += self._return(self._state.offline_since, at)
        is_back_unread = camera != "offline" and self._state.offline_since is not None and not caught_up
        for rule in self._rules:
            if is_back_unread and isinstance(rule, CameraOffline):
                continue  # a result that is not read yet says when
            if looks.is_camera_condition(rule) and isinstance(rule, CameraRule):
                changes += self._apply_camera(rule, camera, newest_at, at)
        return changes

    def forget(self, at: float) -> list[Change]:
        """Return the events that close because the camera is out of use. at: since when."""
        changes = []
        for rule in self._rules:
            state = self._rule_state(rule)
            ended_at = max([at, *(one.seen_at for one in state.conditions.values())])
            is_about_camera = isinstance(rule, CameraRule)
            changes += release(self._source(rule), state, float("inf"), ended_at=ended_at if is_about_camera else None)
        return changes

    def _is_for_us(self, rule: Rule) -> bool:
        zone = _zone(rule)
        return (not rule.cameras or self.camera in rule.cameras) and (zone is None or zone in self._polygons)

    def _is_next(self, result: FrameResult) -> bool:
        """Return whether a result is of a later frame than all before; one with an earlier start may be, too."""
        state = self._state
        if result.start < state.start:
            return result.captured_at > state.captured_at + PRODUCER_TIMEOUT_S
        return (result.start, result.seq) > (state.start, state.seq)

    def _is_silent(self, at: float) -> bool:
        """Return whether no result has come for long, whatever the times at which frames were captured."""
        if self._heard or self._heard_at is None or at < self._heard_at:
            self._heard, self._heard_at = False, at
        return at - self._heard_at > max(SILENT_S, 2 * self._state.gap_s)

    def _rule_state(self, rule: Rule) -> RuleState:
        return self._state.rules.setdefault(rule.name, RuleState(kind=_Kind(rule).kind, zone=_zone(rule)))

    def _source(self, rule: Rule) -> Source:
        return Source(
            rule=rule.name,
            camera=self.camera,
            hold_s=looks.hold_s(rule),
            cooldown_s=rule.cooldown_s,
            settings=self._settings[rule.name],
        )

    def _in_force(self, rule: Rule, at: float) -> bool:
        return in_force(rule.hours, rule.weekdays, self._timezone, at)

    def _apply(self, rule: Rule, seen: Seen, before: float) -> list[Change]:
        """Apply a rule to the faces of a frame. before: when the last frame was captured; after a pause, this one."""
        if isinstance(rule, CameraRule):
            return []
        state, source = self._rule_state(rule), self._source(rule)
        polygon = self._polygons[rule.zone] if rule.zone else None
        end_earlier(state, looks.ends(rule, polygon, seen))
        closed = release(source, state, min(seen.at - RELEASE_S, before))
        found = looks.face_evidence(rule, polygon, state, seen)  # outside of hours, too: some rules look back
        opened = see(source, state, found if self._in_force(rule, seen.at) else {}, seen.at)
        return [*closed, *opened, *release(source, state, seen.at - RELEASE_S)]

    def _apply_camera(self, rule: CameraRule, camera: State, newest_at: float | None, at: float) -> list[Change]:
        state, source = self._rule_state(rule), self._source(rule)
        found = looks.camera_evidence(rule, camera, state, newest_at) if self._in_force(rule, at) else {}
        if not found:
            return release(source, state, float("inf"), ended_at=at)
        for condition in state.conditions.values():
            if condition.opened_at is None and not 0 <= at - condition.seen_at <= MAX_POLL_GAP_S:
                condition.began_at = at
        return see(source, state, found, at)

    def _find_absence(self, offline_since: float, at: float) -> list[Change]:
        """Return the openings of events of an absence that was long enough, though nobody looked for as long.

        The rule has to be in force for as long, too.
        """
        changes = []
        for rule in self._rules:
            if not isinstance(rule, CameraOffline) or at - offline_since < rule.seconds:
                continue
            if self._in_force(rule, at) and self._in_force(rule, at - rule.seconds):
                source = msgspec.structs.replace(self._source(rule), hold_s=0.0)
                changes += see(source, self._rule_state(rule), {"": Evidence(since=offline_since)}, at)
        return changes

    def _return(self, offline_since: float, at: float) -> list[Change]:
        """Return what opens and closes because a camera is back: its first frame says when, if its result is known."""
        self._state.offline_since = None
        changes = []
        for rule in self._rules:
            if isinstance(rule, CameraBack):
                changes += self._come_back(rule, at - offline_since, at)
            elif isinstance(rule, CameraOffline):
                changes += release(self._source(rule), self._rule_state(rule), float("inf"), ended_at=at)
        return changes

    def _come_back(self, rule: CameraBack, away_s: float, at: float) -> list[Change]:
        """Return the opening and closing of an event without duration."""
        if away_s < rule.seconds or not self._in_force(rule, at):
            return []
        state = self._rule_state(rule)
        source = msgspec.structs.replace(self._source(rule), hold_s=0.0)
        opened = see(source, state, {"": Evidence()}, at)
        return [*opened, *release(source, state, float("inf"), ended_at=at)]

    def _release_faces(self, unseen_since: float) -> list[Change]:
        faces: Sequence[Rule] = [rule for rule in self._rules if not isinstance(rule, CameraRule)]
        return [one for rule in faces for one in release(self._source(rule), self._rule_state(rule), unseen_since)]


def _zone(rule: Rule) -> str | None:
    return None if isinstance(rule, CameraRule) else rule.zone


class _Kind:
    """The name of a rule, and of its kind."""

    def __init__(self, rule: Rule) -> None:
        self.name = rule.name
        self.kind = str(rule.__struct_config__.tag)
