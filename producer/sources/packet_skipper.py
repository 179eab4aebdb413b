"""Decide which packets of a live stream are decoded, so that its delay cannot grow. Pure: times in, a decision out.

When decoding is slower than the stream, packets collect in the network's buffers, and the picture falls further and
further behind. Once it is late, packets are skipped without decoding, which is fast, until the reader had to wait for
one: then the buffers are empty. Decoding starts again with the next key frame.

Timestamps alone cannot tell a late stream from one whose times run at the wrong rate (a camera that announces 25
pictures a second and sends 21). But a packet that had to be waited for has not lain in a buffer. So while reading waits
for much of the time, the stream's times are wrong, and the picture is not late. When nothing has to be waited for, it
is late, whatever its times say.
"""

from __future__ import annotations

MAX_DELAY_S = 1.0  # behind the best time so far; smaller delays come from the network itself
MAX_UNWAITED_S = 2.0  # without a packet that had to be waited for
WAITED = 0.05  # a read that takes less of the time since the one before did not wait
MIN_WAITING = 0.25  # share of the time that reading waits while decoding keeps up; a busy machine delays it by less
SMOOTHING = 1 / 8  # weight of each packet in that share
DRIFT = 0.001  # largest drift of the camera's clock against ours, which must not count as a delay


class PacketSkipper:
    """Compare one stream's timestamps with this machine's clock."""

    def __init__(self) -> None:
        self._min_difference_s: float | None = None  # the smallest difference between our clock and the stream's
        self._last_at_s = 0.0
        self._last_came = 0.0
        self._waiting = 0.0
        self._waited_at: float | None = None
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
        waited = min(1.0, waited_s / max(1e-6, came - self._last_came))
        late_s = self._late_s(came - at_s, came)
        if not self._skipping:
            if self._keeps_up(waited):
                self._min_difference_s, late_s = came - at_s, 0.0
            if self._waited_at is None or waited > WAITED:
                self._waited_at = came
            self._skipping, self._drained = late_s > MAX_DELAY_S or came - self._waited_at > MAX_UNWAITED_S, False
            return not self._skipping
        self._drained = self._drained or (spacing_s > 0 and waited_s > spacing_s / 2)
        if not (self._drained and is_key):
            return False
        self._skipping = False
        self._min_difference_s, self._waited_at = came - at_s, came
        return True

    def _keeps_up(self, waited: float) -> bool:
        """Return whether a packet was waited for, and many before it. waited: the share of the time, 0 to 1."""
        self._waiting += SMOOTHING * (waited - self._waiting)
        return min(waited, self._waiting) > MIN_WAITING

    def _late_s(self, difference_s: float, came: float) -> float:
        if self._min_difference_s is None:
            self._min_difference_s = difference_s
        else:
            drifted_s = self._min_difference_s + DRIFT * (came - self._last_came)
            self._min_difference_s = min(difference_s, drifted_s)
        self._last_came = came
        return difference_s - self._min_difference_s
