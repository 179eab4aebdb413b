"""Feed a scene to recorders that are killed, and compare the events that they recorded with the table.

The scene is fed faster than real time; the times of its results are those of the scene. Results are kept for 60 s on
Redis' clock, as the workers' script does, so what is fed while the database is away is read when it is back. A fault
waits, and the scene with it, until a recorder is active again after the one before.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import redis

from bench.event_scene import scene
from bench.event_scene.databases import SceneDatabase, scene_database
from bench.event_scene.faults import Fault, draw_faults
from bench.event_scene.gate import CAMERA, Gate
from bench.event_scene.recorders import Recorders, wait_for
from bench.event_scene.scene import Expected
from chaos.server import Server
from pipeline.bus import messages
from pipeline.bus.messages import FrameResult
from pipeline.bus.shards import Bus

RESULTS_MS = 60_000  # as in pipeline/bus/lua/common.lua
ACTIVE_TIMEOUT_S = 120.0
RECORDED_TIMEOUT_S = 120.0
MAX_DIFFERENCE_S = 0.5
GATE_AWAY_S = 12.0  # real seconds: longer than the rule's, and than a recorder needs to take over
PERSISTENT = {"appendonly": "yes", "appendfsync": "always"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A run.

    speed: of the scene, of real time. kills: of each recorder. outage_s: of the database, real time.
    database: sqlite or postgresql.
    empties_redis: Redis restarts without its memory, when all that it held was recorded.
    """

    seconds: float
    speed: float
    recorders: int
    kills: int
    outage_s: float
    seed: int
    database: str = "sqlite"
    empties_redis: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What was recorded of a scene. pairs: expected and found; lost: not found; extra: doubled, or not expected."""

    faults: Sequence[Fault]
    pairs: Sequence[tuple[Expected, Expected]]
    lost: Sequence[Expected]
    extra: Sequence[Expected]

    @property
    def worst_s(self) -> float:
        """The largest difference between an expected time and the recorded one."""
        return max(
            (max(abs(one.begin - other.begin), abs(one.end - other.end)) for one, other in self.pairs), default=0.0
        )

    @property
    def held(self) -> bool:
        """Return whether every event is there once, at its time."""
        return not self.lost and not self.extra and self.worst_s <= MAX_DIFFERENCE_S


def run(plan: Plan, folder: Path) -> Outcome:
    """Run a scene in an empty folder.

    Raises:
        TookTooLong: recorders did not become active, or did not record everything in time.
    """
    rng = random.Random(plan.seed)
    rules = folder / "rules.toml"
    rules.write_text(scene.RULES)
    faults = draw_faults(rng, plan.seconds, recorders=plan.recorders, kills=plan.kills)
    with (
        scene_database(plan.database, folder) as database,
        Server(folder, {}, settings={} if plan.empties_redis else PERSISTENT) as server,
        Recorders(plan.recorders, _options(server, database, rules), folder / "recorders.log") as recorders,
        Gate(Bus(server.connect())) as gate,
    ):
        wait_for(lambda: recorders.is_active(server.client), ACTIVE_TIMEOUT_S, "a recorder is active")
        begin = _time(server)
        feeder = _Feeder(plan, server, recorders, database)
        with _absence(gate):
            feeder.feed(scene.results(plan.seconds, begin, plan.seed), faults)
        wait_for(lambda: bool(gate.away), RECORDED_TIMEOUT_S, f"{CAMERA} is back")
        expected = sorted([*scene.table(plan.seconds), *_of_gate(gate, begin)])
        wait_for(lambda: _is_recorded(server, database), RECORDED_TIMEOUT_S, "everything is recorded")
        return compare(faults, expected, _rows(database, begin))


class _Feeder:
    """Adds results to their stream at the scene's speed, and does what happens meanwhile."""

    def __init__(self, plan: Plan, server: Server, recorders: Recorders, database: SceneDatabase) -> None:
        self._plan = plan
        self._database = database
        self._server = server
        self._recorders = recorders
        self._stream = Bus(server.client).shards[0].key("results")

    def feed(self, results: Sequence[FrameResult], faults: Sequence[Fault]) -> None:
        """Feed a scene."""
        left, begin, due = list(faults), results[0].captured_at, time.monotonic()
        for result in results:
            while left and result.captured_at - begin >= left[0].at:
                before = time.monotonic()
                self._do(left.pop(0))
                due += time.monotonic() - before
            time.sleep(max(0.0, due + (result.captured_at - begin) / self._plan.speed - time.monotonic()))
            self._add(result)

    def _do(self, fault: Fault) -> None:
        wait_for(lambda: self._recorders.is_active(self._server.client), ACTIVE_TIMEOUT_S, "a recorder is active")
        if fault.kind == "kill":
            self._recorders.kill(fault.recorder)
        elif fault.kind == "database":
            self._database.begin_outage(self._plan.outage_s)
        else:
            if self._plan.empties_redis:
                wait_for(lambda: _is_read(self._server, self._database), ACTIVE_TIMEOUT_S, "all results are read")
            self._server.kill()
            self._server.start()

    def _add(self, result: FrameResult) -> None:
        fields: Any = {"camera": result.camera, "record": messages.encode(result)}
        oldest = round(time.time() * 1000) - RESULTS_MS
        self._server.client.xadd(self._stream, fields, minid=oldest, approximate=True)


@contextlib.contextmanager
def _absence(gate: Gate) -> Iterator[None]:
    """Let the camera be offline for some seconds while the block runs, or after it."""
    back = threading.Timer(GATE_AWAY_S, gate.come_back)
    gate.go()
    back.start()
    yield
    back.join()


def _options(server: Server, database: SceneDatabase, rules: Path) -> list[str]:
    return ["--rules", str(rules), "--database", database.url, "--redis", server.url]


def _time(server: Server) -> float:
    """Return Redis' time, Unix seconds."""
    seconds, microseconds = server.client.time()
    return seconds + microseconds / 1e6


def _of_gate(gate: Gate, begin: float) -> list[Expected]:
    found = []
    for left, came in gate.away:
        found.append(Expected("away", CAMERA, left - begin, came - begin))
        found.append(Expected("back", CAMERA, came - begin, came - begin))
    return found


def _is_recorded(server: Server, database: SceneDatabase) -> bool:
    """Return whether all results were read, and no event lasts."""
    return _is_read(server, database) and database.read("SELECT count(*) FROM events WHERE ended_at IS NULL") == [(0,)]


def _is_read(server: Server, database: SceneDatabase) -> bool:
    """Return whether the recorders' position is that of the newest result but those of the last second."""
    try:
        newest = cast(list[Any], server.client.xrevrange(Bus(server.client).shards[0].key("results"), count=1))
    except redis.RedisError:
        return False
    positions = database.read("SELECT last_id FROM positions")
    if not positions:
        return False
    return _milliseconds(positions[0][0]) >= _milliseconds(newest[0][0].decode()) - 1_000


def _milliseconds(entry_id: str) -> int:
    return int(entry_id.partition("-")[0])


def _rows(database: SceneDatabase, begin: float) -> list[Expected]:
    rows = database.read("SELECT rule, camera, started_at, ended_at FROM events")
    return sorted(Expected(one.rule, one.camera, one.started_at - begin, one.ended_at - begin) for one in rows)


def compare(faults: Sequence[Fault], expected: Sequence[Expected], found: Sequence[Expected]) -> Outcome:
    """Pair each expected event with the found one of its rule and camera that begins nearest."""
    left, pairs, lost = list(found), [], []
    for one in expected:
        same = [other for other in left if (other.rule, other.camera) == (one.rule, one.camera)]
        nearest = min(same, key=lambda other: abs(other.begin - one.begin) + abs(other.end - one.end), default=None)
        if nearest is None or abs(nearest.begin - one.begin) > 2 * MAX_DIFFERENCE_S:
            lost.append(one)
            continue
        left.remove(nearest)
        pairs.append((one, nearest))
    return Outcome(faults=faults, pairs=pairs, lost=lost, extra=left)
