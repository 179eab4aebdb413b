"""Decide how many crops go into one call of the classifier. Pure: no clock, no I/O.

All waiting crops are taken, up to a limit, so batches grow by themselves while the model runs. The limit is the
configured maximum, or what the model finishes within `MAX_CALL_S` if that is less, so that entries are renewed in time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MAX_CALL_S = 0.5  # longest call; well below RECLAIM_IDLE_MS in pipeline.bus.group_consumer
MEAN_WEIGHT = 0.2  # weight of the newest measurement in the running means


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSlice:
    """Crops `start` to `stop` of the batch's entry number `entry`."""

    entry: int
    start: int
    stop: int


class Batcher:
    """Measure how fast the model is, and size batches accordingly.

    Args:
        max_crops: maximum number of crops in one call; the classifier splits a call of more than its own maximum.
        max_wait_s: how long a batch that is not full may wait for more crops.
    """

    def __init__(self, max_crops: int, max_wait_s: float = 0.0) -> None:
        self._max_crops = max_crops
        self._max_wait_s = max_wait_s
        self._seconds_per_crop: float | None = None
        self._crops_per_entry = 1.0

    @property
    def limit(self) -> int:
        """How many crops one call may contain now: 1 to `max_crops`."""
        if not self._seconds_per_crop:
            return self._max_crops
        return max(1, min(self._max_crops, int(MAX_CALL_S / self._seconds_per_crop)))

    @property
    def entries_to_read(self) -> int:
        """How many entries make about one full batch, so that other classifiers get the rest."""
        return max(1, round(self.limit / max(1.0, self._crops_per_entry)))

    def wait_s(self, waiting: int, deadlines: Sequence[float | None], now: float) -> float:
        """Return how long to wait for more crops, in seconds; 0 to call the model now.

        Args:
            waiting: crops read so far.
            deadlines: of the frames read so far; None in complete mode.
            now: on the clock of the deadlines.
        """
        if self._max_wait_s <= 0 or waiting == 0 or waiting >= self.limit:
            return 0.0
        call_s = (self._seconds_per_crop or 0.0) * (waiting + 1)
        spare_s = [deadline - now - call_s for deadline in deadlines if deadline is not None]
        return max(0.0, min([self._max_wait_s, *spare_s]))

    def plan(self, counts: Sequence[int]) -> list[list[BatchSlice]]:
        """Return the model calls for entries with these numbers of crops; each crop is in exactly one call, in order.

        An entry with more crops than the limit spans several calls.
        """
        calls: list[list[BatchSlice]] = []
        room = 0
        for entry, count in enumerate(counts):
            start = 0
            while start < count:
                if room == 0:
                    calls.append([])
                    room = self.limit
                size = min(room, count - start)
                calls[-1].append(BatchSlice(entry=entry, start=start, stop=start + size))
                start += size
                room -= size
        return calls

    def learn_entry(self, crops: int) -> None:
        """Update the mean number of crops per entry."""
        self._crops_per_entry += MEAN_WEIGHT * (crops - self._crops_per_entry)

    def learn_call(self, crops: int, seconds: float) -> None:
        """Update the mean time per crop with a model call."""
        per_crop = seconds / crops
        if self._seconds_per_crop is None:
            self._seconds_per_crop = per_crop
        else:
            self._seconds_per_crop += MEAN_WEIGHT * (per_crop - self._seconds_per_crop)
