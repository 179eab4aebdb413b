"""The pipeline's status, read from Redis: cameras with their ledgers, processes, streams. For CLI, page and API.

`read_status()` raises redis.RedisError when Redis fails. Foreign data does not break it: invalid records and camera
names are skipped, counts that are not numbers are 0, and a camera's key of another type counts as missing.
"""

from __future__ import annotations

import math
import statistics
from typing import Any, Literal, cast

import redis
from msgspec import Struct

from pipeline.bus import messages
from pipeline.bus.clock import Clock
from pipeline.bus.connection import Redis
from pipeline.bus.keys import GROUP, heartbeat_key, lease_key, ledger_key, newest_frame_key
from pipeline.bus.messages import FILE_PREFIX, BadMessage, FrameResult, Heartbeat, decode
from pipeline.bus.scripts import Script

RATE_PERIOD_S = 5.0  # period of rates and latencies
STALE_CAMERA_S = 2.0  # a camera without a new frame for this long is stale
OFFLINE_CAMERA_S = 5.0  # ... and for this long, offline
UNLABELLED_S = 1.0  # a live camera without a labelled frame for this long is shown without labels
FILE_RETENTION_S = 600.0  # how long a finished run of `maskwatch label` is listed
MAX_DIGITS = 15  # a longer count is invalid; JavaScript could not represent it either

WORK_STREAMS = (messages.FRAMES, messages.FACES)
STREAMS = (*WORK_STREAMS, messages.RESULTS, messages.DEAD)

WORKER_COMMANDS = {"detector": "maskwatch detect", "classifier": "maskwatch classify"}  # by the roles that label frames

State = Literal["live", "stale", "offline", "unlabelled"]


class Ledger(Struct, frozen=True, kw_only=True):
    """How a camera's frames ended: produced == labelled + sum(dropped) + in_flight, at any moment."""

    produced: int = 0
    labelled: int = 0
    dropped: dict[str, int] = {}
    in_flight: int = 0

    @property
    def balances(self) -> bool:
        """Return whether every produced frame is accounted for."""
        return self.produced == self.labelled + sum(self.dropped.values()) + self.in_flight


class Camera(Struct, frozen=True, kw_only=True):
    """One camera. latency_ms: capture to labelled, median over the last seconds; None without labelled frames.

    detail: the state its producer reports. newest_at: when its newest frame was captured; None without one.
    """

    name: str
    state: State
    detail: str
    newest_at: float | None = None
    fps: float
    labelled_fps: float
    latency_ms: float | None
    ledger: Ledger


class Process(Struct, frozen=True, kw_only=True):
    """One live process."""

    role: str
    id: str
    host: str
    pid: int
    uptime_s: float
    model: str | None
    state: str
    rates: dict[str, float]


class Stream(Struct, frozen=True, kw_only=True):
    """One stream: its length, the entries that nobody has read (lag), and those being worked on (pending)."""

    length: int
    lag: int
    pending: int


class Status(Struct, frozen=True, kw_only=True):
    """The whole status. files: runs of `maskwatch label`, listed apart from cameras."""

    cameras: list[Camera]
    files: list[Camera]
    processes: list[Process]
    streams: dict[str, Stream]
    model: str | None


def read_status(client: Redis, clock: Clock) -> Status:
    """Return the current status."""
    now = clock.now()
    names = _camera_names(client, now)
    beats = read_heartbeats(client)
    ledgers = read_ledgers(client, names)
    recent = _recent_results(client, now)
    cameras = [_camera(client, name, ledgers[name], recent.get(name, []), beats, now) for name in sorted(names)]
    models = {beat.model for beat in beats if beat.role == "classifier" and beat.model}
    return Status(
        cameras=[camera for camera in cameras if not camera.name.startswith(FILE_PREFIX)],
        files=[camera for camera in cameras if camera.name.startswith(FILE_PREFIX)],
        processes=[
            Process(
                **{name: getattr(beat, name) for name in ("role", "id", "host", "pid", "model", "state")},
                uptime_s=round(max(0.0, now - beat.started_at), 1),
                rates={name: round(rate, 1) for name, rate in beat.rates.items()},
            )
            for beat in sorted(beats, key=lambda beat: beat.id)
        ],
        streams={name: _stream(client, name) for name in STREAMS},
        model=", ".join(sorted(models)) or None,
    )


def read_ledgers(client: Redis, cameras: list[str]) -> dict[str, Ledger]:
    """Return the ledgers of cameras, read atomically by one script."""
    keys = [*WORK_STREAMS, *(ledger_key(name) for name in cameras)]
    rows = cast(list[Any], Script(client, "ledger", read_only=True)(keys=keys, args=cameras))
    return {name: _ledger(row) for name, row in zip(cameras, rows, strict=True)}


def read_heartbeats(client: Redis) -> list[Heartbeat]:
    """Return the heartbeats of all live processes."""
    ids = [id_.decode(errors="replace") for id_ in cast(list[bytes], client.zrange(messages.PROCESSES, 0, -1))]
    packed = cast(list[bytes | None], client.mget([heartbeat_key(id_) for id_ in ids])) if ids else []
    beats = []
    for one in packed:
        try:
            beat = decode(Heartbeat, one or b"")
        except BadMessage:
            continue  # it died within the last minute, or is of another version
        if all(map(math.isfinite, (beat.started_at, beat.beat_at, *beat.rates.values()))):
            beats.append(beat)  # JSON cannot represent other numbers
    return beats


def missing_workers(client: Redis) -> list[str]:
    """Return which of the roles in WORKER_COMMANDS no live process has: without one of each no frame is labelled."""
    live = {beat.role for beat in read_heartbeats(client)}
    return [role for role in WORKER_COMMANDS if role not in live]


def status_table(status: Status) -> str:
    """Return a status as text for people."""
    lines = [f"model {status.model or 'none: no classifier is live'}", ""]
    lines.append(f"{'CAMERA':<20} {'STATE':<10} {'FPS':>6} {'LABELLED':>8} {'LATENCY':>8}  LEDGER")
    for camera in [*status.cameras, *status.files]:
        ledger = camera.ledger
        latency = "-" if camera.latency_ms is None else f"{camera.latency_ms:.0f} ms"
        parts = [f"{ledger.labelled} labelled", *(f"{n} {reason}" for reason, n in ledger.dropped.items())]
        counts = f"{ledger.produced} = {' + '.join(parts)} + {ledger.in_flight} in flight"
        rates = f"{camera.fps:>6.1f} {camera.labelled_fps:>8.1f} {latency:>8}"
        wrong = "" if ledger.balances else "  DOES NOT BALANCE"
        lines.append(f"{camera.name:<20} {camera.state:<10} {rates}  {counts}{wrong}")
    lines += ["", f"{'PROCESS':<12} {'HOST':<20} {'PID':>7} {'UP':>8}  {'MODEL':<20} {'RATES':<28} STATE"]
    for process in status.processes:
        rates = ", ".join(f"{rate:g} {name}/s" for name, rate in process.rates.items())
        who = f"{process.role:<12} {process.host:<20} {process.pid:>7} {process.uptime_s:>6.0f} s"
        lines.append(f"{who}  {process.model or '-':<20} {rates:<28} {process.state}")
    lines += ["", f"{'STREAM':<12} {'LENGTH':>7} {'LAG':>7} {'PENDING':>7}"]
    lines += [f"{name:<12} {s.length:>7} {s.lag:>7} {s.pending:>7}" for name, s in status.streams.items()]
    return "\n".join(lines)


def camera_state(
    age_s: float | None, labelled_age_s: float | None, *, held: bool, connected: bool, fps: float
) -> State:
    """Return a camera's state.

    Args:
        age_s: age of its newest frame; None without one.
        labelled_age_s: time since a frame of it was labelled; None if none was recently.
        held: a producer holds its name.
        connected: the producer reports that its source delivers.
        fps: rate in its heartbeat. Above 0 the camera is neither stale nor offline: if its newest frame is old all the
            same, the data in Redis are wrong.
    """
    if not held or not connected:
        return "offline"
    period_s = 1 / fps if fps > 0 else 0.0
    if age_s is None or age_s > max(STALE_CAMERA_S, 3 * period_s):
        if fps > 0:
            return "unlabelled"
        return "offline" if age_s is None or age_s > OFFLINE_CAMERA_S else "stale"
    if labelled_age_s is None or labelled_age_s > max(UNLABELLED_S, 3 * period_s):
        return "unlabelled"
    return "live"


def _camera(
    client: Redis,
    name: str,
    ledger: Ledger,
    recent: list[tuple[float, FrameResult]],
    beats: list[Heartbeat],
    now: float,
) -> Camera:
    newest_at = _newest_at(client, name)
    beat = next((beat for beat in beats if beat.camera == name), None)
    labelled = [
        (at, result) for at, result in recent if result.outcome == "labelled" and math.isfinite(result.captured_at)
    ]
    latencies = [1000 * (at - result.captured_at) for at, result in labelled]
    fps = beat.rates.get("frames", 0.0) if beat else 0.0
    state = camera_state(
        None if newest_at is None else now - newest_at,
        now - labelled[-1][0] if labelled else None,
        held=bool(client.exists(lease_key(name))),
        connected=beat is None or beat.state == "running",
        fps=fps,
    )
    return Camera(
        name=name,
        state=state,
        detail=beat.state if beat else "no producer",
        newest_at=newest_at,
        fps=round(fps, 1),
        labelled_fps=round(len(labelled) / RATE_PERIOD_S, 1),
        latency_ms=round(statistics.median(latencies), 1) if latencies else None,
        ledger=ledger,
    )


def _camera_names(client: Redis, now: float) -> list[str]:
    """Return the cameras to list, without invalid names and files that were labelled long ago."""
    seen = cast(list[tuple[bytes, float]], client.zrange(messages.CAMERAS, 0, -1, withscores=True))
    found = ((raw.decode(errors="replace"), at) for raw, at in seen)
    return [
        name
        for name, at in found
        if messages.is_camera_name(name) and (not name.startswith(FILE_PREFIX) or now - at < FILE_RETENTION_S)
    ]


def _newest_at(client: Redis, name: str) -> float | None:
    """Return when a camera's newest frame was captured; None without one or without a valid time."""
    try:
        captured_at = float(cast(bytes | None, client.hget(newest_frame_key(name), "captured_at")) or b"nan")
    except ValueError:
        return None
    except redis.ResponseError as error:
        if "WRONGTYPE" not in str(error):
            raise
        return None
    return captured_at if math.isfinite(captured_at) else None


def _recent_results(client: Redis, now: float) -> dict[str, list[tuple[float, FrameResult]]]:
    since = f"{int((now - RATE_PERIOD_S) * 1000)}-0"
    found: dict[str, list[tuple[float, FrameResult]]] = {}
    for id_, fields in cast(list[Any], client.xrange(messages.RESULTS, min=since)):
        try:
            result = decode(FrameResult, fields.get(b"record", b""))
        except BadMessage:
            continue  # ResultConsumer logs it
        found.setdefault(result.camera, []).append((int(id_.split(b"-")[0]) / 1000, result))
    return found


def _ledger(row: list[Any]) -> Ledger:
    in_flight, flat = row
    counts = {
        name.decode(errors="replace"): int(value) if value.isdigit() and len(value) <= MAX_DIGITS else 0
        for name, value in zip(flat[::2], flat[1::2], strict=True)
    }
    return Ledger(
        produced=counts.get("produced", 0),
        labelled=counts.get("labelled", 0),
        dropped={name.partition(":")[2]: n for name, n in sorted(counts.items()) if name.startswith("dropped:")},
        in_flight=in_flight,
    )


def _stream(client: Redis, name: str) -> Stream:
    length = client.xlen(name)
    if name not in WORK_STREAMS:
        return Stream(length=length, lag=0, pending=0)
    groups = cast(list[Any], client.xinfo_groups(name)) if length else []
    pending = sum(group["pending"] for group in groups if group["name"] == GROUP.encode())
    return Stream(length=length, lag=max(0, length - pending), pending=pending)
