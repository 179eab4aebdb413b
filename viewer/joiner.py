"""Order the results of one camera for display. Pure: the clock is an argument.

In: results, in the order in which workers finish them. Out: the labelled ones in the order of seq, each at most once. A
frame waits at most WAIT_S for the outcome of an earlier one; results that are later than that are discarded.

The producer with the highest start is displayed. One with a lower start replaces it only when it has been silent for
PRODUCER_TIMEOUT_S: a start in the future (a clock set back, a forged record) must not freeze the camera for good.
"""

from __future__ import annotations

from pipeline.bus.messages import FrameResult
from pipeline.bus.status import UNLABELLED_S

WAIT_S = 0.05  # longest wait for the outcome of a frame
MAX_UNLABELLED_S = 5.0  # at most this, instead of UNLABELLED_S: twice the time between the last two labelled results
PRODUCER_TIMEOUT_S = 2.0  # a producer without results for this long may be replaced by one with a lower start
MAX_PRODUCERS = 16  # earlier producers of which the last displayed seq is remembered


class Joiner:
    """The display order of one camera's frames.

    Args:
        at_s: the present time in monotonic seconds, as in every call.
    """

    def __init__(self, at_s: float) -> None:
        self._start = -1  # of the displayed producer
        self._arrived_s = at_s  # when the last result of that producer arrived
        self._next = 0  # lowest seq that may still be displayed
        self._earlier: dict[int, int] = {}  # by start of earlier producers: the same
        self._held: dict[int, tuple[float, FrameResult]] = {}  # by seq: time of arrival, result
        self._in_order: list[FrameResult] = []
        self._unlabelled: tuple[int, int] | None = None  # start and seq last displayed without labels
        self._labelled_at_s = at_s
        self._patience_s = UNLABELLED_S

    def add(self, result: FrameResult, at_s: float) -> None:
        """Add a result; a late one, or a second one for the same frame, is ignored."""
        if result.outcome == "labelled":
            self._patience_s = min(max(UNLABELLED_S, 2 * (at_s - self._labelled_at_s)), MAX_UNLABELLED_S)
            self._labelled_at_s = at_s
        if result.start != self._start and self._is_replaced_by(result.start, at_s):
            self._change_producer(result.start, result.seq)
        if result.start == self._start:
            self._arrived_s = at_s
        if (result.start, result.seq) < (self._start, self._next):
            return
        self._held.setdefault(result.seq, (at_s, result))
        self._advance()

    def take(self, at_s: float) -> list[FrameResult]:
        """Return the labelled results to display now, oldest first."""
        while (due := self.due_s()) is not None and due <= at_s:
            self._skip_gap()
        in_order, self._in_order = self._in_order, []
        return in_order

    def due_s(self) -> float | None:
        """Return when the next wait ends, None without one."""
        return min(arrived_s for arrived_s, _ in self._held.values()) + WAIT_S if self._held else None

    def wants_newest(self, at_s: float) -> bool:
        """Return whether the newest frame should be displayed without labels, because labelled ones are missing."""
        return at_s - self._labelled_at_s > self._patience_s

    def show_newest(self, start: int, seq: int, at_s: float) -> bool:
        """Return whether a frame may be displayed without labels now; if so it counts as displayed.

        Its labelled result may still follow, an older frame may not.
        """
        if (start, seq) == self._unlabelled:
            return False  # it was newest before: the producer has published nothing since
        if start == self._start or not self._is_replaced_by(start, at_s):
            if (start, seq) < (self._start, self._next):
                return False
        elif seq < self._earlier.get(start, 0):
            return False
        self._follow(start, seq)
        self._unlabelled, self._arrived_s = (start, seq), at_s
        self._held = {held: what for held, what in self._held.items() if what[1].start == start and held >= seq}
        self._in_order = []
        self._advance()
        return True

    def _is_replaced_by(self, start: int, at_s: float) -> bool:
        """Return whether the displayed producer is replaced by the one with this start."""
        return start > self._start or (start < self._start and at_s - self._arrived_s > PRODUCER_TIMEOUT_S)

    def _change_producer(self, start: int, seq: int) -> None:
        """Replace the displayed producer, after the results that are held of it."""
        while self._held:
            self._skip_gap()
        self._follow(start, seq)

    def _follow(self, start: int, seq: int) -> None:
        """Display the frames of a producer from seq on, but none that was displayed before."""
        if start != self._start:
            self._earlier[self._start] = self._next
            seq = max(seq, self._earlier.pop(start, 0))
            while len(self._earlier) > MAX_PRODUCERS:
                del self._earlier[next(iter(self._earlier))]
        self._start, self._next = start, seq

    def _skip_gap(self) -> None:
        self._next = min(self._held)
        self._advance()

    def _advance(self) -> None:
        while self._next in self._held:
            _, result = self._held.pop(self._next)
            self._next += 1
            if result.outcome == "labelled":
                self._in_order.append(result)
