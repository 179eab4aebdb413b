"""Decide how many crops go into one model call. Pure: no clock of its own, no I/O.

The rule: take all that waits, up to the limit; the batch grows by itself while the model runs. The limit is the
user's most, and what the model is known to finish within half a second, so that entries are renewed in time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

CALL_S = 0.5  # longest model call; see RECLAIM_IDLE_MS in pipeline.bus.streams
LEARNING = 0.2  # weight of the newest measurement in the running means


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """Crops `start` to `stop` of the batch's entry number `entry`."""

    entry: int
    start: int
    stop: int


class Batcher:
    """Learn what the model can do, and size batches by it.

    Args:
        most: crops in one call at most.
        max_wait_s: how long a batch that is not full may wait for more.
    """

    def __init__(self, most: int, max_wait_s: float = 0.0) -> None:
        self._most = most
        self._max_wait_s = max_wait_s
        self._seconds_per_crop: float | None = None
        self._crops_per_entry = 1.0

    @property
    def limit(self) -> int:
        """How many crops one call may take now: 1 to `most`."""
        if not self._seconds_per_crop:
            return self._most
        return max(1, min(self._most, int(CALL_S / self._seconds_per_crop)))

    @property
    def entries_to_read(self) -> int:
        """How many entries make about one full batch, so that what is left is another classifier's."""
        return max(1, round(self.limit / max(1.0, self._crops_per_entry)))

    def wait_s(self, waiting: int, deadlines: Sequence[float | None], now: float) -> float:
        """Return how long to wait for more crops, in seconds; 0 to go now.

        Args:
            waiting: crops in hand.
            deadlines: of the frames in hand; None in complete mode.
            now: on the clock of the deadlines.
        """
        if self._max_wait_s <= 0 or waiting == 0 or waiting >= self.limit:
            return 0.0
        call_s = (self._seconds_per_crop or 0.0) * (waiting + 1)
        spare = [deadline - now - call_s for deadline in deadlines if deadline is not None]
        return max(0.0, min([self._max_wait_s, *spare]))

    def plan(self, counts: Sequence[int]) -> list[list[Slice]]:
        """Return the model calls for entries with so many crops each; every crop in exactly one, in order.

        An entry with more crops than the limit spans several calls.
        """
        calls: list[list[Slice]] = []
        room = 0
        for entry, count in enumerate(counts):
            start = 0
            while start < count:
                if room == 0:
                    calls.append([])
                    room = self.limit
                taken = min(room, count - start)
                calls[-1].append(Slice(entry=entry, start=start, stop=start + taken))
                start += taken
                room -= taken
        return calls

    def learn_entry(self, crops: int) -> None:
        """Take note of how many crops an entry had."""
        self._crops_per_entry += LEARNING * (crops - self._crops_per_entry)

    def learn_call(self, crops: int, seconds: float) -> None:
        """Take note of how long a model call took."""
        per_crop = seconds / crops
        if self._seconds_per_crop is None:
            self._seconds_per_crop = per_crop
        else:
            self._seconds_per_crop += LEARNING * (per_crop - self._seconds_per_crop)
