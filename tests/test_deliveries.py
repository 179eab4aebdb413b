"""Deliveries reach a receiver that fails, at least once, in order for each camera, and signed."""

from __future__ import annotations

import hashlib
import hmac
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec
import pytest
import sqlalchemy as sa
from click.testing import CliRunner
from conftest import wait_until
from databases import database, engine, sqlite_engine
from test_event_store import AT, active, closed, opened

import maskwatch
from events.deliverer import Deliverer
from events.outbox import MAX_PAUSE_S, Delivery, give_up, list_deliveries
from events.rule_types import DAY_S, Webhook
from events.store import Progress, Store
from events.webhooks import NotAccepted, send

__all__ = ["database", "engine", "sqlite_engine"]

SECRET = "sixteen letters!"  # noqa: S105 -- of the receiver in this file


@dataclass
class Receiver:
    """A web server that answers with the statuses that it is told, then with 200."""

    port: int = 0
    statuses: list[int] = field(default_factory=list)
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/events?key=1"

    def messages(self) -> list[tuple[str, str]]:
        """Return the phases and subjects of what was accepted or not, in order."""
        return [(one["phase"], one["event"]["subject"]) for one in (json.loads(body) for _, body in self.got)]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver()

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            found.got.append((dict(self.headers), self.rfile.read(int(self.headers["Content-Length"]))))
            status = found.statuses.pop(0) if found.statuses else 200
            self.send_response(status)
            if status in (302, 307):
                self.send_header("Location", found.url)
            self.end_headers()

        def log_message(self, *_: object) -> None:  # type: ignore[override]
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    found.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield found
    server.shutdown()
    thread.join()
    server.server_close()


class Clock:
    """The time of deliveries, as a test sets it."""

    def __init__(self) -> None:
        self.at = AT

    def now(self) -> float:
        return self.at


def webhook(url: str, **values: object) -> Webhook:
    fields = {"name": "office", "url": url, "secret": SECRET, "allow_private_address": True}
    return msgspec.convert(fields | values, Webhook)


def deliverer(engine: sa.Engine, hook: Webhook, clock: Clock, *changes: object) -> Deliverer:
    """Return a deliverer for changes that were just written."""
    store = Store(engine, "one", [hook], now=clock.now)
    assert store.take_over(clock.at) is not None
    store.write(Progress(changes=changes), clock.at)  # type: ignore[arg-type]
    found = Deliverer(engine, [hook], clock.now)
    found.is_active.set()
    return found


def fates(engine: sa.Engine) -> list[Delivery]:
    """Return all deliveries, oldest first."""
    with engine.begin() as connection:
        return list_deliveries(connection)[::-1]


def test_a_message_is_signed_and_names_its_delivery(engine: sa.Engine, receiver: Receiver) -> None:
    hook, clock = webhook(receiver.url), Clock()
    due = deliverer(engine, hook, clock, opened())

    due.deliver_due(hook)

    ((headers, body),) = receiver.got
    time, _, given = headers["Maskwatch-Signature"].partition(",v1=")
    expected = hmac.new(SECRET.encode(), time.removeprefix("t=").encode() + b"." + body, hashlib.sha256).hexdigest()
    assert (time, given) == (f"t={AT:.0f}", expected)
    assert headers["Maskwatch-Delivery"] == f"{opened().event.id}-opened"
    assert headers["Host"] == f"127.0.0.1:{receiver.port}"
    assert json.loads(body) == {"phase": "opened", "event": msgspec.to_builtins(opened().event)}
    assert [(one.state, one.attempts, one.finished_at) for one in fates(engine)] == [("delivered", 1, AT)]


def test_a_camera_waits_for_its_oldest_message_and_others_do_not(engine: sa.Engine, receiver: Receiver) -> None:
    hook, clock = webhook(receiver.url), Clock()
    receiver.statuses += [500, 200, 503]
    due = deliverer(engine, hook, clock, opened(1), opened(2, camera="yard"), closed(1))

    due.deliver_due(hook)
    due.deliver_due(hook)
    for pause in (1, 2, 1):
        clock.at += pause
        due.deliver_due(hook)

    assert receiver.messages() == [("opened", "1"), ("opened", "2"), *[("opened", "1")] * 2, ("closed", "1")]
    assert {one.state for one in fates(engine)} == {"delivered"}
    assert [one.attempts for one in fates(engine)] == [3, 1, 1]


def test_a_receiver_that_fails_half_the_time_gets_everything_in_order(engine: sa.Engine, receiver: Receiver) -> None:
    hook, clock = webhook(receiver.url), Clock()
    receiver.statuses += [500, 200, 302, 404, 200, 500] * 3
    due = deliverer(engine, hook, clock, *map(opened, range(10)))

    while any(one.state == "pending" for one in fates(engine)):
        due.deliver_due(hook)
        clock.at += 1

    accepted = list(dict.fromkeys(receiver.messages()))
    assert accepted == [("opened", str(number)) for number in range(10)]


def test_pauses_double_up_to_five_minutes_and_end_after_a_day(engine: sa.Engine) -> None:
    with socket.socket() as taken:  # nobody listens there
        taken.bind(("127.0.0.1", 0))
        hook, clock = webhook(f"http://127.0.0.1:{taken.getsockname()[1]}/"), Clock()
        due = deliverer(engine, hook, clock, opened())
        pauses = []
        for _ in range(11):
            due.deliver_due(hook)
            (delivery,) = fates(engine)
            pauses.append(delivery.next_at - clock.at)
            clock.at = delivery.next_at

    clock.at = AT + DAY_S + 1
    with engine.begin() as connection:
        given_up = give_up(connection, clock.at)

    (dead,) = fates(engine)
    assert pauses == [1, 2, 4, 8, 16, 32, 64, 128, 256, MAX_PAUSE_S, MAX_PAUSE_S]
    assert given_up == 1
    assert (dead.state, dead.attempts) == ("dead", 11)
    assert dead.error and "cannot be reached: [Errno 111] Connection refused" in dead.error


def test_who_was_told_that_an_event_opened_is_told_that_it_closed_though_its_rule_is_gone(engine: sa.Engine) -> None:
    before, now = webhook("http://127.0.0.1:1", rules=["bare", "other"]), webhook("http://127.0.0.1:1", rules=["other"])
    store = active(engine, "one", before)
    store.write(Progress(changes=[opened(rule="bare")]), AT)

    store.use([now, webhook("http://127.0.0.1:1", name="new", rules=["other"])])
    store.write(Progress(changes=[closed(rule="bare")]), AT)

    assert [(one.receiver, one.phase) for one in fates(engine)] == [("office", "opened"), ("office", "closed")]


@pytest.mark.parametrize(
    "arguments",
    [
        ("deliveries", "replay", "99999999999999999999"),
        ("deliveries", "list", "--to", "\udcff"),
        ("events", "--camera", "\udcff"),
        ("events", "--since", "0001-01-01"),
    ],
)
def test_what_no_database_can_hold_is_one_line(arguments: tuple[str, ...], database: str) -> None:
    result = CliRunner().invoke(maskwatch.cli, [*arguments, "--database", database])

    assert result.exit_code == 2
    assert isinstance(result.exception, SystemExit)


def test_a_filter_that_no_event_fits_says_what_there_is(database: str, engine: sa.Engine) -> None:
    def told(*arguments: str) -> tuple[str, str, int]:
        result = CliRunner().invoke(maskwatch.cli, ["events", *arguments, "--database", database])
        return result.stdout, result.stderr, result.exit_code

    store = active(engine, "one", webhook("http://127.0.0.1:1"))
    before = told()
    store.write(Progress(changes=[opened()]), AT)

    assert before == ("", "no event was recorded yet\n", 0)
    assert told("--kind", "nomask") == ("", "no event fits; there are events of no_mask of the cameras door\n", 0)
    assert told("--camera", "door")[1:] == ("", 0)


@pytest.mark.parametrize("command", ["events", "deliveries list", "models list"])
def test_a_list_that_nobody_reads_any_more_ends_without_a_word(command: str, database: str, engine: sa.Engine) -> None:
    active(engine, "one", webhook("http://127.0.0.1:1")).write(Progress(changes=[opened()]), AT)
    reading, writing = os.pipe()
    os.close(reading)
    where = [] if command.startswith("models") else ["--database", database]

    done = subprocess.run(
        [sys.executable, "-m", "maskwatch", *command.split(), *where],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
    )
    os.close(writing)

    assert done.stderr == ""


def test_a_dead_delivery_can_be_replayed(database: str, engine: sa.Engine, receiver: Receiver) -> None:
    hook, clock = webhook(receiver.url), Clock()
    due = deliverer(engine, hook, clock, opened())
    with engine.begin() as connection:
        give_up(connection, AT + DAY_S + 1)
    where = ["--database", database]

    listed = CliRunner().invoke(maskwatch.cli, ["deliveries", "list", "--state", "dead", *where])
    replayed = CliRunner().invoke(maskwatch.cli, ["deliveries", "replay", "1", *where])
    missing = CliRunner().invoke(maskwatch.cli, ["deliveries", "replay", "9", *where])
    clock.at = fates(engine)[0].next_at
    due.deliver_due(hook)

    assert "dead" in listed.output and "never tried" in listed.output
    assert replayed.output == "1 is pending again\n"
    assert (missing.exit_code, "no delivery 9" in missing.output) == (1, True)
    assert [one.state for one in fates(engine)] == ["delivered"]
    assert receiver.messages() == [("opened", "1")]


def test_a_receiver_that_hangs_delays_no_other(
    sqlite_engine: sa.Engine, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = sqlite_engine
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        slow = webhook(f"http://127.0.0.1:{silent.getsockname()[1]}/", name="slow")
        hook, clock = webhook(receiver.url), Clock()
        store = Store(engine, "one", [slow, hook], now=clock.now)
        store.take_over(clock.at)
        store.write(Progress(changes=[opened()]), clock.at)
        both = Deliverer(engine, [slow, hook], clock.now)
        both.is_active.set()

        both.start()
        wait_until(lambda: receiver.got, 5, "the other receiver has its message")
        both.stop()

        assert {one.receiver: one.state for one in fates(engine)}["slow"] == "pending"


def test_nothing_is_sent_while_another_recorder_is_active(engine: sa.Engine, receiver: Receiver) -> None:
    hook = webhook(receiver.url)
    due = deliverer(engine, hook, Clock(), opened())
    due.is_active.clear()

    assert due.deliver_due(hook) == 0
    assert receiver.got == []


def test_an_address_of_the_own_network_is_refused_at_each_attempt(engine: sa.Engine, receiver: Receiver) -> None:
    hook = webhook(receiver.url.replace("127.0.0.1", "127.1"), allow_private_address=False)
    deliverer(engine, hook, Clock(), opened())
    (delivery,) = fates(engine)

    with pytest.raises(NotAccepted, match="not on the public Internet"):
        send(hook, delivery, AT)

    assert receiver.got == []


def test_a_redirect_is_not_followed(engine: sa.Engine, receiver: Receiver) -> None:
    hook = webhook(receiver.url)
    deliverer(engine, hook, Clock(), opened())
    receiver.statuses += [302]

    with pytest.raises(NotAccepted, match="status 302"):
        send(hook, fates(engine)[0], AT)

    assert len(receiver.got) == 1
