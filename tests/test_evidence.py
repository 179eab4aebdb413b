"""With each event is kept why it opened and how it went, in a bounded number of points."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa
from event_scenes import BEGIN, Person, scene
from hypothesis import given, settings
from hypothesis import strategies as st
from test_event_store import AT, active, closed, opened

from events.camera_watch import CameraWatch
from events.database import open_engine
from events.event_types import Change, EventEvidence
from events.evidence import read_evidence
from events.locations import sqlite_url
from events.rule_file import parse_rules
from events.series import FIRST_STEP_S, MAX_POINTS, Series
from events.store import Progress

NO_MASK = "[[rules]]\nkind = 'no_mask'\nname = 'bare'\nseconds = 5\n"
CROWD = "[[rules]]\nkind = 'people_without_mask'\nname = 'crowd'\npeople = 2\n"
SHARE = "[[rules]]\nkind = 'mask_share'\nname = 'few'\nbelow_percent = 50\nminutes = 0.2\nmin_people_s = 1\n"
BARE = [Person(1, 0, 20, bare=[(0, 20)]), Person(4, 2, 20, bare=[(2, 20)])]


def changes_of(rules: str) -> list[Change]:
    watch = CameraWatch("door", parse_rules(rules))
    return [change for one in scene(BARE, 30) for change in watch.add(one)]


@settings(deadline=None)
@given(st.lists(st.floats(0, 1e5), max_size=1_000), st.floats(0, 1))
def test_a_series_is_bounded_ordered_and_keeps_its_first_point(times: list[float], value: float) -> None:
    series = Series()

    for at in times:
        series.add(at, value)

    kept = [at for at, _ in series.points]
    assert len(kept) <= MAX_POINTS
    assert kept[:1] == times[:1]
    assert all(later - earlier >= FIRST_STEP_S for earlier, later in zip(kept, kept[1:], strict=False))


def test_points_of_a_long_condition_are_evenly_spread_over_the_whole_time() -> None:
    series = Series()

    for number in range(100_000):
        series.add(number / 10, number / 100_000)

    times = [at for at, _ in series.points]
    assert MAX_POINTS / 2 <= len(times) <= MAX_POINTS
    assert times[-1] > 10_000 - 2 * series.step_s
    assert max(b - a for a, b in zip(times, times[1:], strict=False)) <= 1.01 * series.step_s


@pytest.mark.parametrize(
    ("rules", "measure", "least", "most"),
    [(NO_MASK, "confidence", 0.5, 1.0), (CROWD, "people", 2, 2), (SHARE, "share", 0.0, 0.5)],
    ids=["confidence of a face", "people at once", "share of masks"],
)
def test_an_event_about_faces_has_the_rule_and_the_values_that_it_is_built_on(
    rules: str, measure: str, least: float, most: float
) -> None:
    changes = changes_of(rules)

    first, last = changes[0].evidence, changes[-1].evidence
    assert first.rule is not None
    assert msgspec.json.decode(first.rule)["kind"] == changes[0].event.kind
    assert (first.measure, last.measure) == (measure, measure)
    assert len(last.points) > len(first.points) > 0
    assert all(least <= value <= most for _, value in last.points)
    assert last.points[0][0] >= BEGIN


def test_an_event_about_a_camera_has_its_rule_and_no_points() -> None:
    watch = CameraWatch("door", parse_rules("[[rules]]\nkind = 'camera_offline'\nname = 'away'\nseconds = 10\n"))

    changes = [one for at in range(20) for one in watch.poll("offline", BEGIN, BEGIN + at, caught_up=True)]

    (change,) = changes
    assert (change.evidence.measure, change.evidence.points) == (None, [])
    assert "camera_offline" in str(change.evidence.rule)


def test_evidence_is_written_when_an_event_opens_while_it_is_open_and_when_it_closes(tmp_path: Path) -> None:
    engine = open_engine(sqlite_url(tmp_path / "events.db"))
    store = active(engine)
    parts = [
        EventEvidence(rule=rule, measure="confidence", points=[(AT + at, 0.9 - at / 10) for at in range(count)])
        for rule, count in (('{"seconds":5}', 1), ('{"seconds":7}', 2), (None, 3))
    ]

    found = []
    for progress in (
        Progress(changes=[msgspec.structs.replace(opened(), evidence=parts[0])]),
        Progress(evidence={opened().event.id: parts[1], "of no event": parts[1]}),
        Progress(changes=[msgspec.structs.replace(closed(), evidence=parts[2])]),
    ):
        store.write(progress, AT)
        found.append(read(engine, opened().event.id))

    assert [one.rule for one in found] == ['{"seconds":5}'] * 3
    for one, part in zip(found, parts, strict=True):
        assert one.measure == "confidence"
        assert one.points == [pytest.approx(point, abs=1e-6) for point in part.points]
    engine.dispose()


def read(engine: sa.Engine, event_id: str) -> EventEvidence:
    with engine.begin() as connection:
        found = read_evidence(connection, event_id)
    assert found is not None
    return found
