"""Read a scene by one process that nothing disturbs: its results in, the events of its rules out. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from bench.event_scene.scene import RULES, Expected
from events.camera_watch import CameraWatch
from events.event_types import Event
from events.rule_file import parse_rules
from pipeline.bus.messages import FrameResult


def events_of(results: Sequence[FrameResult], begin: float, rules: str = RULES) -> list[Expected]:
    """Return the events of results that are read in order. begin: of the scene, Unix seconds."""
    parsed, watches, events = parse_rules(rules), dict[str, CameraWatch](), dict[str, Event]()
    for one in results:
        watch = watches.setdefault(one.camera, CameraWatch(one.camera, parsed))
        events |= {change.event.id: change.event for change in watch.add(one)}
    return sorted(
        Expected(one.rule, one.camera, one.started_at - begin, (one.ended_at or 0) - begin) for one in events.values()
    )
