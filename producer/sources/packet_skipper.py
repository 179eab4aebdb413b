"""Decide which packets of a live stream are decoded, so that no delay can grow. Pure: times in, yes or no out.

A stream that is decoded more slowly than it comes waits in the network's buffers, and is shown later and later. Once it
is late, packets are let go undecoded, which is fast, until one had to be waited for: then nothing stands in the buffers
any more. Decoding begins again with the next packet that needs no earlier one.
"""

from __future__ import annotations

LATE_S = 1.0  # behind the best time so far; less comes from the network
DRIFT = 0.001  # of the camera's clock against ours, at most: it must not look like a delay


class CatchUp:
    """Follow one stream's timestamps against this machine's clock."""

    def __init__(self) -> None:
        self._least_s: float | None = None  # the least difference between our clock and the stream's
        self._last_at_s = 0.0
        self._last_came = 0.0
        self._skipping = False
        self._drained = False

    def wants(self, *, at_s: float, is_key: bool, came: float, waited_s: float) -> bool:
        """Return whether a packet is to be decoded.

        Args:
            at_s: its time by the stream, in the order of decoding.
            is_key: decoding can begin with it.
            came: when it was read, on the monotonic clock.
            waited_s: how long reading it took.
        """
        spacing_s, self._last_at_s = at_s - self._last_at_s, at_s
        late_s = self._late_s(came - at_s, came)
        if not self._skipping:
            self._skipping, self._drained = late_s > LATE_S, False
            return not self._skipping
        self._drained = self._drained or (spacing_s > 0 and waited_s > spacing_s / 2)
        if not (self._drained and is_key):
            return False
        self._skipping = False
        self._least_s = came - at_s
        return True

    def _late_s(self, difference_s: float, came: float) -> float:
        if self._least_s is None:
            self._least_s = difference_s
        else:
            self._least_s = min(difference_s, self._least_s + DRIFT * (came - self._last_came))
        self._last_came = came
        return difference_s - self._least_s
