"""What the pages about records ask and say: pure functions, without a browser and a database."""

from __future__ import annotations

import csv
import io
from datetime import UTC, date
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from zoneinfo import ZoneInfo

import msgspec
import pytest
from flask import Flask

from events.count_reading import PeriodCount
from events.event_types import Event, EventEvidence
from events.rule_types import CameraBack, CameraOffline, CameraUnlabelled, MaskShare, NoMask, PeopleWithoutMask, Rule
from viewer.pages.compliance_query import compliance_query
from viewer.pages.event_evidence import shown_series, why_text
from viewer.pages.event_texts import duration_text, event_title, people_time_text, percent_text
from viewer.pages.history_query import BadQuestion, HistoryQuery, history_query, history_url
from viewer.pages.mask_shares import as_csv, make_shares
from viewer.pages.rendering import with_chosen
from viewer.pages.rule_texts import rule_sentence
from viewer.pages.time_zones import local, midnight, named_zone, reader_zone, zone_name
from viewer.pages.timeline import make_timeline

BERLIN = ZoneInfo("Europe/Berlin")
TODAY = date(2026, 1, 31)
AT = 1_769_850_000.0  # 2026-01-31 09:00 UTC


def event(**values: Any) -> Event:
    fields = {
        "id": "0" * 32,
        "rule": "bare",
        "kind": "no_mask",
        "camera": "door",
        "started_at": AT,
        "opened_at": AT + 5,
    }
    return msgspec.convert(fields | values, Event)


def count(begin: float, camera: str, people_s: float, masks_s: float) -> PeriodCount:
    share = masks_s / people_s if people_s else None
    return PeriodCount(
        camera=camera, started_at=begin, people_s=people_s, masks_s=masks_s, share=share, most=2, frames=60
    )


def parameters_of(url: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(url).query))


@pytest.mark.parametrize(
    ("rule", "sentence"),
    [
        (NoMask(name="a"), "Somebody wears no mask for 5 s."),
        (
            NoMask(name="a", seconds=0, zone="entrance", cameras=["door"]),
            "Somebody wears no mask, in zone entrance, on door.",
        ),
        (
            PeopleWithoutMask(name="a", people=3, hours=["08:00-12:00", "22:00-06:00"], cooldown_s=90),
            "3 people or more wear no mask at once, from 08:00 to 12:00 and from 22:00 to 06:00; at most one event "
            "in 1 min 30 s for each camera.",
        ),
        (
            MaskShare(name="a", below_percent=80, minutes=10, weekdays=["mon", "fri"]),
            "Masks are worn in less than 80 % of the time that people were seen in the last 10 min, on Mon and Fri.",
        ),
        (CameraOffline(name="a"), "A camera is offline for 10 s."),
        (CameraUnlabelled(name="a"), "A camera brings frames, but none is labelled for 10 s."),
        (CameraBack(name="a", cameras=["a", "b", "c"]), "A camera is back that was offline for 10 s, on a, b and c."),
    ],
)
def test_a_rule_is_a_sentence(rule: Rule, sentence: str) -> None:
    assert rule_sentence(rule) == sentence


@pytest.mark.parametrize(
    ("values", "title"),
    [
        ({}, "No mask, not over yet"),
        ({"ended_at": AT + 125}, "No mask for 2 min 5 s"),
        ({"kind": "people_without_mask", "people": 3, "ended_at": AT + 8}, "3 people without masks for 8 s"),
        ({"kind": "people_without_mask", "people": 1, "ended_at": AT + 8}, "1 person without mask for 8 s"),
        ({"kind": "mask_share", "share": 0.42, "ended_at": AT + 8}, "Masks in only 42 % of the time"),
        ({"kind": "camera_back", "ended_at": AT}, "Camera back"),
        ({"kind": "of_a_later_version", "ended_at": AT + 3}, "of a later version for 3 s"),
    ],
)
def test_an_event_has_a_title(values: dict[str, Any], title: str) -> None:
    assert event_title(event(**values)) == title


def test_numbers_are_said_with_units() -> None:
    said = [
        *(duration_text(seconds) for seconds in (0.4, 59.6, 3_600, 90_000)),
        *(people_time_text(seconds) for seconds in (8, 59.9, 3_570, 400_000)),
        *(percent_text(share) for share in (None, 0, 0.001, 0.5, 0.9999, 1)),
    ]

    assert said[:4] == ["0 s", "1 min", "1 h", "1 d 1 h"]
    assert said[4:8] == ["8 s", "1 min", "1 h 0 min", "111 h 7 min"]
    assert said[8:] == ["–", "0 %", "1 %", "50 %", "99 %", "100 %"]


@pytest.mark.parametrize(
    ("evidence", "text"),
    [
        (EventEvidence(rule=msgspec.json.encode(NoMask(name="bare")).decode()), "Somebody wears no mask for 5 s."),
        (None, "Rule bare opened this event; its settings at that time are not known."),
        (
            EventEvidence(rule='{"kind":"later"}'),
            'Rule bare opened this event; its settings are of another version of maskwatch: {"kind":"later"}',
        ),
    ],
)
def test_an_event_says_why_its_rule_fired(evidence: EventEvidence | None, text: str) -> None:
    assert why_text("bare", evidence) == text


def test_a_series_without_points_is_not_drawn() -> None:
    assert shown_series(EventEvidence(measure="people"), UTC) is None
    shown = shown_series(EventEvidence(measure="people", points=[(AT + 0.25, 3.0)]), UTC)

    assert shown is not None
    assert [(one.time_text, one.value_text) for one in shown.points] == [("09:00:00.2", "3")]


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"from": "yesterday"}, "From: 'yesterday' is no time; write for example 2026-01-31T08:00."),
        ({"to": "0001-01-01T00:00"}, "To: '0001-01-01T00:00' is no time"),
        ({"from": "2026-01-02T08:00", "to": "2026-01-02T08:00"}, "To must be later than from"),
        ({"camera": "a\0b"}, r"Camera: 'a\\x00b' is no name; choose one from the list\."),
        ({"zone": "Entrance"}, "Zone: 'Entrance' is no name"),
    ],
)
def test_a_time_or_name_that_cannot_be_is_named(parameters: dict[str, str], words: str) -> None:
    with pytest.raises(BadQuestion, match=words):
        history_query(parameters, UTC)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"from": "31.1.2026"}, r"First day: '31\.1\.2026' is no day; write for example 2026-01-31\."),
        ({"from": "2026-01-31", "to": "2026-01-30"}, "The last day must not be before the first one"),
        ({"from": "2020-01-01", "by": "hour"}, "That is 2,223 days; by hour at most 62 can be shown: choose fewer"),
        ({"by": "week"}, "By: 'week' is neither hour nor day"),
        ({"camera": 'door"\nSet-Cookie: a=b'}, "Camera: .* is no name"),
    ],
)
def test_a_period_that_cannot_be_is_named(parameters: dict[str, str], words: str) -> None:
    with pytest.raises(BadQuestion, match=words):
        compliance_query(parameters, TODAY)


def test_long_periods_are_shown_by_day_unless_hours_are_asked_for() -> None:
    asked = [{}, {"from": "2026-01-20"}, {"from": "2026-01-20", "by": "hour"}, {"to": "2026-01-02"}]

    found = [compliance_query(parameters, TODAY) for parameters in asked]

    assert [one.by for one in found] == ["hour", "day", "hour", "hour"]
    assert (found[3].first, found[3].last) == (date(2026, 1, 2), date(2026, 1, 2))


def test_the_hours_of_a_day_are_those_of_the_readers_clock() -> None:
    changes = {date(2026, 3, 29): 23, date(2026, 10, 25): 25, date(2026, 1, 31): 24}
    app = Flask("test")
    app.add_url_rule("/history", "history")

    with app.test_request_context():
        found = {
            day: make_timeline(HistoryQuery(), day, TODAY, {"door": {3: 1, 9: 4}}, BERLIN).rows[0] for day in changes
        }

    assert {day: len(row.hours) for day, row in found.items()} == changes
    assert [hour.hour for hour in found[date(2026, 3, 29)].hours[:4]] == [0, 1, 3, 4]
    assert [hour.hour for hour in found[date(2026, 10, 25)].hours[:5]] == [0, 1, 2, 2, 3]
    assert [hour.level for hour in found[date(2026, 1, 31)].hours if hour.count] == [1, 4]


def test_each_hour_of_the_day_on_which_clocks_are_set_back_leads_to_its_own_events() -> None:
    day = date(2026, 10, 25)
    app = Flask("test")
    app.add_url_rule("/history", "history")

    with app.test_request_context():
        hours = make_timeline(HistoryQuery(), day, TODAY, {"door": {2: 1, 3: 1}}, BERLIN).rows[0].hours
        asked = [history_query(parameters_of(hour.url), BERLIN) for hour in hours]
        again = [history_query(parameters_of(history_url(query)), BERLIN) for query in asked]

    begin = midnight(day, BERLIN)
    expected = [(begin + 3_600 * number, begin + 3_600 * (number + 1)) for number in range(25)]
    assert [(one.since.timestamp(), one.until.timestamp()) for one in asked if one.since and one.until] == expected
    assert again == asked
    assert [hour.text for hour in hours[1:4]] == [
        "01:00 to 02:00 CEST: 0 events",
        "02:00 CEST to 02:00 CET: 1 event",
        "02:00 CET to 03:00: 1 event",
    ]


@pytest.mark.parametrize(
    ("chosen", "shown"), [(None, ["door", "yard"]), ("yard", ["door", "yard"]), ("gone", ["door", "gone", "yard"])]
)
def test_a_filter_shows_what_was_chosen_though_nothing_is_about_it_any_more(
    chosen: str | None, shown: list[str]
) -> None:
    assert with_chosen(["door", "yard"], chosen) == shown


def test_an_offset_in_a_time_counts() -> None:
    found = history_query({"from": "2026-01-31T10:00+05:00"}, BERLIN)

    assert found.from_text == "2026-01-31T06:00"


def test_sums_of_cameras_and_steps_add_up() -> None:
    counts = [count(AT, "door", 60, 60), count(AT, "yard", 20, 0), count(AT + 3_600, "door", 0, 0)]

    found = make_shares(counts, "hour", UTC)

    assert (found.total.people_s, found.total.share) == (80, 0.75)
    assert [(row.name, row.sums.share) for row in found.steps] == [
        ("Sat 31 Jan, 09:00", 0.75),
        ("Sat 31 Jan, 10:00", None),
    ]
    assert [(row.name, row.sums.share) for row in found.cameras] == [("door", 1.0), ("yard", 0.0)]


def test_counts_are_exported_as_csv_with_local_times() -> None:
    text = as_csv([count(AT, "door", 60, 45.5), count(AT + 3_600, "door", 0, 0)], BERLIN)

    assert list(csv.DictReader(io.StringIO(text))) == [
        {
            "begin": "2026-01-31T10:00:00+01:00",
            "camera": "door",
            "masks_share": "0.7583",
            "people_s": "60.0",
            "masks_s": "45.5",
            "most_at_once": "2",
        },
        {
            "begin": "2026-01-31T11:00:00+01:00",
            "camera": "door",
            "masks_share": "",
            "people_s": "0.0",
            "masks_s": "0.0",
            "most_at_once": "2",
        },
    ]


@pytest.mark.parametrize("name", ["", "Mars/Olympus", "Europe", "../../etc/passwd", "a" * 64, "Europe/\0Berlin"])
def test_a_time_zone_that_there_is_not_counts_as_none(name: str) -> None:
    assert named_zone(name) is None


def test_without_a_cookie_the_zone_is_that_of_the_machine_in_each_season(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")

    with Flask("test").test_request_context():
        zone = reader_zone()

    assert zone_name(zone) == "Europe/Berlin"
    assert [f"{local(at, zone):%H:%M}" for at in (AT, AT + 180 * 86_400)] == ["10:00", "11:00"]


def test_a_day_begins_at_the_readers_midnight() -> None:
    assert midnight(TODAY, BERLIN) == AT - 10 * 3_600
