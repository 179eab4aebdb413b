"""Events and states reach an MQTT broker: at least once, in order for each camera, though it restarts or hangs."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa
from conftest import wait_until
from deliveries import Clock, deliverer, engine, fates, written
from mqtt_broker import Broker, Subscriber, broker, subscriber
from test_event_store import closed, opened

from events.minute_counts import MinuteCount
from events.mqtt_receiver import MqttReceiver
from events.open_receivers import Surroundings
from events.receiver_types import Mqtt
from events.receivers import NotAccepted
from events.state_board import CameraStatus, RuleStatus, StateBoard

__all__ = ["broker", "engine", "subscriber"]

MINUTE = 28_333_333
AWAY_S = 600


def settings(port: int, **values: object) -> Mqtt:
    fields = {"name": "house", "host": "127.0.0.1", "port": port, "allow_private_address": True}
    return msgspec.convert(fields | values, Mqtt)


def door(*, state: str = "live", is_open: bool = False) -> CameraStatus:
    rules = [RuleStatus(name="bare", kind="no_mask", is_open=is_open)]
    return msgspec.convert({"name": "door", "state": state, "rules": [msgspec.to_builtins(rules[0])]}, CameraStatus)


def board_of(*cameras: CameraStatus) -> StateBoard:
    board = StateBoard()
    board.add_counts("door", {MINUTE: MinuteCount(people_s=30, masks_s=24, most=3, frames=900)})
    board.show(cameras, (MINUTE + 1) * 60.0)
    return board


def retained(broker: Broker, name: str) -> dict[str, str]:
    """Return what somebody who comes now gets at once, by topic."""
    late = Subscriber(broker.port, name)
    late.connect()
    late.catch_up()
    late.close()
    return {one.topic: one.payload.decode() for one in late.got if one.retain}


def test_an_event_is_a_message_that_names_its_delivery(
    engine: sa.Engine, broker: Broker, subscriber: Subscriber
) -> None:
    house, clock = settings(broker.port), Clock()
    written(engine, house, clock, opened())

    deliverer(engine, house, clock).deliver_due(house)

    wait_until(subscriber.deliveries, 10, "the message arrives")
    (message,) = [one for one in subscriber.got if one.topic == "maskwatch/door/events"]
    assert json.loads(message.payload) == {"phase": "opened", "event": msgspec.to_builtins(opened().event)}
    assert (message.qos, message.retain) == (1, False)
    assert subscriber.deliveries() == [f"{opened().event.id}-opened"]
    assert [(one.state, one.attempts) for one in fates(engine)] == [("delivered", 1)]


def test_a_broker_that_is_away_for_ten_minutes_gets_everything_in_order(
    engine: sa.Engine, broker: Broker, subscriber: Subscriber
) -> None:
    house, clock = settings(broker.port), Clock()
    changes = [change for number in range(10) for change in (opened(number), opened(100 + number, camera="yard"))]
    written(engine, house, clock, *changes[:4])
    due = deliverer(engine, house, clock)
    due.deliver_due(house)

    broker.stop()
    back_at = clock.at + AWAY_S
    while clock.at < back_at:
        due.deliver_due(house)
        clock.at += 7
    written(engine, house, clock, *changes[4:], closed(0))
    broker.start("allow_anonymous true")
    while any(one.state == "pending" for one in fates(engine)):
        due.deliver_due(house)
        clock.at += 60

    keys = {f"{change.event.id}-{change.phase}" for change in [*changes, closed(0)]}
    wait_until(lambda: set(subscriber.deliveries()) >= keys, 20, "all messages arrive")
    for camera in ("door", "yard"):
        expected = [one.key for one in fates(engine) if one.camera == camera]
        assert [key for key in dict.fromkeys(subscriber.deliveries()) if key in expected] == expected
    tried = [one.error for one in fates(engine) if one.attempts > 1]
    assert {one.state for one in fates(engine)} == {"delivered"}
    assert tried


def test_states_are_retained_and_shown_again_to_a_broker_that_lost_them(broker: Broker, tmp_path: Path) -> None:
    board = board_of(door())
    house = MqttReceiver(settings(broker.port), board)

    house.refresh()
    before = retained(broker, "early")
    board.show([door(state="offline", is_open=True)], (MINUTE + 1) * 60.0)
    house.refresh()
    after = retained(broker, "later")
    broker.stop()
    (tmp_path / "mosquitto" / "mosquitto.db").unlink()
    broker.start("allow_anonymous true")
    house.refresh()
    again = retained(broker, "last")
    house.leave(ends=True)

    assert before["maskwatch/status"] == "online"
    assert (before["maskwatch/door/state"], after["maskwatch/door/state"]) == ("online", "offline")
    assert (before["maskwatch/door/rules/bare"], after["maskwatch/door/rules/bare"]) == ("OFF", "ON")
    assert json.loads(before["maskwatch/door/minute"]) == {"people": 3, "masks_percent": 80.0}
    assert len([topic for topic in after if topic.startswith("homeassistant/")]) == 4
    assert again == after
    assert retained(broker, "end")["maskwatch/status"] == "offline"


def test_a_camera_that_shows_nothing_has_no_people_any_more(broker: Broker) -> None:
    board = board_of(door())
    house = MqttReceiver(settings(broker.port), board)
    house.refresh()

    board.show([door(state="offline")], (MINUTE + 2) * 60.0)
    house.refresh()

    assert json.loads(retained(broker, "late")["maskwatch/door/minute"]) == {"people": 0, "masks_percent": None}
    house.leave(ends=True)


@pytest.mark.parametrize("who", ["the recorder that has shown it", "another recorder"])
def test_of_a_camera_that_was_forgotten_nothing_is_retained(broker: Broker, who: str) -> None:
    board = board_of(door())
    receiver = MqttReceiver(settings(broker.port), board)
    receiver.refresh()
    before = retained(broker, "before")
    if who == "another recorder":
        receiver.leave(ends=True)
        board = StateBoard()
        receiver = MqttReceiver(settings(broker.port), board)

    board.show([], 0.0, forgotten=[door(state="offline")])
    receiver.refresh()

    gone = before.keys() - retained(broker, "after").keys()
    receiver.leave(ends=True)
    assert {topic for topic in before if "door" in topic} == gone


def test_a_camera_that_comes_back_is_shown_again(broker: Broker) -> None:
    board = board_of(door())
    receiver = MqttReceiver(settings(broker.port), board)
    receiver.refresh()
    before = retained(broker, "before")
    board.show([], 0.0, forgotten=[door(state="offline")])
    receiver.refresh()

    board.show([door()], (MINUTE + 1) * 60.0)
    receiver.refresh()

    after = retained(broker, "after")
    receiver.leave(ends=True)
    assert after == before


def test_the_last_will_of_a_recorder_that_was_replaced_is_corrected(broker: Broker, subscriber: Subscriber) -> None:
    first = MqttReceiver(settings(broker.port), StateBoard())
    second = MqttReceiver(settings(broker.port), StateBoard())
    first.refresh()
    second.refresh()

    first._connection.close()  # as if its process had been killed: without a word to the broker

    said = "maskwatch/status"
    wait_until(lambda: "offline" in [one.payload.decode() for one in subscriber.got], 10, "the last will is published")
    wait_until(lambda: subscriber.last(said) == "online", 10, "the other recorder says that it is active")
    second.leave(ends=True)
    wait_until(lambda: subscriber.last(said) == "offline", 10, "it says that it ends")


def test_a_broker_that_hangs_is_given_up_in_time(engine: sa.Engine) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        house = settings(silent.getsockname()[1])
        written(engine, house, Clock(), opened())

        with pytest.raises(NotAccepted, match="did not accept the connection: it does not answer"):
            MqttReceiver(house, StateBoard(), timeout_s=0.2).send(fates(engine)[0])


def test_a_broker_of_the_own_network_must_be_allowed(engine: sa.Engine) -> None:
    house = settings(1883, host="127.1", allow_private_address=False)
    written(engine, house, Clock(), opened())

    with pytest.raises(NotAccepted, match=r"127\.1 has the address .* set allow_private_address = true if it may be"):
        MqttReceiver(house, StateBoard()).send(fates(engine)[0])


def test_tls_a_user_and_what_that_user_may_not_do(engine: sa.Engine, tmp_path: Path) -> None:
    folder = tmp_path / "tls"
    folder.mkdir()
    certificate, key = certificate_for_this_machine(folder)
    users = folder / "users"
    users.write_text("me:right\n")
    subprocess.run([passwd(), "-U", str(users)], check=True)
    (folder / "acl").write_text("user me\ntopic readwrite maskwatch/status\ntopic readwrite maskwatch/door/#\n")
    secure = Broker(folder, f"certfile {certificate}", f"keyfile {key}", f"password_file {users}")
    secure.start(f"acl_file {folder}/acl", "allow_anonymous false")
    safe = {"tls": True, "ca_file": str(certificate), "host": "localhost", "username": "me"}
    right = settings(secure.port, **safe, password="right")
    written(engine, right, Clock(), opened(1), opened(2, camera="yard"))
    may, may_not = fates(engine)

    house = MqttReceiver(right, StateBoard())
    house.send(may)
    with pytest.raises(NotAccepted, match="refused it: Not authorized; may this user publish to maskwatch/yard/events"):
        house.send(may_not)
    with pytest.raises(NotAccepted, match="did not accept the connection: Not authorized"):
        MqttReceiver(settings(secure.port, **safe, password="wrong"), StateBoard()).send(may)
    with pytest.raises(NotAccepted, match="certificate verify failed"):
        MqttReceiver(settings(secure.port, **safe | {"ca_file": None}, password="right"), StateBoard()).send(may)
    with pytest.raises(NotAccepted, match="match"):
        MqttReceiver(settings(secure.port, **safe | {"host": "127.0.0.1"}, password="right"), StateBoard()).send(may)

    house.leave(ends=True)
    secure.stop()


def certificate_for_this_machine(folder: Path) -> tuple[Path, Path]:
    """Write a certificate for localhost that signs itself; return it and its key."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    words = ["-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate, "-subj", "/CN=localhost"]
    command = ["openssl", "req", "-x509", "-days", "2", "-addext", "subjectAltName=DNS:localhost", *map(str, words)]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key


def passwd() -> str:
    """Return the program that hashes passwords for mosquitto, which is in its package."""
    return str(shutil.which("mosquitto_passwd"))


def test_surroundings_are_those_of_the_recorder(engine: sa.Engine, broker: Broker, subscriber: Subscriber) -> None:
    house, clock = settings(broker.port, discovery_prefix=None), Clock()
    due = deliverer(engine, house, clock, Surroundings(board=board_of(door(is_open=True))))
    written(engine, house, clock)

    due.start()
    wait_until(lambda: subscriber.last("maskwatch/door/rules/bare") == "ON", 10, "the thread shows states")
    due.is_active.clear()
    due.stop()

    assert not [one.topic for one in subscriber.got if one.topic.startswith("homeassistant")]
