"""Put one camera's results into the order in which its frames are shown. Pure: the clock is an argument.

Results come in as workers finish them; labelled ones go out in seq order, each at most once and never backwards. A seq
without an outcome is waited for, but no frame waits longer than WAIT_S for it. What comes later is discarded.

A camera's frames are those of its highest start. Only when nothing of it has come for SILENT_S is a lower one followed:
a start from the future (a clock set back, a forged record) must not freeze the camera for good.
"""

from __future__ import annotations

from pipeline.bus.messages import FrameResult

WAIT_S = 0.05  # longest wait for a frame without an outcome
UNLABELLED_S = 1.0  # a camera without labelled results for so long is shown without labels ...
MAX_PATIENT_S = 5.0  # ... or for twice the time between its last two, at most this, where workers are slow
SILENT_S = 2.0  # a producer of which nothing has come for so long gives way to one with a lower start
MAX_PRODUCERS = 16  # of so many that were followed before it is known how far they were shown


class Joiner:
    """The order of one camera's frames.

    Args:
        at_s: now, monotonic seconds, as in every call.
    """

    def __init__(self, at_s: float) -> None:
        self._start = -1  # of the producer whose frames are shown
        self._came_s = at_s  # when anything of that producer last came
        self._next = 0  # lowest seq that may still be shown
        self._left: dict[int, int] = {}  # by start of producers followed before: the same
        self._held: dict[int, tuple[float, FrameResult]] = {}  # by seq: when it came, and what
        self._in_order: list[FrameResult] = []
        self._unlabelled: tuple[int, int] | None = None  # start and seq last shown without labels
        self._labelled_at_s = at_s
        self._patience_s = UNLABELLED_S

    def add(self, result: FrameResult, at_s: float) -> None:
        """Take a result in; a late one and a second one for the same frame change nothing."""
        if result.outcome == "labelled":
            self._patience_s = min(max(UNLABELLED_S, 2 * (at_s - self._labelled_at_s)), MAX_PATIENT_S)
            self._labelled_at_s = at_s
        if result.start != self._start and self._gives_way(result.start, at_s):
            self._change_producer(result.start, result.seq)
        if result.start == self._start:
            self._came_s = at_s
        if (result.start, result.seq) < (self._start, self._next):
            return
        self._held.setdefault(result.seq, (at_s, result))
        self._advance()

    def take(self, at_s: float) -> list[FrameResult]:
        """Return the labelled results that are to be shown now, oldest first."""
        while (due := self.due_s()) is not None and due <= at_s:
            self._skip_gap()
        in_order, self._in_order = self._in_order, []
        return in_order

    def due_s(self) -> float | None:
        """Return when a wait ends, None when nothing is waited for."""
        return min(came_s for came_s, _ in self._held.values()) + WAIT_S if self._held else None

    def wants_newest(self, at_s: float) -> bool:
        """Return whether the camera's newest frame should be shown without labels, for want of labelled ones."""
        return at_s - self._labelled_at_s > self._patience_s

    def show_newest(self, start: int, seq: int, at_s: float) -> bool:
        """Return whether a frame may be shown without labels now; if so it counts as shown.

        Its labelled result may still follow it, an older frame may not.
        """
        if (start, seq) == self._unlabelled:
            return False  # seen before: no sign of life
        if start == self._start or not self._gives_way(start, at_s):
            if (start, seq) < (self._start, self._next):
                return False
        elif seq < self._left.get(start, 0):
            return False
        self._follow(start, seq)
        self._unlabelled, self._came_s = (start, seq), at_s
        self._held = {held: what for held, what in self._held.items() if what[1].start == start and held >= seq}
        self._in_order = []
        self._advance()
        return True

    def _gives_way(self, start: int, at_s: float) -> bool:
        """Return whether frames of this start are followed instead of those of the present one."""
        return start > self._start or (start < self._start and at_s - self._came_s > SILENT_S)

    def _change_producer(self, start: int, seq: int) -> None:
        """Go over to a restarted camera's frames, after what is known of those before."""
        while self._held:
            self._skip_gap()
        self._follow(start, seq)

    def _follow(self, start: int, seq: int) -> None:
        """Show a producer's frames from this one on, but none that was shown when it was followed before."""
        if start != self._start:
            self._left[self._start] = self._next
            seq = max(seq, self._left.pop(start, 0))
            while len(self._left) > MAX_PRODUCERS:
                del self._left[next(iter(self._left))]
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
