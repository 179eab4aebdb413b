"""The MQTT topics of maskwatch. Names of cameras and rules hold no letter that a topic may not hold."""

from __future__ import annotations

from dataclasses import dataclass

ONLINE, OFFLINE = "online", "offline"
OPEN, CLOSED = "ON", "OFF"


@dataclass(frozen=True, slots=True)
class Topics:
    """All topics below a prefix."""

    prefix: str

    @property
    def status(self) -> str:
        """Whether a recorder is active: online or offline; retained."""
        return f"{self.prefix}/status"

    def events(self, camera: str) -> str:
        """Events of a camera, as JSON."""
        return f"{self.prefix}/{camera}/events"

    def state(self, camera: str) -> str:
        """The state of a camera: online, stale, unlabelled or offline; retained."""
        return f"{self.prefix}/{camera}/state"

    def rule(self, camera: str, rule: str) -> str:
        """Whether an event of a rule is open at a camera: ON or OFF; retained."""
        return f"{self.prefix}/{camera}/rules/{rule}"

    def minute(self, camera: str) -> str:
        """Counts of the last minute of a camera, as JSON; retained."""
        return f"{self.prefix}/{camera}/minute"
