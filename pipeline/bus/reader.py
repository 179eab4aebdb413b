"""Read a work stream: entries out, one worker at a time, each of which the worker settles.

Redis errors are raised to the caller, whose loop waits and retries (`WorkerContext.reconnecting`). Invalid messages are
dead-lettered here and never reach the caller.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

import redis

from pipeline.bus import messages
from pipeline.bus.clock import Clock
from pipeline.bus.connection import Redis
from pipeline.bus.keys import COMPLETE_PIXELS_MS, GROUP, LIVE_PIXELS_MS, RESULTS_RETENTION_MS, alone_key
from pipeline.bus.messages import BadMessage, DeadLetter, FaceCrops, FrameIdentity, FrameResult, Reason
from pipeline.bus.pixel_reader import PixelsGone
from pipeline.bus.result_consumer import READ_BLOCK_MS, entries_of
from pipeline.bus.scripts import Script
from pipeline.bus.settling import Output, Settlement, Settler, dead_letter_output
from pipeline.vision.jpeg import BadImage

log = logging.getLogger(__name__)

RECLAIM_IDLE_MS = 2_000  # an entry that its worker has not renewed for this long is reclaimed by another
RECLAIM_INTERVAL_S = 0.5
IDLE_CONSUMER_MS = 60_000  # a consumer that was silent for this long and holds nothing is deleted
MAX_DEATHS_ALONE = 3  # an entry is dead after this many processes died while they worked on it alone
STALE_AFTER = 2  # newer frames of the same camera on the same stream that make a live frame stale
MAX_SKIP = 32  # entries read at once to get from a dropped frame to the newest

Record = TypeVar("Record", bound=FrameIdentity)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry(Generic[Record]):
    """One entry of a stream, held by this process until it is settled.

    alone: the entry was reclaimed from a silent process, so it must not share a batch with others.
    """

    id: bytes
    record: Record
    fields: dict[bytes, bytes]
    deliveries: int
    alone: bool


class Reader(Generic[Record]):
    """Read a work stream as one consumer of the group, and settle what was read. consumer: this process' ID."""

    def __init__(self, client: Redis, clock: Clock, *, stream: str, record_type: type[Record], consumer: str) -> None:
        self._client = client
        self._clock = clock
        self._stream = stream
        self._record_type = record_type
        self._consumer = consumer
        self._reclaim_at = 0.0
        self._remove_idle_at = time.monotonic() + IDLE_CONSUMER_MS / 1000
        self._behind = 0  # newer frames of the same camera behind a frame that was just dropped
        self._settler = Settler(client, stream)
        self.outcomes = self._settler.counts  # settled by this process, by ledger field or "forwarded"
        self._reclaim_script = Script(client, "reclaim")
        self._leave_group_script = Script(client, "leave_group")
        self._overtaken = Script(client, "overtaken", read_only=True)

    def read(self, count: int) -> list[Entry[Record]]:
        """Return up to `count` entries to work on, or none after 250 ms without any.

        Live frames that are expired or stale are dropped first; invalid messages are dead-lettered. A reclaimed entry
        is returned alone. After a drop, everything up to the newest frame is read at once, even if that is more than
        `count`: where a round trip takes a frame period, dropping one frame per call would never reach a fresh one.
        """
        return self._in_group(lambda: self._reclaim() or self._read_new(max(count, self._behind), READ_BLOCK_MS))

    def read_new(self, count: int, block_ms: int) -> list[Entry[Record]]:
        """Return up to `count` entries that nobody has read, or none after `block_ms` without any."""
        return self._in_group(lambda: self._read_new(count, block_ms))

    def renew(self, entries: Sequence[Entry[Record]]) -> None:
        """Reset the idle time of `entries`, so that no other process reclaims them. Call it between model calls."""
        if entries:
            ids: list[Any] = [entry.id for entry in entries]
            self._client.xclaim(self._stream, GROUP, self._consumer, 0, ids, justid=True)

    def forward(self, entry: Entry[Record], faces: FaceCrops, crops: bytes) -> bool:
        """Settle a frame by passing its faces on; return False when another process had settled it."""
        crops_ms = COMPLETE_PIXELS_MS if faces.deadline_at is None else LIVE_PIXELS_MS
        output = Output(messages.FACES, messages.encode(faces), captured_at=f"{faces.captured_at:.6f}")
        end = Settlement(entry.id, faces.camera, faces.frame_id, "", [output], crops=crops, crops_ms=crops_ms)
        return self._settler.settle(end)

    def finish(self, entry: Entry[Record], result: FrameResult) -> bool:
        """Settle a frame with its result; return False when another process had settled it."""
        return self._settler.settle(_settlement(entry, result))

    def drop(self, entry: Entry[Record], reason: Reason) -> bool:
        """Settle a frame that is not processed."""
        return self.finish(entry, FrameResult.dropped(entry.record, reason))

    def dead_letter(self, entry: Entry[Record], error: str) -> bool:
        """Settle a frame that cannot be processed, with a result and a dead letter that hold the error."""
        letter = self._letter(entry.id, entry.fields, entry.deliveries, error)
        result = FrameResult.dead(entry.record, error)
        return self._settler.settle(_settlement(entry, result, letter))

    @contextlib.contextmanager
    def guard(self, entry: Entry[Record]) -> Iterator[None]:
        """Work on one entry in the block; any exception but a Redis error ends the entry instead of the worker."""
        try:
            yield
        except PixelsGone:
            self.drop(entry, "pixels_gone")
        except BadImage as error:  # the sender's fault: a line without a traceback
            log.info("%s %s is dead: %s", self._stream, entry.record.frame_id, error)
            self.dead_letter(entry, str(error))
        except redis.RedisError:
            raise
        except Exception as error:
            log.exception("%s %s is dead: %s", self._stream, entry.record.frame_id, error)
            self.dead_letter(entry, f"{type(error).__name__}: {error}")

    def leave_group(self) -> None:
        """Leave the group if this process holds nothing; entries that it holds are reclaimed by others."""
        with contextlib.suppress(redis.ResponseError):  # NOGROUP: there is no group to leave
            self._retire(self._consumer)

    def remove_idle_consumers(self) -> None:
        """Delete consumers that are silent and hold nothing; a live one is created again by its next read."""
        self._remove_idle_at = time.monotonic() + IDLE_CONSUMER_MS / 1000
        for consumer in cast(list[Any], self._client.xinfo_consumers(self._stream, GROUP)):
            if consumer["idle"] > IDLE_CONSUMER_MS and consumer["pending"] == 0:
                self._retire(consumer["name"])

    def _retire(self, consumer: str | bytes) -> None:
        self._leave_group_script(keys=[self._stream], args=[GROUP, consumer])

    def _read_new(self, count: int, block_ms: int) -> list[Entry[Record]]:
        answer = self._client.xreadgroup(GROUP, self._consumer, {self._stream: ">"}, count=count, block=block_ms)
        rows = entries_of(answer)
        return [entry for id_, fields in rows if (entry := self._decoded(id_, fields, deliveries=1, alone=False))]

    def _reclaim(self) -> list[Entry[Record]]:
        if time.monotonic() < self._reclaim_at:
            return []
        answer = self._reclaim_script(
            keys=[self._stream, alone_key(self._stream)], args=[GROUP, self._consumer, RECLAIM_IDLE_MS]
        )
        if not answer:
            self._reclaim_at = time.monotonic() + RECLAIM_INTERVAL_S
            if time.monotonic() > self._remove_idle_at:
                self.remove_idle_consumers()
            return []
        id_, flat, deaths, deliveries = answer
        entry = self._decoded(id_, dict(zip(flat[::2], flat[1::2], strict=True)), deliveries=deliveries, alone=True)
        if entry and deaths >= MAX_DEATHS_ALONE:
            error = f"ended {deaths} processes that worked on it alone"
            log.error("%s %s is dead: %s", self._stream, entry.record.frame_id, error)
            self.dead_letter(entry, error)
            return []
        return [entry] if entry else []

    def _decoded(self, id_: bytes, fields: dict[bytes, bytes], *, deliveries: int, alone: bool) -> Entry[Record] | None:
        try:
            record = messages.decode(self._record_type, fields.get(b"record", b""))
            if fields.get(b"camera") != record.camera.encode() or b"captured_at" not in fields:
                raise BadMessage("its fields camera and captured_at are missing or not the record's")
        except BadMessage as error:
            self._dead_letter_invalid(id_, fields, deliveries, str(error))
            return None
        return Entry(id=id_, record=record, fields=fields, deliveries=deliveries, alone=alone)

    def _dead_letter_invalid(self, id_: bytes, fields: dict[bytes, bytes], deliveries: int, error: str) -> None:
        """Dead-letter an invalid message. A ledger counts it only if it has the fields of a published frame."""
        log.error("invalid message %s on %s: %s", id_.decode(), self._stream, error)
        camera = fields.get(b"camera", b"").decode(errors="replace")
        published = messages.is_camera_name(camera) and b"captured_at" in fields
        outputs = [dead_letter_output(self._letter(id_, fields, deliveries, error))]
        camera, field = (camera, "dropped:dead") if published else ("-", "")
        self._settler.settle(Settlement(id_, camera, "-", field, outputs))

    def _without_outdated(self, entries: list[Entry[Record]]) -> list[Entry[Record]]:
        """Drop live frames that are expired or stale; return the other entries."""
        self._behind = 0
        live = [entry for entry in entries if entry.record.deadline_at is not None]
        if not live:
            return entries
        now = self._clock.now()
        args = [part for e in live for part in (e.record.camera, f"{e.record.captured_at:.6f}")]
        newer = cast(list[int], self._overtaken(keys=[self._stream], args=args))
        outdated: dict[bytes, Reason] = {}
        for entry, count in zip(live, newer, strict=True):
            if cast(float, entry.record.deadline_at) < now:
                outdated[entry.id] = "expired"
            elif count >= STALE_AFTER:
                outdated[entry.id] = "stale"
        if outdated:
            self._behind = min(MAX_SKIP, max(newer))
        dropped = [(entry, outdated[entry.id]) for entry in live if entry.id in outdated]
        self._settler.settle_all([_settlement(entry, FrameResult.dropped(entry.record, why)) for entry, why in dropped])
        return [entry for entry in entries if entry.id not in outdated]

    def _in_group(self, read: Callable[[], list[Entry[Record]]]) -> list[Entry[Record]]:
        """Read entries; create the group when Redis does not know it, at the start or after it lost its memory."""
        try:
            return self._without_outdated(read())
        except redis.ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise
            with contextlib.suppress(redis.ResponseError):  # BUSYGROUP: another worker has created it
                self._client.xgroup_create(self._stream, GROUP, id="0", mkstream=True)
            return []

    def _letter(self, id_: bytes, fields: dict[bytes, bytes], deliveries: int, error: str) -> DeadLetter:
        return DeadLetter(
            stream=self._stream,
            entry_id=id_.decode(),
            fields=fields,
            error=error,
            process=self._consumer,
            deliveries=deliveries,
            died_at=self._clock.now(),
        )


def _settlement(entry: Entry[Record], result: FrameResult, letter: DeadLetter | None = None) -> Settlement:
    """Return the settlement of an entry with a result, and a dead letter if there is one."""
    field = "labelled" if result.outcome == "labelled" else f"dropped:{result.reason}"
    outputs = [Output(messages.RESULTS, messages.encode(result), trim="MINID", limit=RESULTS_RETENTION_MS)]
    outputs += [dead_letter_output(letter)] if letter else []
    return Settlement(entry.id, result.camera, result.frame_id, field, outputs)
