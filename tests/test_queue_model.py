"""Every order of six steps of two cameras and two workers keeps the promises of the queue, in its pure model."""

from __future__ import annotations

import copy
from collections.abc import Iterator

from queue_model import STAGES, ModelFrame, QueueModel, Stage

CAMERAS = ("door", "gate")
WORKERS = ("one", "two")
STEPS = 6

Step = tuple[str, ...]
Turn = tuple[QueueModel, int]


def steps_of(queue: QueueModel) -> Iterator[QueueModel]:
    """Return every state that one step leads to; the next seq of each camera is how many it has produced."""
    for camera in CAMERAS:
        after = copy.deepcopy(queue)
        after.publish(ModelFrame(camera, after.produced[camera]))
        yield after
    for stage in STAGES:
        for worker in WORKERS:
            for read in (QueueModel.take, QueueModel.read_ticket, QueueModel.take_held):
                after = copy.deepcopy(queue)
                if read(after, stage, worker) is not None:
                    yield after
    for number, entry in queue.held.items():
        yield from steps_with(queue, number, entry.stage, entry.worker)


def steps_with(queue: QueueModel, number: int, stage: Stage, worker: str) -> Iterator[QueueModel]:
    """Return every state that one step with a held entry leads to; without a frame it can only be taken over."""
    if queue.held[number].frame:
        after = copy.deepcopy(queue)
        after.settle(number, "labelled")
        yield after
    if queue.held[number].frame and stage == "frames":
        after = copy.deepcopy(queue)
        after.forward(number)
        yield after
    after = copy.deepcopy(queue)
    after.take_over(number, next(other for other in WORKERS if other != worker))
    yield after


def drained(queue: QueueModel) -> QueueModel:
    """Let one worker take over and end everything."""
    queue = copy.deepcopy(queue)
    while queue.standing():
        before = len(queue.standing())
        for number in list(queue.held):
            if queue.take_over(number, "last"):
                queue.settle(number, "labelled")
        for stage in STAGES:
            while (taken := queue.take(stage, "last")) is not None:
                queue.settle(taken, "labelled")
        assert len(queue.standing()) < before, "a frame is stuck"
    return queue


def state_of(queue: QueueModel) -> object:
    """Return what tells states apart: entries have no numbers, and turns only their order."""
    held = sorted((one.stage, one.worker, one.frame is not None, str(one.frame)) for one in queue.held.values())
    stages = tuple(
        (tuple(sorted(one.waiting.items())), tuple(sorted(one.turns, key=lambda name: one.turns[name])), one.unread)
        for one in queue.stages.values()
    )
    return stages, tuple(held), tuple(sorted(queue.ended.items())), tuple(sorted(queue.produced.items()))


def test_every_order_of_six_steps_keeps_the_promises() -> None:
    states: dict[object, QueueModel] = {state_of(QueueModel()): QueueModel()}
    seen = set(states)
    for _ in range(STEPS):
        found: dict[object, QueueModel] = {}
        for queue in states.values():
            for after in steps_of(queue):
                after.check()
                found.setdefault(state_of(after), after)
        states = {state: queue for state, queue in found.items() if state not in seen}
        seen |= states.keys()
        for queue in states.values():
            done = drained(queue)
            done.check()
            assert sum(done.produced.values()) == len(done.ended)

    assert len(seen) > 1_000
