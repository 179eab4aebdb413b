"""What all receivers have in common: they take one delivery at a time, or say why they do not."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from events.outbox import Delivery


class NotAccepted(Exception):
    """A receiver did not accept a delivery; says why."""


class Receiver(Protocol):
    """Somebody to whom events are sent. It is used by one thread."""

    def send(self, delivery: Delivery) -> None:
        """Return when the receiver has accepted a delivery.

        Raises:
            NotAccepted: it is away, was refused, or did not accept it.
        """


@runtime_checkable
class StateReceiver(Receiver, Protocol):
    """A receiver that is also shown the present states of the cameras."""

    def refresh(self) -> None:
        """Show the states that have changed; connect if needed. Waits, logs and returns if that fails."""

    def leave(self, *, ends: bool) -> None:
        """Disconnect, if connected. ends: this recorder ends, rather than that another one is active."""
