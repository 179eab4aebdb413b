"""Rules as sentences: why an event opened. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from events.rule_types import CameraBack, CameraOffline, CameraUnlabelled, MaskShare, NoMask, PeopleWithoutMask, Rule
from viewer.pages.event_texts import duration_text


def rule_sentence(rule: Rule) -> str:
    """Return when a rule opens an event, for example "Somebody wears no mask for 5 s, in zone entrance"."""
    parts = [_condition(rule), *_scope(rule)]
    sentence = ", ".join(parts)
    if rule.cooldown_s:
        sentence += f"; at most one event in {duration_text(rule.cooldown_s)} for each camera"
    return sentence + "."


def _condition(rule: Rule) -> str:
    match rule:
        case NoMask():
            return f"Somebody wears no mask{_for(rule.seconds)}"
        case PeopleWithoutMask():
            people = "Somebody wears" if rule.people == 1 else f"{rule.people} people or more wear"
            return f"{people} no mask{' at once' if rule.people > 1 else ''}{_for(rule.seconds)}"
        case MaskShare():
            return (
                f"Masks are worn in less than {rule.below_percent:g} % of the time that people were seen in the last "
                f"{duration_text(rule.minutes * 60)}"
            )
        case CameraOffline():
            return f"A camera is offline{_for(rule.seconds)}"
        case CameraUnlabelled():
            return f"A camera brings frames, but none is labelled{_for(rule.seconds)}"
        case CameraBack():
            return f"A camera is back that was offline{_for(rule.seconds)}"
    assert_never(rule)


def _for(seconds: float) -> str:
    return f" for {duration_text(seconds)}" if seconds else ""


def _scope(rule: Rule) -> Sequence[str]:
    """Return where and when a rule is in force."""
    parts = []
    zone = getattr(rule, "zone", None)
    if zone:
        parts.append(f"in zone {zone}")
    if rule.cameras:
        parts.append(f"on {_listed(rule.cameras)}")
    if rule.hours:
        parts.append(_listed([f"from {hours.replace('-', ' to ')}" for hours in rule.hours]))
    if rule.weekdays:
        parts.append(f"on {_listed([day.capitalize() for day in rule.weekdays])}")
    return parts


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
