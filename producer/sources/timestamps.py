"""Map the timestamps of a stream to times that begin at 0 and only grow: times as recorded in, times to show at out."""

from __future__ import annotations

MAX_GAP_S = 3_600.0  # a longer jump forward is a joint of two recordings, not a pause
MIN_STEP_S = 0.001


class SteadyTimes:
    """Bridge what recordings have: a clock that starts anywhere, jumps back, wraps, stands still, or has no time.

    Args:
        zero_s: the time in the stream that becomes 0; None for that of the first frame.
        interval_s: between two frames, where their times do not say it.
    """

    def __init__(self, *, zero_s: float | None, interval_s: float) -> None:
        self._zero_s = zero_s
        self._interval_s = interval_s
        self._offset_s = 0.0
        self._raw_s: float | None = None
        self._at_s = 0.0

    def at_s(self, raw_s: float | None) -> float:
        """Return when to show a frame, in seconds. raw_s: its time as recorded; None if it has none."""
        if self._raw_s is None:
            return self._begin(raw_s)
        expected_s = self._at_s + self._interval_s
        if raw_s is None or raw_s == self._raw_s:
            self._at_s = expected_s
            return expected_s
        if not 0 < raw_s - self._raw_s < MAX_GAP_S:
            self._offset_s = expected_s - raw_s
        self._raw_s = raw_s
        self._at_s = max(raw_s + self._offset_s, self._at_s + MIN_STEP_S)
        return self._at_s

    def _begin(self, raw_s: float | None) -> float:
        zero_s = next((known for known in (self._zero_s, raw_s) if known is not None), 0.0)
        self._raw_s = zero_s if raw_s is None else raw_s
        self._offset_s = -zero_s
        self._at_s = self._raw_s - zero_s
        return self._at_s
