"""Whatever fails, receivers get each event at least once, in order for each camera: they are away, or recorders die."""

from __future__ import annotations

import hashlib
import hmac
import signal
import socket
from pathlib import Path

import sqlalchemy as sa
from conftest import Server, wait_until
from deliveries import Clock, deliverer, engine, fates, written
from event_scenes import scene
from mqtt_broker import Broker, Subscriber, broker, subscriber
from processes import Processes, processes
from test_deliveries import SECRET, Receiver, receiver, webhook
from test_event_store import closed, opened
from test_recorder import EXPECTED, PEOPLE, RULES, SCENE_S, appending, database, start, states

from events.database import open_engine
from events.locations import sqlite_url

__all__ = ["broker", "database", "engine", "processes", "receiver", "subscriber"]

AWAY_S = 600


def keys(got: Receiver) -> list[str]:
    """Return the deliveries that a webhook has seen, in order, without doubles; check all signatures."""
    for headers, body in got.got:
        time, _, given = headers["Maskwatch-Signature"].partition(",v1=")
        signed = time.removeprefix("t=").encode() + b"." + body
        assert given == hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest()
    return list(dict.fromkeys(headers["Maskwatch-Delivery"] for headers, _ in got.got))


def in_order(seen: list[str], engine: sa.Engine) -> bool:
    """Return whether each camera's deliveries were seen, in the order in which they were written for all receivers."""
    expected = {one.camera: list[str]() for one in fates(engine)}
    for one in fates(engine):
        if one.key not in expected[one.camera]:
            expected[one.camera].append(one.key)
    return all([key for key in seen if key in keys] == keys for keys in expected.values())


def test_a_webhook_that_is_away_for_ten_minutes_and_then_fails_half_the_time_gets_everything(
    engine: sa.Engine, receiver: Receiver
) -> None:
    hook, clock = webhook(receiver.url), Clock()
    changes = [change for number in range(10) for change in (opened(number), opened(100 + number, camera="yard"))]
    written(engine, hook, clock, *changes, *map(closed, range(10)))
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        away = webhook(f"http://127.0.0.1:{nobody.getsockname()[1]}/")
        due = deliverer(engine, away, clock)
        back_at = clock.at + AWAY_S
        while clock.at < back_at:
            due.deliver_due(away)
            clock.at += 7
    receiver.statuses += [500, 200] * 30

    due = deliverer(engine, hook, clock)
    while any(one.state == "pending" for one in fates(engine)):
        due.deliver_due(hook)
        clock.at += 60

    assert len(fates(engine)) == 30
    assert {one.state for one in fates(engine)} == {"delivered"}
    assert in_order(keys(receiver), engine)


def test_killed_recorders_and_a_broker_that_restarts_lose_no_event(
    server: Server,
    processes: Processes,
    database: Path,
    receiver: Receiver,
    broker: Broker,
    subscriber: Subscriber,
) -> None:
    receiver.statuses += [200, 503] * 8
    rules = f"""{RULES}
[[webhooks]]
name = "office"
url = "{receiver.url}"
secret = "{SECRET}"
allow_private_address = true
[[mqtt]]
name = "house"
host = "127.0.0.1"
port = {broker.port}
allow_private_address = true
"""
    recorder = start(processes, server, database, rules)
    wait_until(lambda: states(server) == ["active"], 30, "the recorder is active")
    wait_until(lambda: subscriber.last("maskwatch/status") == "online", 20, "it says so at the broker")

    with appending(server, scene(PEOPLE, SCENE_S), every_s=0.01) as feeding:
        wait_until(subscriber.deliveries, 30, "the first event arrives")
        recorder.send_signal(signal.SIGKILL)
        recorder.wait()
        wait_until(lambda: subscriber.last("maskwatch/status") == "offline", 20, "the last will is published")
        broker.stop()
        start(processes, server, database, rules)
        wait_until(lambda: "active" in states(server), 30, "another has taken over")
        feeding.join()
        broker.start("allow_anonymous true")
    found = open_engine(sqlite_url(database), read_only=True)
    wait_until(lambda: settled(found), 60, "all is delivered")

    assert in_order(keys(receiver), found)
    wait_until(lambda: in_order(list(dict.fromkeys(subscriber.deliveries())), found), 20, "all messages arrive")
    wait_until(lambda: subscriber.last("maskwatch/status") == "online", 20, "the broker knows who is active")
    found.dispose()


def settled(engine: sa.Engine) -> bool:
    """Return whether all events of the scene were delivered, when they opened and when they closed, to both."""
    states = [one.state for one in fates(engine)]
    return len(states) == 2 * 2 * len(EXPECTED) and set(states) == {"delivered"}


def test_a_delivery_that_was_sent_but_not_noted_is_sent_again_with_the_same_key(
    engine: sa.Engine, receiver: Receiver
) -> None:
    hook, clock = webhook(receiver.url), Clock()
    written(engine, hook, clock, opened())
    due = deliverer(engine, hook, clock)
    due.deliver_due(hook)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE deliveries SET state = 'pending'"))  # as if it had died before noting it

    due.deliver_due(hook)

    assert [headers["Maskwatch-Delivery"] for headers, _ in receiver.got] == [f"{opened().event.id}-opened"] * 2
