"""Read the work of one stage: entries out, one worker at a time, each of which the worker settles.

A live entry is a ticket: which frame it stands for is decided when it is taken (docs/queue.md). Redis errors are raised
to the caller, whose loop waits and retries (`WorkerContext.reconnecting`). Invalid messages are dead-lettered here and
never reach the caller.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

import redis

from pipeline.bus import messages
from pipeline.bus.dedicated_connection import DedicatedConnection
from pipeline.bus.group_consumer import GroupConsumer, RawEntry
from pipeline.bus.messages import BadMessage, DeadLetter, FaceCrops, FrameIdentity, FrameResult, KnownFaces, Reason
from pipeline.bus.pixel_reader import PixelsGone, fetch_pixels
from pipeline.bus.result_consumer import READ_BLOCK_MS
from pipeline.bus.settling import Settlement, Settler, StreamEntry, settlement
from pipeline.bus.shards import Bus, Stage
from pipeline.vision.jpeg import BadImage

log = logging.getLogger(__name__)

MAX_DEATHS_ALONE = 3  # an entry is dead after this many processes died while they worked on it alone

Record = TypeVar("Record", bound=FrameIdentity)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry(Generic[Record]):
    """One entry of a stream, held by this process until it is settled.

    alone: the entry was reclaimed from a silent process, so it must not share a batch with others.
    data: pixels or crops, if they came with the entry. known: a packed KnownFaces of its camera, likewise; b"" if there
    are none.
    """

    at: StreamEntry
    record: Record
    fields: dict[bytes, bytes]
    deliveries: int
    alone: bool
    data: bytes | None = None
    known: bytes | None = None


class Reader(Generic[Record]):
    """Read a stage as one consumer of its groups, and settle what was read, in one thread.

    Args:
        consumer: this process' ID.
        pipelined: settlements are sent with the next call of read, read_new or renew, in one round trip; at once while
            this process has had no answer of that script. Each is taken for settled until then; an error of Redis is
            raised by that call.
    """

    def __init__(
        self, bus: Bus, *, stage: Stage, record_type: type[Record], consumer: str, pipelined: bool = False
    ) -> None:
        self._client = bus.client
        self._stage: Stage = stage
        self._record_type = record_type
        self._process_id = consumer
        self._connection = DedicatedConnection(bus.client)
        self._consumer = GroupConsumer(bus, self._connection, stage, consumer)
        self._settler = Settler(self._connection, stage, pipelined=pipelined)
        self.outcomes = self._settler.counts  # settled by this process, by ledger field or "forwarded"

    def read(self, count: int, run: int = 1) -> list[Entry[Record]]:
        """Return up to `count` entries to work on, or none after 250 ms without any.

        Live frames come first, and every tenth time those of files. Expired live frames are dropped here, invalid
        messages are dead-lettered. A reclaimed entry is returned alone.

        run: up to so many frames of files are returned together, if others wait besides.
        """
        return self._usable(self._consumer.read(count, READ_BLOCK_MS, run=run))

    def read_new(self, count: int, block_ms: int) -> list[Entry[Record]]:
        """Return up to `count` entries that nobody has read, or none after `block_ms` without any."""
        return self._usable(self._consumer.read(count, block_ms, reclaim=False))

    def fetch(self, entry: Entry[Record], key: str) -> bytes:
        """Return an entry's pixels or crops.

        Raises:
            PixelsGone: they have expired.
        """
        return entry.data if entry.data is not None else fetch_pixels(self._client, key)

    def known_faces(self, entry: Entry[Record]) -> bytes:
        """Return a packed KnownFaces of an entry's camera, b"" if there are none."""
        if entry.known is not None:
            return entry.known
        key = entry.at.shard.key("known", entry.record.camera)
        (found,) = cast(list[bytes | None], self._client.mget([key]))  # of another type: no error, unlike GET
        return found or b""

    def renew(self, entries: Sequence[Entry[Record]]) -> None:
        """Reset the idle time of `entries`, so that no other process reclaims them. Call it between model calls."""
        self._consumer.renew([entry.at for entry in entries])

    def drop_expired(self, entries: Sequence[Entry[Record]]) -> list[Entry[Record]]:
        """Drop live frames whose deadline has passed; return the other entries."""
        now: dict[int, float] = {}
        expired = []
        for entry in entries:
            deadline_at, shard = entry.record.deadline_at, entry.at.shard
            if deadline_at is not None:
                now.setdefault(shard.number, shard.clock.now())
                if deadline_at < now[shard.number]:
                    expired.append(entry)
        if not expired:
            return list(entries)
        self._settler.settle(*(settlement(one.at, FrameResult.dropped(one.record, "expired")) for one in expired))
        return [entry for entry in entries if entry not in expired]

    def needs_crops(self, entry: Entry[Record]) -> bool:
        """Return whether a classifier needs crops, because it runs on another machine or as another user."""
        return self._settler.needs_crops.get(entry.at.shard.number, True)

    def forward(
        self, entry: Entry[Record], faces: FaceCrops, crops: bytes = b"", known: KnownFaces | None = None
    ) -> bool:
        """Settle a frame by passing its faces on; return False when another process had settled it.

        crops: b"" when the classifier cuts them from shared pixels.
        known: the faces that are known of the camera from now on; None leaves those of before.
        """
        return self._settler.forward(entry.at, faces, crops, known)

    def finish(self, entry: Entry[Record], result: FrameResult, known: KnownFaces | None = None) -> bool:
        """Settle a frame with its result; return False when another process had settled it.

        known: the faces that are known of the camera from now on; None leaves those of before.
        """
        return self._settler.settle(settlement(entry.at, result, known=known))

    def drop(self, entry: Entry[Record], reason: Reason) -> bool:
        """Settle a frame that is not processed."""
        return self.finish(entry, FrameResult.dropped(entry.record, reason))

    def dead_letter(self, entry: Entry[Record], error: str) -> bool:
        """Settle a frame that cannot be processed, with a result and a dead letter that hold the error."""
        letter = self._letter(entry.at, entry.fields, entry.deliveries, error)
        return self._settler.settle(settlement(entry.at, FrameResult.dead(entry.record, error), letter))

    @contextlib.contextmanager
    def guard(self, entry: Entry[Record]) -> Iterator[None]:
        """Work on one entry in the block; any exception but a Redis error ends the entry instead of the worker."""
        try:
            yield
        except PixelsGone:
            self.drop(entry, "pixels_gone")
        except BadImage as error:  # the sender's fault: a line without a traceback
            log.info("%s %s is dead: %s", self._stage, entry.record.frame_id, error)
            self.dead_letter(entry, str(error))
        except redis.RedisError:
            raise
        except Exception as error:
            log.exception("%s %s is dead: %s", self._stage, entry.record.frame_id, error)
            self.dead_letter(entry, f"{type(error).__name__}: {error}")

    def leave_group(self) -> None:
        """Leave the groups in which this process holds nothing; entries that it holds are reclaimed by others."""
        self._connection.flush()
        self._consumer.leave_group()

    def _usable(self, raw: list[RawEntry]) -> list[Entry[Record]]:
        """Return the valid entries that are worth working on; end the others."""
        entries = [entry for one in raw if (entry := self._decoded(one)) and not self._has_killed_too_often(one, entry)]
        return self.drop_expired(entries) if entries else []

    def _decoded(self, raw: RawEntry) -> Entry[Record] | None:
        fields = raw.fields
        try:
            record = messages.decode(self._record_type, fields.get(b"record", b""))
            if (fields.get(b"camera"), fields.get(b"frame_id")) != (record.camera.encode(), record.frame_id.encode()):
                raise BadMessage("its fields camera and frame_id are missing or not the record's")
        except BadMessage as error:
            self._dead_letter_invalid(raw.at, fields, raw.deliveries, str(error))
            return None
        alone = raw.deaths is not None
        return Entry(
            at=raw.at,
            record=record,
            fields=fields,
            deliveries=raw.deliveries,
            alone=alone,
            data=raw.data,
            known=raw.known,
        )

    def _has_killed_too_often(self, raw: RawEntry, entry: Entry[Record]) -> bool:
        """Return whether processes died while they worked on an entry alone, so often that it is dead."""
        if (raw.deaths or 0) < MAX_DEATHS_ALONE:
            return False
        error = f"ended {raw.deaths} processes that worked on it alone"
        log.error("%s %s is dead: %s", self._stage, entry.record.frame_id, error)
        self.dead_letter(entry, error)
        return True

    def _dead_letter_invalid(self, at: StreamEntry, fields: dict[bytes, bytes], deliveries: int, error: str) -> None:
        """Dead-letter an invalid message. A ledger counts it only if it has the fields of a published frame."""
        log.error("invalid message %s on %s: %s", at.id.decode(), at.stream, error)
        camera = fields.get(b"camera", b"").decode(errors="replace")
        frame_id = fields.get(b"frame_id", b"").decode(errors="replace")
        published = messages.is_camera_name(camera) and messages.is_frame_id(frame_id, camera)
        letter = messages.encode(self._letter(at, fields, deliveries, error))
        if published:
            end = Settlement(at, camera, frame_id, "dropped:dead", letter=letter)
        else:
            end = Settlement(at, "-", "", "", letter=letter)
        self._settler.settle(end)

    def _letter(self, at: StreamEntry, fields: dict[bytes, bytes], deliveries: int, error: str) -> DeadLetter:
        return DeadLetter(
            stream=at.stream,
            entry_id=at.id.decode(),
            fields=fields,
            error=error,
            process=self._process_id,
            deliveries=deliveries,
            died_at=at.shard.clock.now(),
        )
