"""Label pictures that programs send, through the same workers: a picture in, its result out, or ApiError.

Each picture is published as a frame of complete mode, of a run that belongs to this viewer: live frames go before it.
No more than MAX_AT_ONCE are read at a time, and admission.py says when one may be labelled. The thread that follows
`results` passes them on to `settle`. Pixels are deleted as soon as nobody waits for them.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections.abc import Iterator
from http import HTTPStatus

import redis
from msgspec import Struct
from redis.exceptions import NoPermissionError

from pipeline.bus import messages
from pipeline.bus.connection import connect
from pipeline.bus.keys import COMPLETE_PIXELS_MS
from pipeline.bus.messages import FILE_PREFIX, Frame, FrameResult, LeaseHolder
from pipeline.bus.shards import Bus, Shard
from pipeline.bus.status import WORKER_COMMANDS, missing_workers
from pipeline.bus.writer import Published, Writer
from pipeline.runtime.worker_context import WorkerContext
from viewer.api.admission import Admission, Turn
from viewer.api.problems import ApiError

MAX_AT_ONCE = 4  # pictures: enough to keep workers busy, and few enough that their memory does not count
RETRY_AFTER_S = 1
RUN_PREFIX = f"{FILE_PREFIX}api-"  # deploy/redis/users.acl.template lets the viewer write the keys of these runs only


class _Run(Struct, frozen=True):
    """Where pictures are published. camera: its name in Redis. start: Unix milliseconds."""

    shard: Shard
    writer: Writer
    camera: str
    start: int


class _Waiting:
    """A picture that is being labelled. result: None until it has one."""

    def __init__(self) -> None:
        self.result: FrameResult | None = None
        self.has_ended = threading.Event()


class PictureLabeller:
    """Publish pictures and wait for their results. Threads may share it.

    Args:
        label_redis: Redis as a user who may publish pictures; None for the viewer's own.
    """

    def __init__(self, context: WorkerContext, label_redis: str | None) -> None:
        self._context = context
        self._bus = Bus(connect(label_redis)) if label_redis else context.bus
        self._admission = Admission(MAX_AT_ONCE)
        self._lock = threading.Lock()
        self._run: _Run | None = None
        self._seq = 0
        self._waiting: dict[str, _Waiting] = {}

    @contextlib.contextmanager
    def slot(self) -> Iterator[None]:
        """Let the block be one of the few that read and label a picture at a time.

        Raises:
            ApiError: there are enough already.
        """
        with self._admission.slot() as is_free:
            if not is_free:
                retry_after_s = self._admission.retry_after_s()
                raise ApiError(
                    HTTPStatus.TOO_MANY_REQUESTS,
                    f"as many pictures as may be are being labelled already: try again in {retry_after_s} s",
                    retry_after_s=retry_after_s,
                )
            yield

    @contextlib.contextmanager
    def turn(self, timeout_s: float) -> Iterator[Turn]:
        """Let the block label one picture, when live frames leave time for it.

        Raises:
            ApiError: it may not begin in time.
        """
        with self._admission.turn(timeout_s) as turn:
            if turn is None:
                raise _too_late(timeout_s)
            yield turn

    def label(self, jpeg: bytes, width: int, height: int, timeout_s: float, waited_s: float = 0.0) -> FrameResult:
        """Return the result of a picture, with its faces.

        Args:
            width, height: in pixels.
            timeout_s: for the whole request, of which waited_s have passed.

        Raises:
            ApiError: there are no workers or no room, the picture is damaged, or there is no result in time.
            redis.RedisError: Redis failed.
        """
        self._check_workers()
        waiting = _Waiting()
        frame = self._publish(jpeg, width, height, waiting)
        try:
            waiting.has_ended.wait(max(0.0, timeout_s - waited_s))
        finally:
            self._forget(frame)
        if waiting.result is None:
            raise _too_late(timeout_s)
        return _checked(waiting.result)

    def is_waiting(self) -> bool:
        """Return whether a picture waits for its result."""
        return bool(self._waiting)

    def settle(self, result: FrameResult) -> None:
        """Take the result of a frame: it is live, or perhaps of a picture that somebody waits for."""
        if not result.camera.startswith(FILE_PREFIX):
            self._admission.note(result)
            return
        waiting = self._waiting.get(result.frame_id)
        if waiting is not None:
            waiting.result = result
            waiting.has_ended.set()

    def _check_workers(self) -> None:
        if missing := missing_workers(self._context.client):
            commands = " and ".join(f"`{WORKER_COMMANDS[role]}`" for role in missing)
            roles = " and no live ".join(missing)
            raise _unavailable(f"no live {roles}: start {commands}")

    def _publish(self, jpeg: bytes, width: int, height: int, waiting: _Waiting) -> Frame:
        try:
            with self._lock:
                frame, published = self._publish_next(jpeg, width, height, waiting)
        except NoPermissionError as error:
            raise _unavailable(
                "the viewer's user of Redis may not publish pictures: set MASKWATCH_LABEL_REDIS to the URL of the user "
                "labeller"
            ) from error
        if published in ("source_full", "memory"):
            self._forget(frame)
            raise _unavailable("Redis has no room for the picture: try again, or send a smaller one")
        return frame

    def _publish_next(self, jpeg: bytes, width: int, height: int, waiting: _Waiting) -> tuple[Frame, Published]:
        run = self._current_run()
        frame = self._next_frame(run, width, height)
        self._waiting[frame.frame_id] = waiting  # its result may come before publish() returns
        try:
            return frame, run.writer.publish(frame, jpeg)
        except redis.RedisError:
            del self._waiting[frame.frame_id]
            raise

    def _current_run(self) -> _Run:
        """Return the run of this viewer; another one when its shard has changed."""
        name = self._run.camera if self._run else RUN_PREFIX + secrets.token_hex(4)
        shard = self._bus.shard_of(name)
        if self._run is None or self._run.shard is not shard:
            token = messages.encode(LeaseHolder(host=self._context.id, pid=0, token=secrets.token_hex(8)))
            writer = Writer(shard, camera=name, token=token, pixels_ms=COMPLETE_PIXELS_MS)
            self._run = _Run(shard, writer, name, int(shard.clock.now() * 1000))
        return self._run

    def _next_frame(self, run: _Run, width: int, height: int) -> Frame:
        self._seq += 1
        identity = messages.frame_id(run.camera, run.start, self._seq)
        return Frame(
            frame_id=identity,
            camera=run.camera,
            start=run.start,
            seq=self._seq,
            width=width,
            height=height,
            pixels_key=run.shard.key("pixels", identity),
            captured_at=run.shard.clock.now(),
            deadline_at=None,
        )

    def _forget(self, frame: Frame) -> None:
        """Delete the pixels of a picture that nobody waits for; if Redis fails, they expire."""
        self._waiting.pop(frame.frame_id, None)
        run = self._run
        if run is not None:
            with contextlib.suppress(redis.RedisError):
                run.writer.delete_pixels([frame])


def _checked(result: FrameResult) -> FrameResult:
    """Return the result of a labelled picture.

    Raises:
        ApiError: it is not labelled.
    """
    if result.outcome == "labelled":
        return result
    if result.outcome == "dead":
        raise ApiError(HTTPStatus.UNPROCESSABLE_ENTITY, f"the picture cannot be labelled: {result.error}")
    raise _unavailable(f"the picture was dropped ({result.reason}): try again")


def _too_late(timeout_s: float) -> ApiError:
    return ApiError(
        HTTPStatus.GATEWAY_TIMEOUT,
        f"no result within {timeout_s:g} s, the workers are busy: try again, or give more time with timeout_s",
    )


def _unavailable(detail: str) -> ApiError:
    return ApiError(HTTPStatus.SERVICE_UNAVAILABLE, detail, retry_after_s=RETRY_AFTER_S)
