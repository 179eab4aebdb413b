"""A connection to an MQTT 5 broker: messages in, acknowledged by the broker or refused with a reason.

It connects to an address that was checked, once for each attempt. A connection that breaks stays broken until the next
attempt, so that the caller knows when to show all retained states again. One thread uses it.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from typing import Any

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from events.addresses import BadReceiver, resolve
from events.mqtt_topics import OFFLINE, ONLINE, Topics
from events.receiver_types import Mqtt, read_secret
from events.receivers import NotAccepted
from events.tls import tls_context

log = logging.getLogger(__name__)

PORT, TLS_PORT = 1883, 8883
TIMEOUT_S = 10.0  # to connect, and for an acknowledgement
KEEPALIVE_S = 15  # a broker declares a silent client gone after one and a half times as long
QOS = 1  # at least once


class MqttConnection:
    """A connection to a broker, with the last will that no recorder is active.

    Attributes:
        number: of the present connection, one higher for each.
    """

    def __init__(self, settings: Mqtt, timeout_s: float = TIMEOUT_S) -> None:
        self.number = 0
        self._settings = settings
        self._status = Topics(settings.prefix).status
        self._timeout_s = timeout_s
        self._client: Client | None = None
        self._answered = threading.Event()
        self._refusal: str | None = None  # of the connection
        self._refused: dict[int, str] = {}  # why messages were refused, by their IDs

    @property
    def is_connected(self) -> bool:
        """Whether the broker is there, as far as is known."""
        return self._client is not None and self._client.is_connected()

    def connect(self) -> None:
        """Connect, unless connected, and say that a recorder is active.

        Raises:
            NotAccepted: the broker is away, or refuses the connection.
        """
        if self.is_connected:
            return
        self.close()
        try:
            self._client = self._open()
        except BadReceiver as error:
            raise NotAccepted(str(error)) from error
        except (OSError, ValueError) as error:
            raise NotAccepted(f"cannot be reached: {error or type(error).__name__}") from error
        if not self._answered.wait(self._timeout_s) or self._refusal or not self._client.is_connected():
            reason = self._refusal or "it does not answer"
            self.close()
            raise NotAccepted(f"the broker did not accept the connection: {reason}")
        self.number += 1
        self.publish(self._status, ONLINE, retain=True)
        self._client.subscribe(self._status, QOS)

    def publish(self, topic: str, payload: str | bytes, *, retain: bool = False, delivery: str | None = None) -> None:
        """Publish a message, and return when the broker has acknowledged it.

        Args:
            retain: whether the broker keeps it for those who come later.
            delivery: a user property by which receivers drop what they get twice.

        Raises:
            NotAccepted: the broker refused it, or has not acknowledged it in time.
        """
        client = self._client
        if client is None:
            raise NotAccepted("there is no connection to the broker")
        self._refused.clear()
        properties = Properties(PacketTypes.PUBLISH)
        if delivery is not None:
            properties.UserProperty = ("delivery", delivery)
            properties.ContentType = "application/json"
        sent = client.publish(topic, payload, QOS, retain, properties)
        try:
            sent.wait_for_publish(self._timeout_s)
        except (RuntimeError, ValueError) as error:  # it was not queued
            raise NotAccepted(f"the connection to the broker broke: {error}") from error
        if not sent.is_published():
            self.close()
            raise NotAccepted("the broker has not acknowledged it in time")
        if sent.mid in self._refused:
            raise NotAccepted(
                f"the broker refused it: {self._refused.pop(sent.mid)}; may this user publish to {topic}?"
            )

    def leave(self, *, ends: bool) -> None:
        """Disconnect without the last will. ends: say that no recorder is active, unless another one says otherwise."""
        if self._client is not None and self._client.is_connected():
            self._client.on_message = self._client.on_disconnect = None
            if ends:
                with contextlib.suppress(RuntimeError, ValueError):  # the connection broke: the last will says it
                    self._client.publish(self._status, OFFLINE, QOS, retain=True).wait_for_publish(1.0)
            self._client.disconnect()
        self.close()

    def close(self) -> None:
        """End the connection and its thread."""
        client, self._client = self._client, None
        if client is not None:
            client.on_disconnect = None
            sock = client.socket()
            client.loop_stop()
            if sock is not None:
                sock.close()

    def _open(self) -> Client:
        """Return a client that has asked for a connection."""
        settings = self._settings
        client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5, reconnect_on_failure=False)
        client.connect_timeout = self._timeout_s
        client.on_connect, client.on_publish = self._connected, self._published
        client.on_disconnect, client.on_message = self._disconnected, self._message
        client.will_set(self._status, OFFLINE, QOS, retain=True)
        if settings.username is not None:
            password = None if settings.password is None else read_secret(settings.password, "password")
            client.username_pw_set(settings.username, password)
        if settings.tls:
            client.tls_set_context(tls_context(settings.host, settings.ca_file))
        port = settings.port or (TLS_PORT if settings.tls else PORT)
        address = resolve(settings.host, port, allow_private=settings.allow_private_address)
        self._answered.clear()
        self._refusal = None
        client.connect(address, port, KEEPALIVE_S)
        client.loop_start()
        return client

    def _connected(self, _client: Client, _data: Any, _flags: ConnectFlags, code: ReasonCode, _more: Any) -> None:
        self._refusal = str(code) if code.is_failure else None
        self._answered.set()

    def _disconnected(self, _client: Client, _data: Any, _flags: DisconnectFlags, code: ReasonCode, _: Any) -> None:
        if self._refusal is None:
            log.warning("the connection to MQTT broker %s has ended: %s", self._settings.name, code)
        self._answered.set()

    def _published(self, _client: Client, _data: Any, message_id: int, code: ReasonCode, _more: Any) -> None:
        if code.is_failure:
            self._refused[message_id] = str(code)

    def _message(self, client: Client, _data: Any, message: MQTTMessage) -> None:
        """Say again that a recorder is active when the last will of another one, which was replaced, says otherwise."""
        if message.payload.decode(errors="replace") == OFFLINE:
            client.publish(self._status, ONLINE, QOS, retain=True)
