"""Rules make the events that a scene has, at the times at which it has them, in however many steps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from zoneinfo import ZoneInfo

import msgspec
import pytest
from event_scenes import BEGIN, FPS, Person, result, scene
from hypothesis import given, settings
from hypothesis import strategies as st

from events.camera_watch import CameraState, CameraWatch
from events.event_types import Change, Event
from events.rule_file import parse_rules
from events.rule_types import Rule, RuleSet
from events.schedule import in_force
from events.zones import contains
from pipeline.bus.messages import FrameResult
from pipeline.vision.faces import MAX_FACES

LATE = 0.11  # a frame
NO_MASK = "[[rules]]\nkind = 'no_mask'\nname = 'bare'\nseconds = 5\n"
OFFLINE = "[[rules]]\nkind = 'camera_offline'\nname = 'away'\nseconds = 10\n"
BACK = "[[rules]]\nkind = 'camera_back'\nname = 'back'\nseconds = 10\n"


def events_of(text: str, results: Sequence[FrameResult]) -> list[Event]:
    """Return the events of results as they are in the end."""
    watch = CameraWatch("door", parse_rules(text))
    return last_of(change for one in results for change in watch.add(one))


def last_of(changes: Iterable[Change]) -> list[Event]:
    events: dict[str, Event] = {}
    for change in changes:
        events[change.event.id] = change.event
    return list(events.values())


def seconds(at: float | None) -> float:
    assert at is not None
    return at - BEGIN


def track(begin: float, index: int = 0) -> int:
    """Return the number of the track that a face begins. begin: seconds of the scene. index: of it in its frame."""
    return round(begin * FPS) * MAX_FACES + index


def test_somebody_without_a_mask_for_long_enough_is_an_event_from_begin_to_end() -> None:
    person = Person(1, 2, 30, bare=[(2, 20)])

    (event,) = events_of(NO_MASK, scene([person], 40))

    assert (event.rule, event.kind, event.camera, event.track) == ("bare", "no_mask", "door", track(2))
    assert seconds(event.started_at) == pytest.approx(2, abs=LATE)
    assert seconds(event.opened_at) == pytest.approx(7, abs=0.11)
    assert seconds(event.ended_at) == pytest.approx(20, abs=LATE)
    assert event.model == "test"


@pytest.mark.parametrize("wrong", [100, 101, 102, 200, 201, 202, 203])
def test_one_wrong_label_beside_a_change_moves_its_time_by_two_frames_at_most(wrong: int) -> None:
    results = scene([Person(1, 0, 40, bare=[(10, 20)])], 50)
    (face,) = results[wrong].faces
    other = msgspec.structs.replace(face, label="mask" if face.label == "no_mask" else "no_mask")
    results[wrong] = msgspec.structs.replace(results[wrong], faces=[other])

    (event,) = events_of(NO_MASK, results)

    assert (seconds(event.started_at), seconds(event.ended_at)) == pytest.approx((10, 20), abs=2 * LATE)


def test_a_mask_put_on_for_less_than_a_second_ends_no_event() -> None:
    (event,) = events_of(NO_MASK, scene([Person(1, 0, 40, bare=[(10, 20), (20.9, 30)])], 50))

    assert (seconds(event.started_at), seconds(event.ended_at)) == pytest.approx((10, 30), abs=LATE)


def test_a_condition_that_begins_where_another_has_ended_is_an_event_of_its_own() -> None:
    rule = "[[rules]]\nkind = 'people_without_mask'\nname = 'crowd'\npeople = 2\nseconds = 0\n"
    always, once, unsure = (Person(place, 0, 99, bare=[(0, 99)]).face(0) for place in (1, 4, 7))
    assert always and once and unsure
    masked = msgspec.structs.replace(unsure, label="mask")
    unsure = msgspec.structs.replace(unsure, confidence=0.7)
    faces = [[always, masked]] * 42 + [[always, once, unsure]] + [[always, unsure]] * 10
    results = [result(seq, found, at=BEGIN + seq) for seq, found in enumerate(faces)]  # of one frame a second

    watch = CameraWatch("door", parse_rules(rule))
    opened = [change.event.id for one in results for change in watch.add(one) if change.phase == "opened"]

    assert len(set(opened)) == len(opened) > 0


def test_an_event_that_opens_while_a_mask_is_put_on_does_not_end_before_it_opens() -> None:
    (event,) = events_of(NO_MASK, scene([Person(1, 0, 20, bare=[(2, 7.1)])], 30))

    assert seconds(event.started_at) == pytest.approx(2, abs=LATE)
    assert event.ended_at == event.opened_at


@pytest.mark.parametrize("bare", [[(2, 6)], [(2, 5.5), (9, 12)], []], ids=["short", "twice short", "masked"])
def test_a_short_time_without_a_mask_is_no_event(bare: list[tuple[float, float]]) -> None:
    person = Person(1, 0, 30, bare=bare)

    assert events_of(NO_MASK, scene([person], 40)) == []


def test_each_person_has_an_event_of_their_own() -> None:
    people = [Person(1, 0, 20, bare=[(0, 20)]), Person(4, 3, 20, bare=[(3, 20)]), Person(7, 0, 20)]

    events = events_of(NO_MASK, scene(people, 30))

    assert [(round(seconds(event.started_at)), event.track) for event in events] == [(0, track(0)), (3, track(3, 1))]


def test_a_face_that_is_not_detected_for_a_moment_goes_on() -> None:
    results = scene([Person(1, 0, 20, bare=[(0, 20)])], 30)
    gap = [msgspec.structs.replace(one, faces=[]) if 40 <= one.seq < 48 else one for one in results]

    (event,) = events_of(NO_MASK, gap)

    assert seconds(event.ended_at) == pytest.approx(20, abs=0.2)


def test_people_without_a_mask_are_counted_at_once() -> None:
    rule = "[[rules]]\nkind = 'people_without_mask'\nname = 'crowd'\npeople = 2\n"
    people = [Person(1, 0, 20, bare=[(0, 20)]), Person(4, 5, 9, bare=[(5, 9)]), Person(7, 0, 20)]

    (event,) = events_of(rule, scene(people, 30))

    assert seconds(event.started_at) == pytest.approx(5, abs=0.1)
    assert seconds(event.ended_at) == pytest.approx(9, abs=0.2)
    assert (event.people, event.confidence) == (2, pytest.approx(0.99))


@pytest.mark.parametrize(
    "missed", [(), (52, 53), (92, 93)], ids=["", "one is missed at first", "one is missed at last"]
)
def test_people_who_take_off_and_put_on_masks_are_too_many_from_then_until_then(missed: Sequence[int]) -> None:
    rule = "[[rules]]\nkind = 'people_without_mask'\nname = 'crowd'\npeople = 2\n"
    people = [Person(1, 0, 20, bare=[(0, 20)]), Person(4, 0, 20, bare=[(5, 9)]), Person(7, 0, 20, bare=[(7, 8)])]
    results = scene(people, 30)
    for seq in missed:
        results[seq] = msgspec.structs.replace(results[seq], faces=results[seq].faces[1:])

    (event,) = events_of(rule, results)

    assert (seconds(event.started_at), seconds(event.ended_at)) == pytest.approx((5, 9), abs=LATE)
    assert event.people == 3


def test_a_low_share_of_masks_over_minutes_is_an_event() -> None:
    rule = "[[rules]]\nkind = 'mask_share'\nname = 'share'\nbelow_percent = 60\nminutes = 0.5\n"
    people = [Person(1, 0, 200, bare=[(60, 90)]), Person(4, 0, 200)]

    (event,) = events_of(rule, scene(people, 200))

    assert 80 < seconds(event.started_at) < 90
    assert 90 < seconds(event.ended_at) < 100
    assert event.share == pytest.approx(0.5, abs=0.02)


def test_only_faces_in_the_zone_count() -> None:
    zone = "[[zones]]\nname = 'left'\ncamera = 'door'\npolygon = [[0, 0], [0.3, 0], [0.3, 1], [0, 1]]\n"
    people = [Person(1, 0, 20, bare=[(0, 20)]), Person(4, 0, 20, bare=[(0, 20)])]

    (event,) = events_of(NO_MASK + "zone = 'left'\n" + zone, scene(people, 30))

    assert (event.track, event.zone) == (track(0), "left")


def test_a_rule_for_other_cameras_makes_no_event() -> None:
    results = scene([Person(1, 0, 20, bare=[(0, 20)])], 30)

    assert events_of(NO_MASK + "cameras = ['yard']\n", results) == []


def test_within_the_cooldown_no_other_event_opens() -> None:
    people = [Person(place, 10 * place, 10 * place + 9, bare=[(0, 99)]) for place in range(6)]

    events = events_of(NO_MASK + "cooldown_s = 25\n", scene(people, 80))

    assert [round(seconds(event.started_at)) for event in events] == [0, 30]


def test_the_order_of_results_may_be_wrong_without_an_event_more() -> None:
    results = scene([Person(1, 0, 20, bare=[(0, 20)])], 30)
    swapped = [one for pair in zip(results[1::2], results[::2], strict=True) for one in pair]

    (event,) = events_of(NO_MASK, swapped)

    assert seconds(event.started_at) == pytest.approx(0, abs=0.2)


@settings(deadline=None, max_examples=25)  # each example is a scene of 300 frames, twice
@given(st.lists(st.integers(0, 299), max_size=8))
def test_a_watch_that_is_stored_and_continued_finds_the_same(stops: list[int]) -> None:
    rules = parse_rules(NO_MASK + "[[rules]]\nkind = 'people_without_mask'\nname = 'crowd'\npeople = 2\n")
    people = [Person(1, 0, 20, bare=[(0, 20)]), Person(4, 5, 25, bare=[(5, 12), (14, 25)])]
    results = scene(people, 30)
    whole = CameraWatch("door", rules)
    expected = [change for one in results for change in whole.add(one)]

    watch, found = CameraWatch("door", rules), []
    for one in results:
        if one.seq in stops:
            stored = msgspec.msgpack.encode(watch.state)
            watch = CameraWatch("door", rules, msgspec.msgpack.decode(stored, type=CameraState))
        found += watch.add(one)

    assert found == expected


def polled(text: str, states: Sequence[tuple[float, str]]) -> list[Change]:
    """Return what a camera's states bring, by second of the scene."""
    watch = CameraWatch("door", parse_rules(text))
    newest, changes = BEGIN, []
    for at, state in states:
        newest = BEGIN + at if state != "offline" else newest
        changes += watch.poll(state, newest, BEGIN + at, caught_up=True)  # type: ignore[arg-type]
    return changes


def test_a_camera_that_is_offline_is_an_event_until_it_is_back() -> None:
    states = [(float(at), "offline" if 10 <= at < 40 else "live") for at in range(60)]

    opened, closed, back, gone = polled(OFFLINE + BACK, states)

    assert [one.event.kind for one in (opened, closed)] == ["camera_offline"] * 2
    assert seconds(opened.event.started_at) == 9
    assert seconds(opened.event.opened_at) == 20
    assert seconds(closed.event.ended_at) == 40
    assert (back.phase, back.event.kind, seconds(back.event.started_at)) == ("opened", "camera_back", 40)
    assert gone.phase == "closed"


def test_a_camera_that_is_offline_for_a_moment_is_no_event() -> None:
    states = [(float(at), "offline" if 10 <= at < 18 else "live") for at in range(60)]

    assert polled(OFFLINE + BACK, states) == []


def test_time_in_which_nobody_looked_does_not_count() -> None:
    states = [(0.0, "live"), (1.0, "offline"), (31.0, "offline"), (32.0, "live")]

    assert polled(OFFLINE, states) == []


def test_the_first_frame_of_a_camera_that_is_back_says_when_it_came_back() -> None:
    watch = CameraWatch("door", parse_rules(OFFLINE + BACK))
    for at in range(10, 30):
        watch.poll("offline", BEGIN + 9, BEGIN + at, caught_up=True)

    unread = watch.poll("live", BEGIN + 31, BEGIN + 40, caught_up=False)
    before = watch.add(result(1, [], at=BEGIN + 9))
    changes = watch.add(result(2, [], at=BEGIN + 30.5))
    after = watch.poll("live", BEGIN + 31, BEGIN + 41, caught_up=True)

    assert (unread, before, after) == ([], [], [])
    assert [(one.phase, one.event.rule) for one in changes] == [
        ("closed", "away"),
        ("opened", "back"),
        ("closed", "back"),
    ]
    assert [seconds(one.event.ended_at) for one in changes if one.phase == "closed"] == [30.5, 30.5]


def test_an_absence_that_nobody_looked_at_for_long_is_found_when_the_camera_is_back() -> None:
    watch = CameraWatch("door", parse_rules(OFFLINE))
    watch.poll("offline", BEGIN + 9, BEGIN + 12, caught_up=True)

    opened, closed = watch.add(result(1, [], at=BEGIN + 30))

    assert [one.phase for one in (opened, closed)] == ["opened", "closed"]
    assert (seconds(closed.event.started_at), seconds(closed.event.ended_at)) == (9, 30)


def test_an_absence_outside_of_a_rule_s_hours_is_no_event() -> None:
    watch = CameraWatch("door", parse_rules(OFFLINE + "hours = ['08:00-18:00']\n"))
    evening, morning = (local(2026, 1, day, hour) for day, hour in ((5, 20), (6, 8)))
    watch.poll("offline", evening, evening + 10, caught_up=True)

    assert watch.add(result(1, [], at=morning + 1)) == []


def test_an_outage_of_days_is_an_event_in_the_hours_of_each() -> None:
    watch, changes = CameraWatch("door", parse_rules(OFFLINE + "hours = ['08:00-18:00']\n")), []
    begin = local(2026, 1, 5, 10)

    for hour in range(10, 10 + 2 * 24):
        for second in range(0, 60, 4):
            at = begin + (hour - 10) * 3600 + second
            changes += watch.poll("offline", begin, at, caught_up=True)

    found = last_of(changes)
    assert [one.phase for one in changes] == ["opened", "closed"] * 2 + ["opened"]
    assert len({one.id for one in found}) == 3
    assert [one.started_at for one in found] == [begin, local(2026, 1, 6, 8), local(2026, 1, 7, 8)]


@pytest.mark.parametrize("gap_s", [0.5, 0.95, 1.05, 2.0, 5.0])
def test_a_slow_camera_has_the_events_and_counts_of_a_quick_one(gap_s: float) -> None:
    crowd = "[[rules]]\nkind = 'people_without_mask'\nname = 'crowd'\npeople = 1\nseconds = 5\n"
    watch, person = CameraWatch("door", parse_rules(crowd)), Person(1, 0, 999, bare=[(0, 999)]).face(0)
    assert person
    count, last = round(120 / gap_s), round(120 / gap_s) * gap_s

    changes = []
    for seq in range(count):
        changes += watch.add(result(seq, [person], at=BEGIN + seq * gap_s))
        changes += watch.poll("live", BEGIN + seq * gap_s, BEGIN + seq * gap_s + 0.9 * gap_s, caught_up=True)
    (event,) = last_of(changes)
    gone = watch.add(result(count, [], at=BEGIN + last))
    people_s = sum(one.people_s for one in watch.counts.take().values())

    assert [one.phase for one in changes] == ["opened"]
    assert [one.phase for one in gone] == (["closed"] if gap_s > 1 else [])
    assert seconds(event.opened_at) <= 5 + 2 * gap_s
    assert people_s == pytest.approx(120, abs=3 * gap_s)


def test_people_before_the_hours_of_a_rule_count_in_its_last_minutes() -> None:
    rule = "[[rules]]\nkind = 'mask_share'\nname = 'few'\nbelow_percent = 80\nminutes = 10\nhours = ['08:00-18:00']\n"
    watch = CameraWatch("door", parse_rules(rule))
    masked, bare = (Person(1, 0, 9, bare=times).face(0) for times in ([], [(0, 9)]))
    assert masked and bare
    scenes = [(local(2026, 1, 5, 8), 660, masked), (local(2026, 1, 6, 7, 50), 600, masked)]
    scenes.append((local(2026, 1, 6, 8), 30, bare))

    changes, seq = [], 0
    for begin, duration, face in scenes:
        for second in range(duration):
            seq += 1
            changes += watch.add(result(seq, [face], at=begin + second))

    assert changes == []


def local(*numbers: int) -> float:
    """Return a time in the time zone that rules have by default."""
    return datetime(*numbers, tzinfo=ZoneInfo("UTC")).timestamp()  # type: ignore[misc]


def test_a_silent_camera_ends_what_its_faces_showed() -> None:
    watch = CameraWatch("door", parse_rules(NO_MASK))
    for one in scene([Person(1, 0, 20, bare=[(0, 20)])], 10):
        watch.add(one)

    first = watch.poll("live", BEGIN + 10, BEGIN + 100, caught_up=True)
    early = watch.poll("live", BEGIN + 10, BEGIN + 104, caught_up=True)
    behind = watch.poll("offline", BEGIN + 10, BEGIN + 130, caught_up=False)
    (closed,) = watch.poll("offline", BEGIN + 10, BEGIN + 130, caught_up=True)

    assert (first, early, behind) == ([], [], [])
    assert (closed.phase, seconds(closed.event.ended_at)) == ("closed", pytest.approx(9.9))


def test_an_event_of_a_rule_that_is_gone_closes() -> None:
    watch = CameraWatch("door", parse_rules(NO_MASK))
    for one in scene([Person(1, 0, 20, bare=[(0, 20)])], 10):
        watch.add(one)

    (closed,) = CameraWatch("door", RuleSet(), watch.state).close_removed()

    assert (closed.phase, closed.event.rule) == ("closed", "bare")


def test_an_event_in_a_zone_closes_when_its_rule_is_moved_to_another_one() -> None:
    zone = "[[zones]]\nname = '{}'\ncamera = 'door'\npolygon = [[0, 0], [1, 0], [1, 1], [0, 1]]\n"
    text = zone.format("left") + zone.format("right") + NO_MASK + "zone = '{}'\n"
    people = scene([Person(1, 0, 20, bare=[(0, 20)])], 20)
    watch = CameraWatch("door", parse_rules(text.format("left")))
    before = last_of(change for one in people[: 10 * FPS] for change in watch.add(one))

    moved = CameraWatch("door", parse_rules(text.format("right")), watch.state)
    (closed,) = moved.close_removed()
    after = last_of(change for one in people[10 * FPS :] for change in moved.add(one))

    assert [event.zone for event in before] == ["left"]
    assert (closed.phase, closed.event.id) == ("closed", before[0].id)
    assert [event.zone for event in after] == ["right"]


def test_counts_are_of_people_and_masks_by_minute() -> None:
    watch = CameraWatch("door", parse_rules(NO_MASK))
    for one in scene([Person(1, 0, 90), Person(4, 0, 30, bare=[(0, 30)])], 100):
        watch.add(one)

    counts = watch.counts.take()

    begin = int(BEGIN // 60)
    assert sum(one.people_s for one in counts.values()) == pytest.approx(120, abs=2)
    assert sum(one.masks_s for one in counts.values()) == pytest.approx(90, abs=2)
    assert counts[begin].most == 2
    assert watch.counts.take() == {}


def test_a_clock_that_is_set_back_ends_what_it_showed_and_goes_on() -> None:
    watch = CameraWatch("door", parse_rules(NO_MASK))
    face = Person(1, 0, 100, bare=[(0, 100)]).face(1)
    assert face is not None
    changes = [change for seq in range(100) for change in watch.add(result(seq, [face]))]

    changes += [
        change for seq in range(100, 200) for change in watch.add(result(seq, [face], at=BEGIN - 3_600 + seq / FPS))
    ]

    assert [change.phase for change in changes] == ["opened", "closed", "opened"]


@pytest.mark.parametrize(
    ("hours", "weekdays", "at", "expected"),
    [
        ([], [], "2026-01-31T12:00", True),
        (["08:00-18:00"], [], "2026-01-31T08:00", True),
        (["08:00-18:00"], [], "2026-01-31T18:00", False),
        (["22:00-06:00"], ["fri"], "2026-01-31T05:59", True),
        (["22:00-06:00"], ["sat"], "2026-01-31T05:59", False),
        ([], ["sat"], "2026-01-31T23:59", True),
        ([], ["sun"], "2026-01-31T23:59", False),
        (["00:00-24:00"], [], "2026-01-31T23:59", True),
    ],
)
def test_a_rule_is_in_force_by_local_time(hours: list[str], weekdays: list[str], at: str, expected: bool) -> None:
    berlin = ZoneInfo("Europe/Berlin")
    unix = datetime.fromisoformat(at).replace(tzinfo=berlin).timestamp()

    assert in_force(hours, weekdays, berlin, unix) is expected  # type: ignore[arg-type]


def test_a_rule_out_of_force_makes_no_event() -> None:
    results = scene([Person(1, 0, 20, bare=[(0, 20)])], 30)
    local = datetime.fromtimestamp(BEGIN, ZoneInfo("UTC"))
    other_day = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"][(local.weekday() + 2) % 7]

    assert events_of(NO_MASK + f"weekdays = ['{other_day}']\n", results) == []


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_point_is_in_a_rectangle_if_it_is_between_its_sides(x: float, y: float) -> None:
    rectangle = [(0.25, 0.5), (0.75, 0.5), (0.75, 0.875), (0.25, 0.875)]

    inside = contains(rectangle, (x, y))

    if x not in (0.25, 0.75) and y not in (0.5, 0.875):
        assert inside == (0.25 < x < 0.75 and 0.5 < y < 0.875)


def test_every_kind_of_rule_has_its_name() -> None:
    kinds = {str(kind.__struct_config__.tag) for kind in Rule.__args__}

    assert kinds == {
        *("no_mask", "people_without_mask", "mask_share"),
        *("camera_offline", "camera_unlabelled", "camera_back"),
    }
