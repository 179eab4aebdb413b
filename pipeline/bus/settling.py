"""Settle entries of a work stream: acknowledge and delete an entry, write its outcome, and count it, in one script.

settle.lua ends a frame, forward.lua brings it to the next stage. Each does all of it or nothing, so a process may die
at any time and the ledger still balances. Only the first process that settles an entry has an effect.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from pipeline.bus import messages
from pipeline.bus.dedicated_connection import DedicatedConnection
from pipeline.bus.keys import COMPLETE_PIXELS_MS, GROUP, LIVE_PIXELS_MS
from pipeline.bus.messages import DeadLetter, FaceCrops, FrameResult, KnownFaces
from pipeline.bus.scripts import Script, frame_arguments, mode_of
from pipeline.bus.shards import Shard, Stage

MAX_DEAD_LETTERS = 1_000


class StreamEntry(NamedTuple):
    """Where an entry is. stream: its name without the shard's tag."""

    shard: Shard
    stream: str
    id: bytes


class Settlement(NamedTuple):
    """How an entry ends.

    frame_id: the frame that ends with it, "" for none. field: what the ledger counts, "" for nothing.
    captured_at: when a labelled frame was captured; None for others.
    known: the faces that are known of the camera from now on, a packed KnownFaces; b"" leaves those of before.
    """

    at: StreamEntry
    camera: str
    frame_id: str
    field: str
    result: bytes = b""
    letter: bytes = b""
    complete: bool = False
    captured_at: float | None = None
    known: bytes = b""


class Settler:
    """Settle the entries of one stage.

    counts: what this process settled, by ledger field or "forwarded".
    needs_crops: by shard, whether classifiers need the crops of faces, by the last answer of Redis to forward().

    Args:
        pipelined: settlements are sent with the next command on the connection, in one round trip. Each is taken for
            settled until then; an error of Redis is raised by that command.
    """

    def __init__(self, connection: DedicatedConnection, stage: Stage, *, pipelined: bool = False) -> None:
        self.counts: dict[str, int] = {}
        self.needs_crops: dict[int, bool] = {}
        self._connection = connection
        self._stage: Stage = stage
        self._pipelined = pipelined
        self._settle_script = Script(connection.client, "settle")
        self._forward_script = Script(connection.client, "forward")

    def settle(self, *settlements: Settlement) -> bool:
        """Settle entries in one round trip; return False when another process had settled one of them before."""
        outcomes = [self._settle(settlement) for settlement in settlements]
        return self._sent(outcomes)

    def forward(self, at: StreamEntry, faces: FaceCrops, crops: bytes, known: KnownFaces | None = None) -> bool:
        """Settle a frame by bringing its faces to the next stage; return False when another process had settled it.

        crops: b"" when the classifier cuts them. known: the faces that are known of the camera from now on, or None.
        """

        def answered(answer: list[int]) -> int:
            settled, needs_crops = answer
            self.needs_crops[at.shard.number] = bool(needs_crops)
            return settled

        shard, live = at.shard, faces.deadline_at is not None
        stage_keys = shard.stage_keys(self._stage)
        keys = [*shard.stage_keys("faces"), *shard.camera_keys(faces.camera), shard.key(at.stream)]
        keys += [*stage_keys[-2:], faces.crops_key, shard.key("remote:faces"), shard.key("known", faces.camera)]
        data_key = faces.crops_key if crops else ""
        args = [*frame_arguments(faces, data_key=data_key, other_key=faces.pixels_key), mode_of(faces)]
        args += [GROUP, at.id, crops, LIVE_PIXELS_MS if live else COMPLETE_PIXELS_MS]
        args += [messages.encode(known) if known else b""]
        return self._sent([self._defer(self._forward_script, keys, args, "forwarded", answered)])

    def _settle(self, end: Settlement) -> list[bool]:
        shard, frame_id = end.at.shard, end.frame_id
        keys = [*shard.stage_keys(self._stage), *shard.camera_keys(end.camera), shard.key(end.at.stream)]
        keys += [shard.key("crops", frame_id or "-"), shard.key("dead"), shard.key("known", end.camera)]
        captured_at = "" if end.captured_at is None else f"{end.captured_at:.6f}"
        args: list[Any] = [end.camera, frame_id, end.field, end.result, end.letter]
        args += ["complete" if end.complete else "live", captured_at, GROUP, end.at.id, MAX_DEAD_LETTERS]
        args += [end.known, COMPLETE_PIXELS_MS if end.complete else LIVE_PIXELS_MS]
        return self._defer(self._settle_script, keys, args, end.field or "forwarded")

    def _defer(
        self, script: Script, keys: list[str], args: list[Any], field: str, parse: Callable[[Any], int] = int
    ) -> list[bool]:
        """Send a settlement with the next command; return a list that will hold whether it had an effect."""
        settled: list[bool] = []

        def note(reply: Any) -> None:
            answer = parse(reply)
            self.counts[field] = self.counts.get(field, 0) + answer
            settled.append(bool(answer))

        script.defer(keys, args, self._connection, note)
        return settled

    def _sent(self, outcomes: list[list[bool]]) -> bool:
        if not self._pipelined:
            self._connection.flush()
        return all(settled for outcome in outcomes for settled in outcome)


def settlement(
    at: StreamEntry, result: FrameResult, letter: DeadLetter | None = None, known: KnownFaces | None = None
) -> Settlement:
    """Return the settlement of an entry with a result, and what else there is of a dead letter and known faces."""
    labelled = result.outcome == "labelled"
    return Settlement(
        at=at,
        camera=result.camera,
        frame_id=result.frame_id,
        field="labelled" if labelled else f"dropped:{result.reason}",
        result=messages.encode(result),
        letter=messages.encode(letter) if letter else b"",
        complete=result.deadline_at is None,
        captured_at=result.captured_at if labelled else None,
        known=messages.encode(known) if known else b"",
    )
