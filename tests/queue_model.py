"""The rules of docs/queue.md as a pure model, without Redis: what each script does to the frames of one shard."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

Stage = Literal["frames", "faces"]
STAGES: tuple[Stage, ...] = ("frames", "faces")


@dataclass(frozen=True, slots=True, order=True)
class ModelFrame:
    """A frame of the model."""

    camera: str
    seq: int
    live: bool = True


@dataclass(slots=True)
class Held:
    """A pending entry: a ticket that may stand for no frame yet, or a frame of a file."""

    stage: Stage
    worker: str
    frame: ModelFrame | None


@dataclass(slots=True)
class StageModel:
    """The queue of one stage. unread: tickets that nobody has read."""

    waiting: dict[str, ModelFrame] = field(default_factory=dict)
    turns: dict[str, int] = field(default_factory=dict)
    turn: int = 0
    unread: int = 0
    files: list[ModelFrame] = field(default_factory=list)


@dataclass(slots=True)
class QueueModel:
    """All frames of one shard. ended: outcomes by frame. held: pending entries by a number of their own."""

    stages: dict[Stage, StageModel] = field(default_factory=lambda: {stage: StageModel() for stage in STAGES})
    held: dict[int, Held] = field(default_factory=dict)
    ended: dict[ModelFrame, str] = field(default_factory=dict)
    produced: Counter[str] = field(default_factory=Counter)
    entries: int = 0

    def publish(self, frame: ModelFrame, *, memory_full: bool = False) -> str:
        """Publish a new frame; return what happens to it."""
        self.produced[frame.camera] += 1
        if memory_full:
            self.ended[frame] = "memory"
            return "memory"
        self._bring("frames", frame)
        return "published"

    def read_ticket(self, stage: Stage, worker: str) -> int | None:
        """Read a ticket without taking its frame, as a worker does that dies in between; return its number."""
        queue = self.stages[stage]
        if not queue.unread:
            return None
        queue.unread -= 1
        return self._hold(Held(stage, worker, None))

    def take(self, stage: Stage, worker: str, *, files_first: bool = False) -> int | None:
        """Take a live frame, or one of a file when there is none; return the number of its entry."""
        queue = self.stages[stage]
        if files_first and queue.files:
            return self._hold(Held(stage, worker, queue.files.pop(0)))
        while (number := self.read_ticket(stage, worker)) is not None:
            if self._tie(number):
                return number
        return self._hold(Held(stage, worker, queue.files.pop(0))) if queue.files else None

    def take_held(self, stage: Stage, worker: str) -> int | None:
        """Take a live frame for a ticket that the worker has read before; return the number of the ticket."""
        for number, one in sorted(self.held.items()):
            if (one.stage, one.worker, one.frame) == (stage, worker, None) and self._tie(number):
                return number
        return None

    def take_over(self, number: int, worker: str) -> bool:
        """Reclaim an entry of a silent worker; return whether it stands for a frame."""
        self.held[number].worker = worker
        return self._tie(number)

    def forward(self, number: int) -> bool:
        """Bring a held frame to the next stage; return False when it was settled before."""
        entry = self.held.pop(number, None)
        if entry and entry.frame:
            self._bring("faces", entry.frame)
        return entry is not None

    def settle(self, number: int, outcome: str) -> bool:
        """End a held frame; return False when it was settled before."""
        entry = self.held.pop(number, None)
        if entry and entry.frame:
            self.ended[entry.frame] = outcome
        return entry is not None

    def flush(self) -> None:
        """Lose everything, as Redis does when it is restarted."""
        fresh = QueueModel(entries=self.entries)
        self.stages, self.held, self.ended, self.produced = fresh.stages, fresh.held, fresh.ended, fresh.produced

    def standing(self) -> dict[ModelFrame, Stage]:
        """Return the frames without an outcome, each with its stage."""
        found: dict[ModelFrame, Stage] = {}
        for stage in STAGES:
            queue = self.stages[stage]
            found |= dict.fromkeys((*queue.waiting.values(), *queue.files), stage)
        return found | {entry.frame: entry.stage for entry in self.held.values() if entry.frame}

    def check(self) -> None:
        """Check the invariants."""
        standing, places = self.standing(), 0
        for stage in STAGES:
            queue = self.stages[stage]
            places += len(queue.waiting) + len(queue.files)
            untied = sum(1 for one in self.held.values() if one.stage == stage and one.frame is None)
            assert queue.unread + untied >= len(queue.waiting), "a frame waits without a ticket"
            assert len(set(queue.waiting)) == len(queue.waiting)
        places += sum(1 for one in self.held.values() if one.frame)
        assert places == len(standing), "a frame is in two places"
        assert not standing.keys() & self.ended.keys(), "a frame has ended and goes on"
        for camera, produced in self.produced.items():
            ended = sum(1 for frame in self.ended if frame.camera == camera)
            assert produced == ended + sum(1 for frame in standing if frame.camera == camera), "the ledger is wrong"

    def _hold(self, entry: Held) -> int:
        self.entries += 1
        self.held[self.entries] = entry
        return self.entries

    def _bring(self, stage: Stage, frame: ModelFrame) -> None:
        queue = self.stages[stage]
        if not frame.live:
            queue.files.append(frame)
            return
        old = queue.waiting.get(frame.camera)
        if old and old.seq > frame.seq:
            self.ended[frame] = "stale"
            return
        if old:
            self.ended[old] = "stale"
        queue.waiting[frame.camera] = frame
        if not old or queue.unread < len(queue.waiting):
            queue.unread += 1

    def _tie(self, number: int) -> bool:
        entry = self.held[number]
        if entry.frame:
            return True
        queue = self.stages[entry.stage]
        if not queue.waiting:
            del self.held[number]
            return False
        camera = min(queue.waiting, key=lambda name: (queue.turns.get(name, 0), name))
        entry.frame = queue.waiting.pop(camera)
        queue.turn += 1
        queue.turns[camera] = queue.turn
        return True
