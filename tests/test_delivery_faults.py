"""Nothing is lost or sent for ever when a database, a receiver or a clock fails in the middle of a delivery."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import pytest
import sqlalchemy as sa
from databases import database, engine, sqlite_engine
from deliveries import Clock, deliverer, fates, written
from test_deliveries import Receiver, receiver, webhook
from test_event_store import AT, active, closed, opened

from events.database import DatabaseAway
from events.deliverer import Deliverer
from events.outbox import MAX_ERROR, NO_RECEIVER, give_up
from events.receiver_types import AppriseService
from events.receivers import NotAccepted
from events.rule_types import DAY_S
from events.store import Store
from events.tables import DELIVERIES
from events.webhooks import send

__all__ = ["database", "engine", "receiver", "sqlite_engine"]

FULL = "CREATE TRIGGER full BEFORE UPDATE ON deliveries BEGIN SELECT RAISE(FAIL, 'the disk is full'); END"


@contextmanager
def answering(*parts: bytes) -> Iterator[str]:
    """Yield the URL of a server that sends these parts to the first connection, and the last one again and again."""
    ended = threading.Event()

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            for part in parts:
                connection.sendall(part)
            try:
                while not ended.wait(0.05):
                    connection.sendall(parts[-1])
            except OSError:  # the other end has closed the connection
                return

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        ended.set()
        thread.join()


def test_what_was_sent_is_not_sent_again_while_the_database_is_full(
    sqlite_engine: sa.Engine, receiver: Receiver
) -> None:
    hook, clock = webhook(receiver.url), Clock()
    written(sqlite_engine, hook, clock, opened())
    due = deliverer(sqlite_engine, hook, clock)
    with sqlite_engine.begin() as connection:
        connection.exec_driver_sql(FULL)

    for _ in range(3):
        with pytest.raises(DatabaseAway, match="the disk is full"):
            due.deliver_due(hook)
    with sqlite_engine.begin() as connection:
        connection.exec_driver_sql("DROP TRIGGER full")
    due.deliver_due(hook)

    assert len(receiver.got) == 1
    assert [one.state for one in fates(sqlite_engine)] == ["delivered"]


def test_a_recorder_that_was_replaced_without_knowing_it_sends_nothing(engine: sa.Engine, receiver: Receiver) -> None:
    hook, clock = webhook(receiver.url), Clock()
    store = Store(engine, "one", [hook], now=clock.now)
    written(engine, hook, clock, opened())
    replaced = Deliverer(engine, [hook], clock.now, has_lease=store.has_lease)
    replaced.is_active.set()
    active(engine, "two", at=AT + 60)

    replaced.deliver_due(hook)

    assert receiver.got == []
    assert [one.state for one in fates(engine)] == ["pending"]


def test_a_delivery_that_nobody_can_read_fails_and_does_not_end_the_thread(sqlite_engine: sa.Engine) -> None:
    phone = msgspec.convert({"name": "phone", "url": "json://example.com/QXX7-secret"}, AppriseService)
    written(sqlite_engine, phone, Clock(), opened())
    with sqlite_engine.begin() as connection:
        connection.execute(sa.update(DELIVERIES).values(body="{}"))

    deliverer(sqlite_engine, phone, Clock()).deliver_due(phone)

    (failed,) = fates(sqlite_engine)
    assert failed.attempts == 1
    assert "an unexpected ValidationError in" in str(failed.error)


def test_what_a_receiver_answers_is_kept_as_one_line_that_can_be_shown(engine: sa.Engine) -> None:
    with answering(b"\x1b[2J\x00 nonsense " + b"x" * 500 + b"\r\n") as url:
        hook = webhook(url)
        written(engine, hook, Clock(), opened())

        deliverer(engine, hook, Clock()).deliver_due(hook)

    error = str(fates(engine)[0].error)
    assert error.startswith("cannot be reached: [2J nonsense xxx")
    assert (len(error), error.isprintable()) == (MAX_ERROR, True)


def test_a_receiver_that_answers_a_letter_at_a_time_is_given_up_in_time(sqlite_engine: sa.Engine) -> None:
    with answering(b"HTTP/1.1 200 fine\r\nX-Slow: ", b"x") as url:
        hook = webhook(url)
        written(sqlite_engine, hook, Clock(), opened())

        with pytest.raises(NotAccepted, match=r"no answer within 0\.5 s"):
            send(hook, fates(sqlite_engine)[0], AT, timeout_s=0.5)


def test_an_answer_whose_content_never_ends_counts_by_its_status(sqlite_engine: sa.Engine) -> None:
    with answering(b"HTTP/1.1 204 fine\r\n\r\n", b"x") as url:
        hook = webhook(url)
        written(sqlite_engine, hook, Clock(), opened())

        send(hook, fates(sqlite_engine)[0], AT, timeout_s=0.5)


def test_a_clock_that_was_ahead_delays_no_delivery_for_longer_than_a_pause(
    engine: sa.Engine, receiver: Receiver
) -> None:
    hook, clock = webhook(receiver.url), Clock()
    receiver.statuses += [500, 200]
    written(engine, hook, clock, opened())
    due = deliverer(engine, hook, clock)
    clock.at = AT + 3_600
    due.deliver_due(hook)

    clock.at = AT
    due.deliver_due(hook)

    assert [one.state for one in fates(engine)] == ["delivered"]


def test_a_delivery_to_a_receiver_that_was_removed_says_so_until_it_is_back(engine: sa.Engine) -> None:
    hook, store = webhook("http://127.0.0.1:9/"), active(engine)
    written(engine, hook, Clock(), opened())

    store.use([])
    removed = fates(engine)[0].error
    store.use([hook])

    assert removed == NO_RECEIVER
    assert fates(engine)[0].error is None


def test_a_delivery_behind_one_that_failed_for_a_day_says_that_it_was_never_tried(engine: sa.Engine) -> None:
    hook, clock = webhook("http://127.0.0.1:9/"), Clock()
    written(engine, hook, clock, opened(), closed())
    deliverer(engine, hook, clock).deliver_due(hook)

    with engine.begin() as connection:
        give_up(connection, AT + DAY_S + 1)

    first, second = (str(one.error) for one in fates(engine))
    assert first.startswith("cannot be reached")
    assert second.startswith("never tried: an earlier message was not accepted")
