"""Events, counts, deliveries and rules over the API of a viewer that runs as a process, beside a real recorder."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from conftest import Server, wait_until
from event_scenes import BEGIN, Person, scene
from feeding import alive, serving, viewing
from processes import Processes, processes
from recorded_days import record_days
from test_api import described
from test_event_store import AT, OFFICE, active, closed, event, opened
from test_recorder import append, start

from events.database import open_engine
from events.locations import sqlite_url
from events.minute_counts import MinuteCount
from events.outbox import list_deliveries, note_delivered
from events.store import Progress
from viewer.health import NO_RECORDER
from viewer.security.api_tokens import create_token
from viewer.security.authenticator import password_hash

__all__ = ["processes"]

RULES = {"rules": [{"kind": "no_mask", "name": "bare", "seconds": 2}]}
WEBHOOK = {"name": "office", "url": "https://example.com/very/secret", "secret": "sixteen letters!"}


@dataclass(frozen=True)
class Api:
    """A viewer's API. headers: of a token for reading, and of one for everything."""

    url: str
    database: Path
    reader: dict[str, str]
    admin: dict[str, str]

    def get(self, path: str, **query: object) -> requests.Response:
        return requests.get(self.url + path, params=query, headers=self.reader, timeout=10)  # type: ignore[arg-type]

    def put(self, rules: object, **headers: str) -> requests.Response:
        sent = {"Content-Type": "application/json"} | self.admin | headers
        content = rules if isinstance(rules, bytes) else json.dumps(rules).encode()
        return requests.put(f"{self.url}/rules", data=content, headers=sent, timeout=10)

    def described(self, path: str, answer: requests.Response) -> Any:
        """Return the JSON of an answer after a check that the document describes it."""
        return described(self.url, path, answer, self.reader)


@pytest.fixture(scope="module")
def standing() -> Iterator[Api]:
    folder = Path(tempfile.mkdtemp(prefix="mw-"))
    tokens, database = folder / "tokens.json", folder / "events.db"
    reader, admin = (create_token(tokens, scope, [scope]) for scope in ("read", "admin"))
    settings = {"database": sqlite_url(database), "tokens": str(tokens), "password_hash": password_hash("a password")}
    with serving() as server, viewing(server.url, **settings) as viewer:
        headers = [{"Authorization": f"Bearer {token}"} for token in (reader, admin)]
        yield Api(f"{viewer.url}api/v1", database, *headers)
    shutil.rmtree(folder)


@pytest.fixture
def api(standing: Api) -> Api:
    """The API, with a database of five events at two cameras, their deliveries, counts, and no rules."""
    for file in standing.database.parent.glob("events.db*"):
        file.unlink()
    engine = open_engine(sqlite_url(standing.database))
    store = active(engine, "one", OFFICE)
    changes = [*(opened(number) for number in range(1, 5)), closed(4), opened(5, camera="yard", zone="gate")]
    minute = int(AT // 60)
    counts = {"door": {minute: MinuteCount(people_s=8, masks_s=6, most=3, frames=9), minute + 60: MinuteCount()}}
    store.write(Progress(changes=changes, counts=counts), AT)
    with engine.begin() as connection:
        note_delivered(connection, list_deliveries(connection)[-1], AT)
    engine.dispose()
    wait_until(lambda: standing.get("/events").ok, 10, "the viewer finds the database")
    return standing


def test_events_are_answered_by_filters_and_in_pages(api: Api) -> None:
    everything = api.described("/events", api.get("/events"))
    first = api.get("/events", camera="door", limit=2).json()
    second = api.get("/events", camera="door", limit=2, cursor=first["next_cursor"]).json()
    found = [
        [one["subject"] for one in api.get("/events", **query).json()["events"]]
        for query in ({"zone": "gate"}, {"open": "true", "since": AT + 3}, {"kind": "camera_offline"}, {"rule": "bare"})
    ]

    assert [one["subject"] for one in everything["events"]] == ["5", "4", "3", "2", "1"]
    assert [[one["subject"] for one in page["events"]] for page in (first, second)] == [["4", "3"], ["2", "1"]]
    assert second["next_cursor"] is None
    assert found == [["5"], ["5", "3"], [], ["5", "4", "3", "2", "1"]]


def test_one_event_comes_with_its_deliveries(api: Api) -> None:
    one = api.described("/events/{id}", api.get(f"/events/{event(4).id}"))
    missing = api.described("/events/{id}", api.get(f"/events/{'0' * 32}"))

    assert one["event"]["ended_at"] == AT + 13
    assert [(delivery["phase"], delivery["state"]) for delivery in one["deliveries"]] == [
        ("opened", "pending"),
        ("closed", "pending"),
    ]
    assert (missing["status"], "/api/v1/events" in missing["detail"]) == (404, True)


def test_counts_are_answered_by_period(api: Api) -> None:
    hours = api.described("/counts", api.get("/counts", since=AT - 3_600, until=AT + 7_200, timezone="Asia/Kolkata"))
    days = api.get("/counts", by="day", since=AT - 86_400, until=AT + 86_400, camera="door").json()
    now = api.get("/counts").json()

    assert [one["share"] for one in hours["counts"]] == [0.75, None]
    assert [one["started_at"] % 3_600 for one in hours["counts"]] == [1_800, 1_800]
    assert [(one["people_s"], one["most"], one["frames"]) for one in days["counts"]] == [(8, 3, 9)]
    assert now == {"counts": []}


@pytest.mark.parametrize(
    ("path", "query", "part"),
    [
        ("/events", {"limit": 0}, "limit"),
        ("/events", {"limit": 1_001}, "limit"),
        ("/events", {"cursor": "nothing"}, "leave it out"),
        ("/events", {"since": "nan"}, "since"),
        ("/events", {"camera": "DOOR\0"}, "camera"),
        ("/events", {"colour": "red"}, "colour"),
        ("/counts", {"by": "year"}, "by"),
        ("/counts", {"by": "minute", "since": 0}, "ask for longer ones"),
        ("/counts", {"timezone": "Mars/Phobos"}, "Europe/Berlin"),
        ("/counts", {"timezone": "../../etc/passwd"}, "timezone"),
        ("/deliveries", {"state": "lost"}, "state"),
        ("/deliveries", {"cursor": 2**64}, "cursor"),
    ],
)
def test_a_wrong_parameter_is_named(api: Api, path: str, query: dict[str, object], part: str) -> None:
    answer = api.get(path, **query)

    assert (answer.status_code, part in answer.json()["detail"]) == (422, True), answer.text


def test_a_delivery_is_sent_again_by_those_who_may(api: Api) -> None:
    listed = api.described("/deliveries", api.get("/deliveries", state="delivered", receiver="office"))
    page = api.get("/deliveries", limit=4).json()
    rest = api.get("/deliveries", limit=4, cursor=page["next_cursor"]).json()
    (delivery,) = listed["deliveries"]
    replay = f"{api.url}/deliveries/{delivery['id']}/replay"

    denied = requests.post(replay, headers=api.reader, timeout=10)
    again = requests.post(replay, headers=api.admin, timeout=10)
    missing = requests.post(f"{api.url}/deliveries/999/replay", headers=api.admin, timeout=10)

    assert (len(page["deliveries"]), len(rest["deliveries"]), rest["next_cursor"]) == (4, 2, None)
    assert (denied.status_code, "scope admin" in denied.json()["detail"]) == (403, True)
    assert api.described("/deliveries/{id}/replay", again) | {"created_at": 0, "next_at": 0} == delivery | {
        "state": "pending",
        "attempts": 0,
        "created_at": 0,
        "next_at": 0,
        "finished_at": None,
    }
    assert missing.status_code == 404


def test_rules_are_set_and_read_without_their_secrets(api: Api) -> None:
    before = api.described("/rules", api.get("/rules"))

    answer = api.put(RULES | {"webhooks": [WEBHOOK]})
    shown = api.described("/rules", api.get("/rules"))
    round_trip = api.put(shown["rules"])

    assert before["origin"] == "default"
    assert [one["name"] for one in before["rules"]["rules"]] == ["no-mask", "camera-offline"]
    assert api.described("/rules", answer) == shown
    assert shown["origin"] == "api"
    assert shown["rules"]["webhooks"][0] | {"url": "set", "secret": "set"} == shown["rules"]["webhooks"][0]
    assert "secret/" not in answer.text and "sixteen" not in answer.text
    assert (round_trip.status_code, round_trip.json()) == (200, shown)


@pytest.mark.parametrize(
    ("rules", "part"),
    [
        (b"[]", "not a JSON object"),
        (b"{", "not a JSON object"),
        (b"\xff", "not a JSON object"),
        (b"[" * 100_000, "not a JSON object"),
        ({"rules": [{"kind": "no_mask", "name": "bare", "seconds": -1}]}, "rule 'bare'"),
        ({"rules": [{"kind": "no_mask", "name": "bare", "zone": "roof"}]}, "rule 'bare': there is no zone 'roof'"),
        ({"zones": [{"name": "gate", "camera": "door", "polygon": [[0, 0], [1, 1], [0, 0]]}]}, "zone 'gate'"),
        ({"webhooks": [WEBHOOK | {"url": "ftp://example.com/"}]}, "webhook 'office': its url is not http"),
        ({"webhooks": [WEBHOOK | {"url": "http://169.254.1.1/"}]}, "169.254.1.1"),
        ({"timezone": "Mars"}, "timezone"),
        ({"cameras": []}, "cameras"),
        ({"rules": [{"kind": "x" * 5_000}]}, "rule 1"),
    ],
)
def test_rules_that_cannot_be_are_refused_in_one_line_and_those_before_stay(api: Api, rules: object, part: str) -> None:
    api.put(RULES)

    answer = api.put(rules)

    problem = api.described("/rules", answer)
    assert (answer.status_code, part in problem["detail"]) == (422, True), problem
    assert len(problem["detail"].splitlines()) == 1
    assert len(problem["detail"]) <= 500
    assert [one["name"] for one in api.get("/rules").json()["rules"]["rules"]] == ["bare"]


def test_rules_are_set_as_json_by_those_who_may(api: Api) -> None:
    denied = api.put(RULES, **api.reader)
    other_type = api.put(RULES, **{"Content-Type": "text/plain"})
    too_large = api.put(b" " * 300_000)

    answers = (denied, other_type, too_large)
    assert [answer.status_code for answer in answers] == [403, 415, 413]
    assert all(api.described("/rules", answer)["detail"] for answer in answers)


def test_a_database_that_is_away_is_said_and_the_rest_goes_on(api: Api) -> None:
    for file in api.database.parent.glob("events.db*"):
        file.unlink()

    answers = [api.get(path) for path in ("/events", f"/events/{'0' * 32}", "/counts", "/deliveries", "/rules")]
    answers.append(api.put(RULES))
    cameras = api.get("/cameras")

    assert [answer.status_code for answer in answers] == [503] * 6
    assert all("`maskwatch record`" in answer.json()["detail"] for answer in answers)
    assert {answer.headers["Retry-After"] for answer in answers} == {"1"}
    assert cameras.ok
    assert not api.database.exists()


def test_health_says_that_the_database_is_away_without_failing_for_it(server: Server, tmp_path: Path) -> None:
    url = sqlite_url(tmp_path / "events.db")

    with viewing(server.url, database=url) as viewer:
        health = wait_until(
            lambda: found if (found := requests.get(f"{viewer.url}healthz", timeout=5).json()).get("notes") else None,
            10,
            "health tells of the database",
        )

    assert "there are no events yet" in str(health["notes"])
    assert "database" not in str(health["reasons"])


def test_health_says_that_nobody_records_although_a_database_is_named(server: Server, tmp_path: Path) -> None:
    url = sqlite_url(tmp_path / "events.db")
    record_days(url, 0.0)

    with viewing(server.url, database=url) as viewer:

        def notes() -> list[str]:
            found: list[str] = requests.get(f"{viewer.url}healthz", timeout=5).json().get("notes", [])
            return found

        said = wait_until(notes, 10, "health says that nobody records")
        with alive(server, "recorder"):
            wait_until(lambda: not notes(), 10, "somebody records")

    assert said == [NO_RECORDER]


def test_an_active_recorder_takes_up_rules_and_keeps_what_it_remembers(
    server: Server, processes: Processes, tmp_path: Path
) -> None:
    database = sqlite_url(tmp_path / "events.db")
    person = scene([Person(1, 0, 60, bare=[(0, 60)])], 12)
    with viewing(server.url, database=database) as viewer:
        api = Api(f"{viewer.url}api/v1", tmp_path / "events.db", {}, {})
        # scenes are of 2023, which a recorder would remove
        processes.start("record", "--database", database, "--keep-days", 36_500, redis=server)
        wait_until(lambda: api.get("/rules").ok, 30, "the recorder makes its database")
        api.put({"rules": [{"kind": "no_mask", "name": "kept", "seconds": 10}]})
        wait_until(lambda: "uses 1 rules" in processes.log(), 20, "the recorder takes up the first rules")
        for result in person[:80]:
            append(server, result)
        wait_until(lambda: _frames(api) == 80, 20, "the recorder has read the first results")
        kept = {"kind": "no_mask", "name": "kept", "seconds": 10}
        api.put({"rules": [kept, {"kind": "people_without_mask", "name": "new", "people": 1}]})
        wait_until(lambda: "uses 2 rules" in processes.log(), 20, "the recorder takes up the others")

        for result in person[80:]:
            append(server, result)
        events = wait_until(
            lambda: found if len(found := api.get("/events").json()["events"]) == 2 else None, 20, "both rules fire"
        )

    began = {one["rule"]: one["started_at"] for one in events}
    assert began["kept"] == pytest.approx(BEGIN)
    assert began["new"] == pytest.approx(BEGIN + 8)


def test_rules_of_a_file_cannot_be_set_over_the_api(server: Server, processes: Processes, tmp_path: Path) -> None:
    with viewing(server.url, database=sqlite_url(tmp_path / "events.db")) as viewer:
        api = Api(f"{viewer.url}api/v1", tmp_path / "events.db", {}, {})
        start(processes, server, tmp_path / "events.db")
        wait_until(lambda: api.get("/rules").ok, 30, "the recorder makes its database")
        found = wait_until(
            lambda: found if (found := api.get("/rules").json())["origin"] == "file" else None, 10, "its file is known"
        )

        answer = api.put(RULES)

    assert [one["name"] for one in found["rules"]["rules"]] == ["bare", "two"]
    assert answer.status_code == 409
    assert "--rules" in answer.json()["detail"]


def _frames(api: Api) -> int:
    """Return how many frames of the scene the recorder has counted."""
    found = api.get("/counts", by="minute", since=BEGIN - 60, until=BEGIN + 600).json()["counts"]
    return sum(one["frames"] for one in found)
