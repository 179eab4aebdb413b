"""From a condition to an event: it opens when it has held for long enough, and closes when it has ended. Pure.

The state of a rule and camera is a record that can be stored, so that another process continues where one has died.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from msgspec import Struct

from events.event_types import Change, Event, EventEvidence, Measure, Phase, event_id
from events.series import Series

Bucket = tuple[float, float, float]  # when it begins, seconds of people in it, seconds of masks


class Evidence(Struct, frozen=True, kw_only=True):
    """What shows that a condition holds. since: when it began, None for now. See Event for the others."""

    since: float | None = None
    track: int | None = None
    people: int = 0
    confidence: float | None = None
    share: float | None = None
    model: str | None = None

    @property
    def measured(self) -> tuple[Measure, float] | None:
        """What an event is about, and its value; None for the state of a camera."""
        if self.share is not None:
            return "share", self.share
        if self.track is not None and self.confidence is not None:
            return "confidence", self.confidence
        return ("people", float(self.people)) if self.people else None


class Condition(Struct, kw_only=True):
    """A condition that holds.

    began_at: when it was first seen, from which its duration counts. seen_at: when it was last seen.
    opened_at: when its event opened; None before. over_at: when it ended, if frames after that have shown so.
    series: how it went.
    """

    evidence: Evidence
    since: float
    began_at: float
    seen_at: float
    opened_at: float | None = None
    over_at: float | None = None
    series: Series = msgspec.field(default_factory=Series)


class RuleState(Struct, kw_only=True):
    """What a rule remembers of one camera. conditions: by subject. opened_at: when its last event opened.

    ended_at: when one of its conditions last ended. kind, zone: of the rule. window: for rules about the last minutes;
    watched_since: when it began to fill.
    """

    kind: str
    zone: str | None = None
    conditions: dict[str, Condition] = {}
    opened_at: float | None = None
    ended_at: float | None = None
    window: list[Bucket] = []
    watched_since: float | None = None


class Source(Struct, frozen=True, kw_only=True):
    """Whose conditions they are, and how long one must hold, and its rule's pause between two events, in seconds.

    settings: the rule as JSON; None for one that is no longer there.
    """

    rule: str
    camera: str
    hold_s: float
    cooldown_s: float
    settings: str | None = None


def see(source: Source, state: RuleState, found: Mapping[str, Evidence], at: float) -> list[Change]:
    """Note the conditions that hold now, by subject; return the events that open."""
    changes = []
    for subject, evidence in found.items():
        condition = state.conditions.get(subject)
        if condition is None:
            since = _since(state, evidence, at)
            condition = Condition(evidence=evidence, since=since, began_at=at, seen_at=at)
            state.conditions[subject] = condition
        condition.evidence = _worse(condition.evidence, evidence)
        condition.seen_at, condition.over_at = max(condition.seen_at, at), None
        if measured := evidence.measured:
            condition.series.add(at, measured[1])
        if condition.opened_at is None and _may_open(source, state, condition, at):
            condition.opened_at = state.opened_at = at
            changes.append(_change("opened", source, state, subject, condition))
    return changes


def end_earlier(state: RuleState, ends: Mapping[str, float]) -> None:
    """Note that conditions, by subject, were over earlier than they were last seen, unless they are seen again.

    They are not over before their events opened.
    """
    for subject, at in ends.items():
        if condition := state.conditions.get(subject):
            condition.over_at = min(condition.seen_at, max(at, condition.opened_at or condition.since))


def release(source: Source, state: RuleState, unseen_since: float, ended_at: float | None = None) -> list[Change]:
    """Forget conditions that were last seen before a time; return the events that close.

    Args:
        ended_at: when they ended; None for when each was over, or last seen.
    """
    changes = []
    for subject, condition in list(state.conditions.items()):
        if condition.seen_at >= unseen_since:
            continue
        del state.conditions[subject]
        over_at = ended_at or (condition.seen_at if condition.over_at is None else condition.over_at)
        state.ended_at = max(over_at, state.ended_at or over_at)
        if condition.opened_at is not None:
            changes.append(_change("closed", source, state, subject, condition, over_at))
    return changes


def open_evidence(source: Source, state: RuleState) -> dict[str, EventEvidence]:
    """Return what the open events of a rule are built on until now, by event ID."""
    return {
        event_id(source.rule, source.camera, subject, condition.since): _evidence(source, condition)
        for subject, condition in state.conditions.items()
        if condition.opened_at is not None
    }


def _since(state: RuleState, evidence: Evidence, at: float) -> float:
    """Return when a new condition began: not before another has ended, so that it is another event.

    One of faces is not later than it is seen. A camera's may begin when another has ended: with its only frame.
    """
    if evidence.since is None:
        return at
    if state.ended_at is not None and evidence.since <= state.ended_at:
        return evidence.since if evidence.since == state.ended_at and not evidence.people else at
    return min(evidence.since, at) if evidence.people else evidence.since


def _may_open(source: Source, state: RuleState, condition: Condition, at: float) -> bool:
    cooled = state.opened_at is None or not 0 <= at - state.opened_at < source.cooldown_s
    return cooled and at - condition.began_at >= source.hold_s


def _worse(before: Evidence, now: Evidence) -> Evidence:
    """Return both together: the most people, the lowest confidence and share, the newest model."""
    return Evidence(
        track=now.track,
        people=max(before.people, now.people),
        confidence=_lowest(before.confidence, now.confidence),
        share=_lowest(before.share, now.share),
        model=now.model or before.model,
    )


def _lowest(*numbers: float | None) -> float | None:
    return min((one for one in numbers if one is not None), default=None)


def _change(
    phase: Phase,
    source: Source,
    state: RuleState,
    subject: str,
    condition: Condition,
    ended_at: float | None = None,
) -> Change:
    evidence = condition.evidence
    event = Event(
        id=event_id(source.rule, source.camera, subject, condition.since),
        rule=source.rule,
        kind=state.kind,
        camera=source.camera,
        zone=state.zone,
        subject=subject,
        track=evidence.track,
        started_at=condition.since,
        opened_at=condition.seen_at if condition.opened_at is None else condition.opened_at,
        ended_at=ended_at,
        people=evidence.people,
        confidence=evidence.confidence,
        share=evidence.share,
        model=evidence.model,
    )
    return Change(phase=phase, event=event, evidence=_evidence(source, condition))


def _evidence(source: Source, condition: Condition) -> EventEvidence:
    measured = condition.evidence.measured
    points = list(condition.series.points)
    return EventEvidence(rule=source.settings, measure=measured[0] if measured else None, points=points)
