"""From the settings of a receiver to the receiver itself; what a kind needs is imported when the first is opened."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from events.receiver_types import AppriseService, Email, Mqtt, ReceiverSettings
from events.receivers import Receiver
from events.state_board import StateBoard
from events.webhooks import WebhookReceiver
from events.wording import Wording


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What receivers show besides events. wording: of messages for people. board: the states of cameras."""

    wording: Wording = field(default_factory=Wording)
    board: StateBoard = field(default_factory=StateBoard)


def open_receiver(settings: ReceiverSettings, surroundings: Surroundings, now: Callable[[], float]) -> Receiver:
    """Return a receiver, which connects when it is first used. now: Unix seconds."""
    if isinstance(settings, Mqtt):
        from events.mqtt_receiver import MqttReceiver

        return MqttReceiver(settings, surroundings.board, public_url=surroundings.wording.public_url)
    if isinstance(settings, Email):
        from events.mail import MailReceiver

        return MailReceiver(settings, surroundings.wording)
    if isinstance(settings, AppriseService):
        from events.apprise_services import AppriseReceiver

        return AppriseReceiver(settings, surroundings.wording)
    return WebhookReceiver(settings, now)
