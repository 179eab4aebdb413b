"""How long a network camera may take, and when one that is silent counts as dead. Pure: times in, limits out.

A camera of 20 pictures a second that is silent for 4 s is dead; one that sends a picture every 5 s is not. So the limit
follows the camera: three times the longest interval between two of its pictures, at least 4 s and at most 60 s.
"""

from __future__ import annotations

OPEN_TIMEOUT_S = 4.0  # for the connection, and for the answer to each request
READ_TIMEOUT_S = 4.0  # shortest limit for the time between two pictures
FIRST_PICTURE_TIMEOUT_S = 10.0  # nothing is known about the camera yet
SECOND_PICTURE_TIMEOUT_S = 30.0  # it is alive; how often it sends is unknown
MAX_READ_TIMEOUT_S = 60.0
INTERVALS = 3  # so many intervals without a picture are no delay of the network
FORGETTING = 0.9  # what is left of the longest interval with each picture, so that one pause is forgotten


class SilenceLimit:
    """Decide when a camera that sends nothing is dead. now: on the monotonic clock."""

    def __init__(self, now: float) -> None:
        self._last = now
        self._pictures = 0
        self._interval_s = 0.0
        self._is_held = False

    @property
    def limit_s(self) -> float:
        """How long after the last picture, or after the start, the next one must have come."""
        if self._pictures == 0:
            return FIRST_PICTURE_TIMEOUT_S
        if self._pictures == 1:
            return SECOND_PICTURE_TIMEOUT_S
        return min(MAX_READ_TIMEOUT_S, max(READ_TIMEOUT_S, INTERVALS * self._interval_s))

    def note_picture(self, now: float) -> None:
        """Count a picture that came."""
        if self._pictures:
            self._interval_s = max(now - self._last, FORGETTING * self._interval_s)
        self._last = now
        self._pictures += 1

    def note_packet(self, asked: float, now: float) -> None:
        """Count a packet of FFmpeg's, which was asked for at `asked`.

        FFmpeg holds each packet back until the next one shows where it ends. When none comes within the time-out it
        returns the one it holds: one that came together with the packet before, or else after it was asked for.
        """
        was_held, self._is_held = self._is_held, now - asked >= READ_TIMEOUT_S
        if not self._is_held:
            self.note_picture(now)
        elif was_held or not self._pictures:
            self.note_picture(asked)

    def remaining_s(self, now: float) -> float:
        """Return how long the next picture may still take; 0 when the camera counts as dead."""
        return max(0.0, self._last + self.limit_s - now)

    def reason(self) -> str:
        """Return what is wrong with a camera that counts as dead."""
        if self._pictures == 0:
            return f"no picture came within {self.limit_s:g} s, although the connection stands"
        return f"no data came for {self.limit_s:.3g} s"
