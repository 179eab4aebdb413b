"""Publish, read and settle: the only code that writes to the streams.

`Writer` puts frames in, `Reader` hands workers what still matters and settles it. Every change of state is one Lua
script, so a process may die between any two lines and the ledger still balances. Redis errors are raised to the caller,
whose loop waits and goes on (`WorkerContext.reconnecting`). Bad messages are dead-lettered here and never reach the
caller.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar, cast

import redis

from pipeline.bus import messages
from pipeline.bus.clock import Clock
from pipeline.bus.connection import Redis
from pipeline.bus.keys import (
    COMPLETE_PIXELS_MS,
    GROUP,
    LEASE_MS,
    LIVE_PIXELS_MS,
    RESULTS_RETENTION_MS,
    alone_key,
    lease_key,
    ledger_key,
    newest_key,
)
from pipeline.bus.messages import BadMessage, DeadLetter, FaceCrops, Frame, FrameResult, Identity, Reason, holder_text
from pipeline.bus.pixels import PixelsGone
from pipeline.bus.results import READ_BLOCK_MS, rows_of
from pipeline.bus.scripts import reading_script, script
from pipeline.vision.jpeg import BadImage

log = logging.getLogger(__name__)

RECLAIM_IDLE_MS = 2_000  # a worker that has not renewed an entry for so long has lost it
RECLAIM_POLL_S = 0.5
FORGET_IDLE_MS = 60_000  # a consumer that has been silent for so long and holds nothing is deleted
DEATHS_ALONE = 3  # an entry that ended this many processes, each working on it alone, is dead
OVERTAKEN_BY = 2  # newer frames of the same camera in the same stream that make a live frame stale
SKIP_AT_ONCE = 32  # entries read at once at most, to get from one that was dropped to the newest
DEAD_LETTER_RETENTION_COUNT = 1_000
MAX_ENTRIES = 64  # unfinished frames of one camera at which its producer drops at the source

Published = Literal["published", "again", "source_full", "memory"]
Record = TypeVar("Record", bound=Identity)


class NameLost(Exception):
    """Another process publishes under this camera's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry(Generic[Record]):
    """One record as it stands on a stream, held by this process until it is settled.

    alone: it was taken over from a process that fell silent; it is worked on with nothing else at stake.
    """

    id: bytes
    record: Record
    fields: dict[bytes, bytes]
    deliveries: int
    alone: bool


class Writer:
    """Publish one camera's frames.

    Args:
        token: the packed Holder that holds the camera's lease.
        pixels_ms: how long the pixels live unless renewed.
    """

    def __init__(self, client: Redis, *, camera: str, token: bytes, pixels_ms: int) -> None:
        self._client = client
        self._camera = camera
        self._token = token
        self._pixels_ms = pixels_ms
        self._publish = script(client, "publish")

    def publish(self, frame: Frame, jpeg: bytes) -> Published:
        """Publish a frame with its JPEG; safe to call again with the same frame after a lost answer.

        Returns:
            "published"; "again" when an earlier call had done it; "source_full" or "memory" when the frame was dropped
            at the source, which the ledger and the results then say.

        Raises:
            NameLost: the camera's name is another's now; names the holder.
        """
        answer = self._publish(
            keys=[
                messages.FRAMES,
                newest_key(self._camera),
                ledger_key(self._camera),
                lease_key(self._camera),
                frame.pixels_key,
                messages.RESULTS,
            ],
            args=[
                self._token,
                LEASE_MS,
                self._camera,
                f"{frame.start}:{frame.seq}:{frame.attempt}",
                f"{frame.captured_at:.6f}",
                frame.seq,
                messages.encode(frame),
                jpeg,
                self._pixels_ms,
                MAX_ENTRIES,
                messages.encode(dropped(frame, "source_full")),
                messages.encode(dropped(frame, "memory")),
                RESULTS_RETENTION_MS,
            ],
        )
        if isinstance(answer, list):
            raise NameLost(holder_text(answer[1]))
        return cast(Published, answer.decode())

    def renew_pixels(self, frames: Sequence[Frame]) -> None:
        """Keep the pixels and crops of unfinished frames alive."""
        with self._client.pipeline(transaction=False) as pipe:
            for frame in frames:
                pipe.pexpire(frame.pixels_key, self._pixels_ms)
                pipe.pexpire(frame.crops_key, self._pixels_ms)
            pipe.execute()

    def forget_pixels(self, frames: Sequence[Frame]) -> None:
        """Remove the pixels of frames that are finished and that nobody else will look at."""
        self._client.unlink(*(frame.pixels_key for frame in frames))


class Reader(Generic[Record]):
    """Hand out a stream's entries one worker at a time, and settle them.

    Args:
        stream: the work stream.
        record_type: what its records are.
        consumer: this process' id.
    """

    def __init__(self, client: Redis, clock: Clock, *, stream: str, record_type: type[Record], consumer: str) -> None:
        self._client = client
        self._clock = clock
        self._stream = stream
        self._record_type = record_type
        self._consumer = consumer
        self._reclaim_at = 0.0
        self._forget_at = time.monotonic() + FORGET_IDLE_MS / 1000
        self._behind = 0  # how many newer frames of its camera wait behind one that was dropped
        self._settle = script(client, "settle")
        self._reclaim = script(client, "reclaim")
        self._retire = script(client, "retire")
        self._overtaken = reading_script(client, "overtaken")
        self.outcomes: dict[str, int] = {}

    def read(self, most: int) -> list[Entry[Record]]:
        """Return up to `most` entries that still matter, or none after a quarter of a second of silence.

        Live frames that are past their deadline or overtaken here are dropped before they are returned, wrong messages
        are dead-lettered. An entry taken over from a silent process comes by itself. Behind an entry that was dropped
        all are read up to the newest, be it more than `most`: where a round trip takes as long as the next frame to
        come, a reader that drops one at a time never gets to a fresh one.
        """
        return self._in_group(lambda: self._take_over() or self._take_new(max(most, self._behind), READ_BLOCK_MS))

    def read_new(self, most: int, block_ms: int) -> list[Entry[Record]]:
        """Return up to `most` entries nobody has had yet, or none after `block_ms` of silence."""
        return self._in_group(lambda: self._take_new(most, block_ms))

    def renew(self, entries: Sequence[Entry[Record]]) -> None:
        """Say that this process still works on `entries`; call it between model calls."""
        if entries:
            ids: list[Any] = [entry.id for entry in entries]
            self._client.xclaim(self._stream, GROUP, self._consumer, 0, ids, justid=True)

    def forward(self, entry: Entry[Record], faces: FaceCrops, crops: bytes) -> bool:
        """Settle a frame by passing its faces on; False when another process was first."""
        live = entry.record.deadline_at is not None
        output = [messages.FACES, f"{faces.captured_at:.6f}", messages.encode(faces), "", ""]
        return self._done(entry, "", [output], put=crops, put_ms=LIVE_PIXELS_MS if live else COMPLETE_PIXELS_MS)

    def finish(self, entry: Entry[Record], result: FrameResult) -> bool:
        """Settle a frame with its result; False when another process was first."""
        field = "labelled" if result.outcome == "labelled" else f"dropped:{result.reason}"
        return self._done(entry, field, [_result_output(result)])

    def drop(self, entry: Entry[Record], reason: Reason) -> bool:
        """Settle a frame that is not worked on."""
        return self.finish(entry, dropped(entry.record, reason))

    def dead_letter(self, entry: Entry[Record], error: str) -> bool:
        """Settle a frame that cannot be worked on: a result that says so, and a dead letter."""
        result = FrameResult(**entry.record.identity(), outcome="dead", reason="dead", error=error)  # type: ignore[arg-type]
        letter = self._letter(entry.id, entry.fields, entry.deliveries, error)
        return self._done(entry, "dropped:dead", [_result_output(result), letter])

    @contextlib.contextmanager
    def guard(self, entry: Entry[Record]) -> Iterator[None]:
        """Work on one entry: whatever goes wrong inside ends this entry, never the worker."""
        try:
            yield
        except PixelsGone:
            self.drop(entry, "pixels_gone")
        except BadImage as error:  # no fault of this program: worth a line, not a traceback
            log.info("%s %s is dead: %s", self._stream, entry.record.frame_id, error)
            self.dead_letter(entry, str(error))
        except redis.RedisError:
            raise
        except Exception as error:
            log.exception("%s %s is dead: %s", self._stream, entry.record.frame_id, error)
            self.dead_letter(entry, f"{type(error).__name__}: {error}")

    def retire(self) -> None:
        """Leave the group; what this process still holds stays for others to take over."""
        with contextlib.suppress(redis.ResponseError):  # NOGROUP: nothing to leave
            self._retire(keys=[self._stream], args=[GROUP, self._consumer])

    def remove_idle_consumers(self) -> None:
        """Delete consumers of processes that died holding nothing; a process that lives reads again and is back."""
        self._forget_at = time.monotonic() + FORGET_IDLE_MS / 1000
        for consumer in cast(list[Any], self._client.xinfo_consumers(self._stream, GROUP)):
            if consumer["idle"] > FORGET_IDLE_MS and consumer["pending"] == 0:
                self._retire(keys=[self._stream], args=[GROUP, consumer["name"]])

    def _take_new(self, most: int, block_ms: int) -> list[Entry[Record]]:
        answer = self._client.xreadgroup(GROUP, self._consumer, {self._stream: ">"}, count=most, block=block_ms)
        rows = rows_of(answer)
        return [entry for id_, fields in rows if (entry := self._decoded(id_, fields, deliveries=1, alone=False))]

    def _take_over(self) -> list[Entry[Record]]:
        if time.monotonic() < self._reclaim_at:
            return []
        answer = self._reclaim(
            keys=[self._stream, alone_key(self._stream)], args=[GROUP, self._consumer, RECLAIM_IDLE_MS]
        )
        if not answer:
            self._reclaim_at = time.monotonic() + RECLAIM_POLL_S
            if time.monotonic() > self._forget_at:
                self.remove_idle_consumers()
            return []
        id_, flat, deaths, deliveries = answer
        entry = self._decoded(id_, dict(zip(flat[::2], flat[1::2], strict=True)), deliveries=deliveries, alone=True)
        if entry and deaths >= DEATHS_ALONE:
            log.error("%s %s ended %d processes that worked on it alone", self._stream, entry.record.frame_id, deaths)
            self.dead_letter(entry, f"ended {deaths} processes that worked on it alone")
            return []
        return [entry] if entry else []

    def _decoded(self, id_: bytes, fields: dict[bytes, bytes], *, deliveries: int, alone: bool) -> Entry[Record] | None:
        try:
            record = messages.decode(self._record_type, fields.get(b"record", b""))
            if fields.get(b"camera") != record.camera.encode() or b"captured_at" not in fields:
                raise BadMessage("its fields camera and captured_at are missing or not the record's")
        except BadMessage as error:
            self._dead_letter_wrong(id_, fields, deliveries, str(error))
            return None
        return Entry(id=id_, record=record, fields=fields, deliveries=deliveries, alone=alone)

    def _dead_letter_wrong(self, id_: bytes, fields: dict[bytes, bytes], deliveries: int, error: str) -> None:
        """Dead-letter a wrong message; it counts in a ledger only if it was published, so has both plain fields."""
        log.error("wrong message %s on %s: %s", id_.decode(), self._stream, error)
        camera = fields.get(b"camera", b"").decode(errors="replace")
        published = messages.is_camera_name(camera) and b"captured_at" in fields
        letter = self._letter(id_, fields, deliveries, error)
        field = "dropped:dead" if published else ""  # what no camera published is in no ledger
        keys, args = self._settling(id_, camera if published else "-", "-", field, [letter])
        self._count("dropped:dead", self._settle(keys, args))

    def _still_matter(self, entries: list[Entry[Record]]) -> list[Entry[Record]]:
        self._behind = 0
        live = [entry for entry in entries if entry.record.deadline_at is not None]
        if not live:
            return entries
        now = self._clock.now()
        asked = [part for e in live for part in (e.record.camera, f"{e.record.captured_at:.6f}")]
        newer = cast(list[int], self._overtaken(keys=[self._stream], args=asked))
        gone: dict[bytes, Reason] = {}
        for entry, count in zip(live, newer, strict=True):
            if cast(float, entry.record.deadline_at) < now:
                gone[entry.id] = "expired"
            elif count >= OVERTAKEN_BY:
                gone[entry.id] = "stale"
        if gone:
            self._behind = min(SKIP_AT_ONCE, max(newer))
        self._drop_all([(entry, gone[entry.id]) for entry in live if entry.id in gone])
        return [entry for entry in entries if entry.id not in gone]

    def _drop_all(self, entries: list[tuple[Entry[Record], Reason]]) -> None:
        """Drop entries, several of them in one round trip or two."""
        if len(entries) < 2:
            for entry, reason in entries:
                self.drop(entry, reason)
            return
        with self._client.pipeline(transaction=False) as pipe:
            for entry, reason in entries:
                record = entry.record
                output = _result_output(dropped(record, reason))
                keys, args = self._settling(entry.id, record.camera, record.frame_id, f"dropped:{reason}", [output])
                self._settle(keys, args, client=pipe)
            for (_, reason), settled in zip(entries, pipe.execute(), strict=True):
                self._count(f"dropped:{reason}", settled)

    def _in_group(self, take: Callable[[], list[Entry[Record]]]) -> list[Entry[Record]]:
        """Take entries; create the group when Redis does not know it, at the start or after it lost its memory."""
        try:
            return self._still_matter(take())
        except redis.ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise
            with contextlib.suppress(redis.ResponseError):  # BUSYGROUP: another worker was first
                self._client.xgroup_create(self._stream, GROUP, id="0", mkstream=True)
            return []

    def _letter(self, id_: bytes, fields: dict[bytes, bytes], deliveries: int, error: str) -> list[Any]:
        letter = DeadLetter(
            stream=self._stream,
            entry_id=id_.decode(),
            fields=fields,
            error=error,
            process=self._consumer,
            deliveries=deliveries,
            died_at=self._clock.now(),
        )
        return [messages.DEAD, "", messages.encode(letter), "MAXLEN", DEAD_LETTER_RETENTION_COUNT]

    def _done(
        self, entry: Entry[Record], field: str, outputs: list[list[Any]], *, put: bytes = b"", put_ms: int = 0
    ) -> bool:
        record = entry.record
        keys, args = self._settling(entry.id, record.camera, record.frame_id, field, outputs, put=put, put_ms=put_ms)
        return self._count(field, self._settle(keys, args))

    def _settling(
        self,
        id_: bytes,
        camera: str,
        frame_id: str,
        field: str,
        outputs: list[list[Any]],
        *,
        put: bytes = b"",
        put_ms: int = 0,
    ) -> tuple[list[str], list[Any]]:
        """Return the keys and arguments of settle.lua."""
        keys = [self._stream, alone_key(self._stream), ledger_key(camera), f"crops:{frame_id}"]
        parts = [part for output in outputs for part in output[1:]]
        return [*keys, *(output[0] for output in outputs)], [GROUP, id_, camera, field, put, put_ms, *parts]

    def _count(self, field: str, settled: int) -> bool:
        if settled:
            self.outcomes[field or "forwarded"] = self.outcomes.get(field or "forwarded", 0) + 1
        return bool(settled)


def dropped(record: Identity, reason: Reason) -> FrameResult:
    """Return the result of a frame that is not labelled."""
    return FrameResult(**record.identity(), outcome="dropped", reason=reason)  # type: ignore[arg-type]


def _result_output(result: FrameResult) -> list[Any]:
    return [messages.RESULTS, "", messages.encode(result), "MINID", RESULTS_RETENTION_MS]
