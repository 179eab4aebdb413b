"""Deliver events to an MQTT broker, and show the states of cameras there, as retained messages.

After each connection all states are published, and what lets Home Assistant find the cameras; then what has changed.
What is retained of cameras that were forgotten is removed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

import msgspec

from events.home_assistant import discovery_messages
from events.minute_counts import MinuteCount
from events.mqtt_connection import TIMEOUT_S, MqttConnection
from events.mqtt_topics import CLOSED, ONLINE, OPEN, Topics
from events.outbox import Delivery
from events.receiver_types import Mqtt
from events.receivers import NotAccepted
from events.state_board import CameraStatus, StateBoard

log = logging.getLogger(__name__)

RETRY_INTERVAL_S = 5.0  # between two attempts to show states


class MqttReceiver:
    """A broker. board: the states that it is shown. public_url: of the page; None for no links to it."""

    def __init__(
        self, settings: Mqtt, board: StateBoard, *, public_url: str | None = None, timeout_s: float = TIMEOUT_S
    ) -> None:
        self._settings = settings
        self._board = board
        self._public_url = public_url
        self._topics = Topics(settings.prefix)
        self._connection = MqttConnection(settings, timeout_s)
        self._shown: dict[str, bytes] = {}  # payloads by topic, on connection `_shown_on`
        self._shown_on = 0
        self._removed: set[str] = set()  # forgotten cameras of which nothing is retained, on the same connection
        self._refresh_at = 0.0  # on the monotonic clock

    def send(self, delivery: Delivery) -> None:
        """Send a delivery; see Receiver."""
        self._connection.connect()
        self._connection.publish(self._topics.events(delivery.camera), delivery.body, delivery=delivery.key)

    def refresh(self) -> None:
        """Show the states that have changed; see StateReceiver."""
        if time.monotonic() < self._refresh_at:
            return
        try:
            self._connection.connect()
            self._show(self._board.cameras)
            self._remove(self._board.forgotten)
        except NotAccepted as error:
            self._refresh_at = time.monotonic() + RETRY_INTERVAL_S
            log.warning("states are not shown at %s: %s", self._settings.name, error)

    def leave(self, *, ends: bool) -> None:
        """Disconnect; see StateReceiver."""
        self._connection.leave(ends=ends)

    def _show(self, cameras: Sequence[CameraStatus]) -> None:
        if self._shown_on != self._connection.number:
            self._shown, self._removed, self._shown_on = {}, set(), self._connection.number
        self._removed -= {camera.name for camera in cameras}
        for camera in cameras:
            for topic, payload in self._messages(camera).items():
                if self._shown.get(topic) != payload:
                    self._connection.publish(topic, payload, retain=True)
                    self._shown[topic] = payload

    def _remove(self, forgotten: Sequence[CameraStatus]) -> None:
        """Remove what is retained of cameras, whichever recorder has shown it."""
        for camera in forgotten:
            if camera.name in self._removed:
                continue
            for topic in (*self._messages(camera), self._topics.minute(camera.name)):
                self._connection.publish(topic, b"", retain=True)
                self._shown.pop(topic, None)
            self._removed.add(camera.name)

    def _messages(self, camera: CameraStatus) -> dict[str, bytes]:
        """Return what is retained of a camera: payloads by topic."""
        topics, prefix = self._topics, self._settings.discovery_prefix
        messages = discovery_messages(camera, topics, prefix, self._public_url) if prefix is not None else {}
        messages[topics.state(camera.name)] = (ONLINE if camera.state == "live" else camera.state).encode()
        for rule in camera.rules:
            messages[topics.rule(camera.name, rule.name)] = (OPEN if rule.is_open else CLOSED).encode()
        messages[topics.minute(camera.name)] = _minute(camera.minute)
        return messages


def _minute(count: MinuteCount | None) -> bytes:
    """Return the counts of a minute as JSON, None for one without frames; without people there is no share of masks."""
    people = count.most if count else 0
    percent = round(100 * count.masks_s / count.people_s, 1) if count and count.people_s else None
    return msgspec.json.encode({"people": people, "masks_percent": percent})
