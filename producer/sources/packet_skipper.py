"""Decide which packets of a live stream are decoded, so that its delay cannot grow. Pure: times in, a decision out.

When decoding is slower than the stream, packets collect in the network's buffers, and the picture falls further and
further behind. Once it is late, packets are skipped without decoding, which is fast, until the reader had to wait for
one: then the buffers are empty. Decoding starts again with the next key frame.
"""

from __future__ import annotations

MAX_DELAY_S = 1.0  # behind the best time so far; smaller delays come from the network itself
DRIFT = 0.001  # largest drift of the camera's clock against ours, which must not count as a delay


class PacketSkipper:
    """Compare one stream's timestamps with this machine's clock."""

    def __init__(self) -> None:
        self._min_difference_s: float | None = None  # the smallest difference between our clock and the stream's
        self._last_at_s = 0.0
        self._last_came = 0.0
        self._skipping = False
        self._drained = False

    def should_decode(self, *, at_s: float, is_key: bool, came: float, waited_s: float) -> bool:
        """Return whether to decode a packet.

        Args:
            at_s: its time by the stream, in the order of decoding.
            is_key: decoding can start with it.
            came: when it was read, on the monotonic clock.
            waited_s: how long reading it took.
        """
        spacing_s, self._last_at_s = at_s - self._last_at_s, at_s
        late_s = self._late_s(came - at_s, came)
        if not self._skipping:
            self._skipping, self._drained = late_s > MAX_DELAY_S, False
            return not self._skipping
        self._drained = self._drained or (spacing_s > 0 and waited_s > spacing_s / 2)
        if not (self._drained and is_key):
            return False
        self._skipping = False
        self._min_difference_s = came - at_s
        return True

    def _late_s(self, difference_s: float, came: float) -> float:
        if self._min_difference_s is None:
            self._min_difference_s = difference_s
        else:
            drifted_s = self._min_difference_s + DRIFT * (came - self._last_came)
            self._min_difference_s = min(difference_s, drifted_s)
        self._last_came = came
        return difference_s - self._min_difference_s
