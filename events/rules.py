"""What each kind of rule looks for: faces of a frame, or a camera's state, in; evidence by subject out. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from events.conditions import Evidence, RuleState
from events.rule_types import (
    CameraOffline,
    CameraRule,
    CameraUnlabelled,
    FaceRule,
    MaskShare,
    NoMask,
    Point,
    Rule,
)
from events.zones import contains
from pipeline.bus.status import State
from pipeline.vision.tracks import TrackedFace

BUCKETS = 60  # parts of the period of a rule about the last minutes
MAX_STEP_S = 1.0  # a longer time between two frames counts as this much, unless the camera is slow

Found = dict[str, Evidence]


class Seen(Struct, frozen=True, kw_only=True):
    """The faces of a labelled frame. at: when it was captured. step_s: since the frame before. size: in pixels."""

    at: float
    step_s: float
    size: tuple[int, int]
    faces: Sequence[TrackedFace]
    model: str | None


def hold_s(rule: Rule) -> float:
    """Return how long a rule's condition must hold before its event opens, in seconds."""
    return 0.0 if isinstance(rule, MaskShare) else rule.seconds


def face_evidence(rule: FaceRule, polygon: Sequence[Point] | None, state: RuleState, seen: Seen) -> Found:
    """Return what a frame shows of a rule. polygon: of its zone, None for the whole picture. state: may be changed."""
    faces = _inside(polygon, seen)
    bare = [face for face in faces if face.label == "no_mask"]
    if isinstance(rule, NoMask):
        return {
            str(face.track): Evidence(
                since=face.turned_at_s, track=face.track, people=1, confidence=face.confidence, model=seen.model
            )
            for face in bare
        }
    if isinstance(rule, MaskShare):
        return _low_share(rule, state, seen, people=len(faces), masks=len(faces) - len(bare))
    if len(bare) < rule.people:
        return {}
    turned, others = _turned(bare), sum(face.turned_at_s is None for face in bare)
    since = turned[rule.people - others - 1] if others < rule.people else None
    lowest = min(face.confidence for face in bare)
    return {"": Evidence(since=since, people=len(bare), confidence=lowest, model=seen.model)}


def ends(rule: FaceRule, polygon: Sequence[Point] | None, seen: Seen) -> dict[str, float]:
    """Return the subjects whose conditions ended before this frame, and when: smoothed labels follow late."""
    faces = _inside(polygon, seen)
    masked = [face for face in faces if face.label == "mask" and face.turned_at_s is not None]
    if isinstance(rule, NoMask):
        return {str(face.track): at for face in masked for at in _turned([face])}
    if isinstance(rule, MaskShare):
        return {}
    bare = sum(face.label == "no_mask" for face in faces)
    last = bare + len(masked) - rule.people
    return {"": _turned(masked)[last]} if bare < rule.people and last >= 0 else {}


def camera_evidence(rule: CameraRule, camera: State, state: RuleState, newest_at: float | None) -> Found:
    """Return whether a camera's state is what a rule looks for. newest_at: when its newest frame was captured."""
    if isinstance(rule, CameraUnlabelled):
        return {"": Evidence()} if camera == "unlabelled" else {}
    if camera == "offline" or (camera == "stale" and state.conditions):
        return {"": Evidence(since=newest_at)}
    return {}


def is_camera_condition(rule: Rule) -> bool:
    """Return whether a rule makes events of how long a camera is in a state."""
    return isinstance(rule, (CameraOffline, CameraUnlabelled))


def _inside(polygon: Sequence[Point] | None, seen: Seen) -> list[TrackedFace]:
    width, height = seen.size
    return [
        face
        for face in seen.faces
        if polygon is None
        or contains(polygon, ((face.box[0] + face.box[2]) / 2 / width, (face.box[1] + face.box[3]) / 2 / height))
    ]


def _turned(faces: Sequence[TrackedFace]) -> list[float]:
    """Return when the labels of faces turned, in order, of those that just have."""
    return sorted(face.turned_at_s for face in faces if face.turned_at_s is not None)


def _low_share(rule: MaskShare, state: RuleState, seen: Seen, *, people: int, masks: int) -> Found:
    period_s = rule.minutes * 60
    if state.watched_since is None:
        state.watched_since = seen.at
    _add(state, seen.at // (period_s / BUCKETS) * (period_s / BUCKETS), people * seen.step_s, masks * seen.step_s)
    state.window = [bucket for bucket in state.window if bucket[0] > seen.at - period_s]
    people_s, masks_s = sum(one[1] for one in state.window), sum(one[2] for one in state.window)
    if seen.at - state.watched_since < period_s or people_s < max(rule.min_people_s, 1e-9):
        return {}
    share = masks_s / people_s
    return {"": Evidence(people=people, share=share, model=seen.model)} if share * 100 < rule.below_percent else {}


def _add(state: RuleState, begins_at: float, people_s: float, masks_s: float) -> None:
    if state.window and state.window[-1][0] == begins_at:
        _, people_before, masks_before = state.window.pop()
        people_s, masks_s = people_before + people_s, masks_before + masks_s
    state.window.append((begins_at, people_s, masks_s))
