"""The pipeline's status, read from Redis: cameras with their ledgers, processes, streams. For CLI, page and API.

`read_status()` raises redis.RedisError when Redis fails. Foreign data does not break it: invalid records and camera
names are skipped, counts that are not numbers are 0, and a camera's key of another type counts as missing. What it
costs depends on how many cameras and processes there are, not on how many frames.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, cast

from msgspec import Struct

from pipeline.bus import messages
from pipeline.bus.cluster import server_time
from pipeline.bus.connection import Redis
from pipeline.bus.keys import FILE_RETENTION_S, GROUP, PROCESSES, heartbeat_key
from pipeline.bus.messages import FILE_PREFIX, BadMessage, Heartbeat, decode
from pipeline.bus.scripts import Script
from pipeline.bus.shards import Bus, Shard

RATE_PERIOD_S = 5  # period of rates and latencies: as many whole seconds before the present one
STALE_CAMERA_S = 2.0  # a camera without a new frame for this long is stale
OFFLINE_CAMERA_S = 5.0  # ... and for this long, offline
UNLABELLED_S = 1.0  # a live camera without a labelled frame for this long is shown without labels
MAX_AHEAD_S = 2.0  # a heartbeat that is later than now by more is one of a dead process: Redis' clock was set back
MAX_DIGITS = 15  # a longer count is invalid; JavaScript could not represent it either

WORK_STREAMS = ("frames", "faces", "frames:complete", "faces:complete")  # a shard's, of live frames and of files
STREAMS = (*WORK_STREAMS, "results", "dead")

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
    """One camera. latency_ms: capture to labelled, mean over the last seconds; None without labelled frames.

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
    """One live process. rates: per second, over the last second. busy: the share of it that was spent on work."""

    role: str
    id: str
    host: str
    pid: int
    uptime_s: float
    model: str | None
    state: str
    rates: dict[str, float]
    busy: float


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


class CameraCounts(NamedTuple):
    """What Redis holds of a camera. now: the time on the clock of its node, on which all its times are.

    labelled, latency_ms: labelled frames of the rate period, and the mean of their latencies.
    labelled_at, newest_at: when the newest labelled frame was labelled, and the newest one captured.
    held: a producer holds the camera's name.
    """

    now: float
    ledger: Ledger
    labelled: int
    latency_ms: float | None
    labelled_at: float | None
    newest_at: float | None
    held: bool


def read_status(bus: Bus) -> Status:
    """Return the current status."""
    now = bus.clock.now()
    beats = read_heartbeats(bus.client)
    cameras = _cameras(bus, beats)
    models = {beat.model for beat in beats if beat.role == "classifier" and beat.model}
    return Status(
        cameras=[camera for camera in cameras if not camera.name.startswith(FILE_PREFIX)],
        files=[camera for camera in cameras if camera.name.startswith(FILE_PREFIX)],
        processes=[
            Process(
                **{name: getattr(beat, name) for name in ("role", "id", "host", "pid", "model", "state")},
                uptime_s=round(max(0.0, now - beat.started_at), 1),
                rates={name: round(rate, 1) for name, rate in beat.rates.items()},
                busy=round(beat.busy, 2),
            )
            for beat in sorted(beats, key=lambda beat: beat.id)
        ],
        streams={name: _stream(bus.shards, name) for name in STREAMS},
        model=", ".join(sorted(models)) or None,
    )


def read_cameras(bus: Bus) -> list[Camera]:
    """Return the cameras of the current status."""
    return [one for one in _cameras(bus, read_heartbeats(bus.client)) if not one.name.startswith(FILE_PREFIX)]


def read_ledgers(bus: Bus, cameras: Sequence[str]) -> dict[str, Ledger]:
    """Return the ledgers of cameras, those of a shard read atomically."""
    found: dict[str, Ledger] = {}
    for shard in bus.shards:
        counts = read_counts(shard, [name for name in cameras if bus.shard_of(name) is shard])
        found |= {name: one.ledger for name, one in counts.items()}
    return found


def read_counts(shard: Shard, cameras: Sequence[str]) -> dict[str, CameraCounts]:
    """Return what Redis holds of some cameras of a shard, read atomically by one script."""
    names = ("standing", "ledger", "recent", "newest:frames", "lease")
    keys = [shard.key(name, camera) for camera in cameras for name in names]
    if not keys:
        return {}
    seconds, micros, *rows = cast(list[Any], Script(shard.client, "cameras", read_only=True)(keys, [RATE_PERIOD_S]))
    now = int(seconds) + int(micros) / 1e6
    return {camera: _counts(row, now) for camera, row in zip(cameras, rows, strict=True)}


def read_heartbeats(client: Redis) -> list[Heartbeat]:
    """Return the heartbeats of all live processes, without those of a future that a clock has come back from."""
    scored = cast(list[tuple[bytes, float]], client.zrange(PROCESSES, 0, -1, withscores=True))
    latest = server_time(client, PROCESSES)[0] + MAX_AHEAD_S if scored else 0.0
    ids = [id_.decode(errors="replace") for id_, at in scored if at <= latest]
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
    live = live_roles(client)
    return [role for role in WORKER_COMMANDS if role not in live]


def live_roles(client: Redis) -> set[str]:
    """Return the roles of all live processes."""
    return {beat.role for beat in read_heartbeats(client)}


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
        state = "file" if camera.name.startswith(FILE_PREFIX) else camera.state
        lines.append(f"{camera.name:<20} {state:<10} {rates}  {counts}{wrong}")
    lines += ["", f"{'PROCESS':<12} {'HOST':<20} {'PID':>7} {'UP':>8}  {'MODEL':<20} {'RATES':<28} {'BUSY':>5}  STATE"]
    for process in status.processes:
        rates = ", ".join(f"{rate:g} {name}/s" for name, rate in process.rates.items())
        who = f"{process.role:<12} {process.host:<20} {process.pid:>7} {process.uptime_s:>6.0f} s"
        lines.append(f"{who}  {process.model or '-':<20} {rates:<28} {process.busy:>5.0%}  {process.state}")
    lines += ["", f"{'STREAM':<16} {'LENGTH':>7} {'LAG':>7} {'PENDING':>7}"]
    lines += [f"{name:<16} {s.length:>7} {s.lag:>7} {s.pending:>7}" for name, s in status.streams.items()]
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


def _cameras(bus: Bus, beats: Sequence[Heartbeat]) -> list[Camera]:
    """Return cameras and files by name."""
    producers = {beat.camera: beat for beat in beats if beat.camera}
    counts = {name: one for shard in bus.shards for name, one in read_counts(shard, _camera_names(bus, shard)).items()}
    return [_camera(name, counts[name], producers.get(name)) for name in sorted(counts)]


def _camera(name: str, counts: CameraCounts, beat: Heartbeat | None) -> Camera:
    fps = beat.rates.get("frames", 0.0) if beat else 0.0
    state = camera_state(
        None if counts.newest_at is None else counts.now - counts.newest_at,
        None if counts.labelled_at is None else counts.now - counts.labelled_at,
        held=counts.held,
        connected=beat is None or beat.state == "running",
        fps=fps,
    )
    return Camera(
        name=name,
        state=state,
        detail=beat.state if beat else "no producer",
        newest_at=counts.newest_at,
        fps=round(fps, 1),
        labelled_fps=round(counts.labelled / RATE_PERIOD_S, 1),
        latency_ms=counts.latency_ms,
        ledger=counts.ledger,
    )


def _camera_names(bus: Bus, shard: Shard) -> list[str]:
    """Return the cameras of a shard to list, without invalid names and files that were labelled long ago."""
    seen = cast(list[tuple[bytes, float]], shard.client.zrange(shard.key("cameras"), 0, -1, withscores=True))
    found = ((raw.decode(errors="replace"), at) for raw, at in seen)
    now = shard.clock.now()
    return [
        name
        for name, at in found
        if messages.is_camera_name(name)
        and bus.shard_of(name) is shard
        and (not name.startswith(FILE_PREFIX) or now - at < FILE_RETENTION_S)
    ]


def _counts(row: list[Any], now: float) -> CameraCounts:
    in_flight, flat, labelled, latency_sum_ms, labelled_at, newest_at, held = row
    counts = {
        name.decode(errors="replace"): int(value) if value.isdigit() and len(value) <= MAX_DIGITS else 0
        for name, value in zip(flat[::2], flat[1::2], strict=True)
    }
    ledger = Ledger(
        produced=counts.get("produced", 0),
        labelled=counts.get("labelled", 0),
        dropped={name.partition(":")[2]: n for name, n in sorted(counts.items()) if name.startswith("dropped:")},
        in_flight=in_flight,
    )
    return CameraCounts(
        now=now,
        ledger=ledger,
        labelled=labelled,
        latency_ms=round(latency_sum_ms / labelled, 1) if labelled else None,
        labelled_at=_seconds(labelled_at),
        newest_at=_seconds(newest_at),
        held=bool(held),
    )


def _seconds(text: bytes) -> float | None:
    """Return a time, None for anything that is not a finite number."""
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) else None


def _stream(shards: Sequence[Shard], name: str) -> Stream:
    """Return a stream's figures, summed over all shards."""
    length = pending = 0
    for shard in shards:
        key = shard.key(name)
        entries = shard.client.xlen(key)
        groups = cast(list[Any], shard.client.xinfo_groups(key)) if entries and name in WORK_STREAMS else []
        length += entries
        pending += sum(group["pending"] for group in groups if group["name"] == GROUP.encode())
    return Stream(length=length, lag=max(0, length - pending) if name in WORK_STREAMS else 0, pending=pending)
