"""Debian's mosquitto for tests: a broker that can be stopped and started again, and a subscriber that notes all."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from conftest import missing, wait_until
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties


class Broker:
    """A mosquitto on a free port. What it retains, and the sessions of those who are away, outlive a restart."""

    def __init__(self, folder: Path, *lines: str) -> None:
        program = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin")
        if program is None:
            missing("there is no mosquitto on this machine")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self._program = str(program)
        self._file = folder / "mosquitto.conf"
        self._lines = ["persistence true", f"persistence_location {folder}/", "user root", *lines]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *lines: str) -> None:
        """Start it, with more lines of its configuration, and wait until it listens."""
        self._file.write_text("\n".join([f"listener {self.port} 127.0.0.1", *self._lines, *lines]) + "\n")
        self._process = subprocess.Popen([self._program, "-c", str(self._file)], stderr=subprocess.DEVNULL)
        wait_until(self._listens, 10, "mosquitto listens")

    def stop(self) -> None:
        """Stop it, if it runs."""
        if self._process:
            self._process.terminate()
            self._process.wait()
            self._process = None

    def _listens(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False


@dataclass
class Subscriber:
    """A subscriber with a session of its own, which the broker keeps messages for while it is away."""

    port: int
    name: str = "subscriber"
    got: list[MQTTMessage] = field(default_factory=list)
    subscribed: threading.Event = field(default_factory=threading.Event)
    client: Client | None = None

    def connect(self) -> None:
        """Connect, subscribe to everything, and wait until the broker has confirmed it."""
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = 3_600
        client = Client(CallbackAPIVersion.VERSION2, self.name, protocol=MQTTProtocolVersion.MQTTv5)
        client.reconnect_delay_set(1, 1)
        client.on_message = lambda _client, _data, message: self.got.append(message)
        client.on_connect = lambda client, *_: client.subscribe("#", 1)
        client.on_subscribe = lambda *_: self.subscribed.set()
        client.connect("127.0.0.1", self.port, clean_start=False, properties=properties)
        client.loop_start()
        self.client = client
        assert self.subscribed.wait(10)

    def catch_up(self) -> None:
        """Wait until all has arrived that the broker had for this subscriber: messages come in order."""
        assert self.client is not None
        self.client.publish(f"mark/{self.name}", "", 1)
        wait_until(lambda: self.last(f"mark/{self.name}") is not None, 10, "the mark comes after all others")

    def close(self) -> None:
        """Disconnect."""
        if self.client:
            self.client.disconnect()
            self.client.loop_stop()

    def last(self, topic: str) -> str | None:
        """Return the newest payload of a topic; None without one."""
        return next((one.payload.decode() for one in reversed(self.got) if one.topic == topic), None)

    def deliveries(self) -> list[str]:
        """Return the IDs of the deliveries in messages of events, in order, the doubles too."""
        return [dict(one.properties.UserProperty)["delivery"] for one in self.got if one.topic.endswith("/events")]


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    folder = tmp_path / "mosquitto"
    folder.mkdir()
    found = Broker(folder)
    found.start("allow_anonymous true")
    yield found
    found.stop()


@pytest.fixture
def subscriber(broker: Broker) -> Iterator[Subscriber]:
    found = Subscriber(broker.port)
    found.connect()
    yield found
    found.close()
