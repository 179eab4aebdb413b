"""Record events: results and camera states in, rows of the database and deliveries out.

Several recorders may run: one is active, the others stand by until its lease ends. What it finds is written together
with what it continues from, so a recorder that takes over begins exactly where the last one has written; docs/events.md
has the table. A Redis or a database that is away is waited for, and said in the heartbeat: results are kept for 60 s.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

from events.camera_watch import CameraState, CameraWatch
from events.database import DatabaseAway, open_engine
from events.deliverer import Deliverer
from events.event_types import Change, EventEvidence, Phase
from events.open_receivers import Surroundings
from events.plausibility import is_plausible
from events.rule_file import load_rules
from events.rule_source import RuleSource
from events.rule_types import RuleSet
from events.state_board import StateBoard, camera_status
from events.store import LeaseLost, Progress, Snapshot, Store
from events.thumbnailer import Thumbnailer
from events.tidier import Tidier
from events.wording import Wording
from pipeline.bus.forgetting import read_forgotten
from pipeline.bus.messages import FILE_PREFIX, FrameResult
from pipeline.bus.result_consumer import MAX_RESULTS, ResultConsumer
from pipeline.bus.status import read_cameras
from pipeline.runtime import metrics
from pipeline.runtime.settings import Settings
from pipeline.runtime.worker_context import WorkerContext, worker_context

log = logging.getLogger(__name__)

STANDBY_INTERVAL_S = 1.0  # how often a recorder that stands by tries to take over
RETRY_INTERVAL_S = 0.5  # ... and one whose database is away asks again
WRITE_INTERVAL_S = 1.0  # longest time between two writes, which renew the lease; events are written at once
EVIDENCE_INTERVAL_S = 5.0  # between two writes of how an event that is open goes
FOLLOW_INTERVAL_S = 0.1  # between two reads: results of many cameras come together
ACTIVE = "active"
STANDS_BY = "stands by: another recorder is active"


def main(settings: Settings) -> int:
    """Run one recorder until it is asked to stop.

    Raises:
        BadRules, BadDatabase: it cannot start.
    """
    file_rules = load_rules(Path(settings.rules)) if settings.rules else None
    engine = open_engine(settings.database)
    with worker_context("recorder", settings) as context:
        blurred = settings.thumbnails == "blurred"
        thumbnailer = None if settings.thumbnails == "none" else Thumbnailer(context, blurred=blurred)
        source, store = RuleSource(engine, file_rules), Store(engine, context.id, [])
        deliverer = Deliverer(engine, has_lease=store.has_lease)
        recorder = Recorder(context, source, store, deliverer, StateBoard(), thumbnailer)
        tidier = Tidier(context, settings, engine, deliverer.is_active)
        tidier.start()
        while context.should_run():
            recorder.step()
        tidier.stop()
        recorder.end()
    return 0


class Recorder:
    """One recorder, active or standing by."""

    def __init__(
        self,
        context: WorkerContext,
        source: RuleSource,
        store: Store,
        deliverer: Deliverer,
        board: StateBoard,
        thumbnailer: Thumbnailer | None,
    ) -> None:
        self._context = context
        self._thumbnailer = thumbnailer
        self._source = source
        self._store = store
        self._deliverer = deliverer
        self._board = board
        self._session: _Session | None = None

    def step(self) -> None:
        """Record what has come since the last step, by rules that may be new, or try to take over."""
        try:
            with self._context.reconnecting():
                if self._session is None:
                    self._take_over()
                    return
                self._source.refresh()
                if self._session.rules is not self._source.rules:
                    self._use(self._source.rules)
                    self._session.use(self._source.rules)
                self._session.step()
        except DatabaseAway as error:
            self._lose(f"its database is away: {error}; is --database right?")
            self._context.wait(RETRY_INTERVAL_S)
        except LeaseLost:
            self._lose(STANDS_BY)

    def end(self) -> None:
        """Write what is left, and let another recorder take over at once."""
        self._deliverer.stop()
        if self._session is None:
            return
        try:
            with self._context.reconnecting():
                self._session.write()
                self._store.let_go()
        except (DatabaseAway, LeaseLost):
            log.info("%s leaves its last second of results to the next recorder", self._context.id)
        self._session.close()

    def _take_over(self) -> None:
        snapshot = self._store.take_over(self._context.clock.now())
        if snapshot is None:
            self._report(STANDS_BY)
            self._context.wait(STANDBY_INTERVAL_S)
            return
        self._source.take_over()
        self._use(self._source.rules)
        self._session = _Session(
            self._context, self._source.rules, self._store, snapshot, self._board, self._thumbnailer
        )
        self._session.write()  # so that there is a position to continue from before anybody counts on it
        self._report(ACTIVE)
        self._deliverer.is_active.set()

    def _use(self, rules: RuleSet) -> None:
        """Deliver to the receivers of these rules."""
        wording = Wording(timezone=rules.timezone, public_url=rules.public_url)
        for rule, phase in itertools.product(rules.rules, get_args(Phase)):
            metrics.events.labels(rule.__struct_config__.tag, phase)  # 0 until there is one
        self._store.use(rules.receivers)
        self._deliverer.use(rules.receivers, Surroundings(wording=wording, board=self._board))

    def _lose(self, state: str) -> None:
        """Forget what was not written: it follows again from what was."""
        self._deliverer.is_active.clear()
        if self._session:
            self._session.close()
        self._session = None
        self._report(state)

    def _report(self, state: str) -> None:
        if state != self._context.state:
            level = logging.INFO if state in (ACTIVE, STANDS_BY) else logging.WARNING
            log.log(level, "%s: %s", self._context.id, state)
        metrics.recorder_active.set(state == ACTIVE)
        self._context.state = state


class _Session:
    """The time in which a recorder is active. rules: those that its watches use."""

    def __init__(
        self,
        context: WorkerContext,
        rules: RuleSet,
        store: Store,
        snapshot: Snapshot,
        board: StateBoard,
        thumbnailer: Thumbnailer | None,
    ) -> None:
        self._context = context
        self._board = board
        self._thumbnailer = thumbnailer
        self.rules = rules
        self._store = store
        self._watches = {name: CameraWatch(name, rules, state) for name, state in snapshot.states.items()}
        self._changed: set[str] = set()  # cameras whose states differ from those that were written
        self._changes: list[Change] = []
        self._forgotten: set[str] = set()  # cameras that are out of use since the last write
        for watch in self._watches.values():
            self._note(watch, watch.close_removed())
        self._consumer = self._follow(snapshot.positions)
        self._write_at = 0.0  # on the monotonic clock
        self._evidence_at = context.clock.monotonic() + EVIDENCE_INTERVAL_S

    def step(self) -> None:
        """Take the results that are there; write when something happened, or a second has passed."""
        if self._consumer.shards is not self._context.bus.shards:
            self.write()
            positions = self._consumer.positions
            self._consumer.close()
            self._consumer = self._follow(positions)
        results = self._consumer.read()
        with self._context.busy():
            for result in results:
                self._add(result)
            is_due = self._context.clock.monotonic() >= self._write_at
            if is_due:
                self._poll(caught_up=len(results) < MAX_RESULTS)
            if is_due or self._changes:
                self.write()

    def use(self, rules: RuleSet) -> None:
        """Go on with other rules; what is remembered of those that stay is kept."""
        self.write()
        self.rules = rules
        self._watches = {name: CameraWatch(name, rules, watch.state) for name, watch in self._watches.items()}
        for watch in self._watches.values():
            self._note(watch, watch.close_removed())
        log.info("%s uses %d rules that were set over the API", self._context.id, len(rules.rules))

    def write(self) -> None:
        """Write what was found since the last time."""
        at = self._context.clock.now()  # before counts are taken: Redis may be away
        progress = Progress(
            positions=self._consumer.positions,
            states={name: self._watches[name].state for name in self._changed - self._forgotten},
            forgotten=self._forgotten,
            changes=self._changes,
            counts={name: self._watches[name].counts.take() for name in self._changed},
            evidence=self._due_evidence(),
            thumbnails=self._thumbnailer.take() if self._thumbnailer else {},
        )
        self._store.write(progress, at)
        for name, counts in progress.counts.items():
            self._board.add_counts(name, counts)
        for change in self._changes:
            metrics.events.labels(change.event.kind, change.phase).inc()
        for name in self._forgotten:
            del self._watches[name]
        self._changes, self._changed, self._forgotten = [], set(), set()
        self._write_at = self._context.clock.monotonic() + WRITE_INTERVAL_S

    def close(self) -> None:
        """End the threads that follow results."""
        self._consumer.close()

    def _follow(self, positions: Mapping[str, bytes]) -> ResultConsumer:
        return ResultConsumer(self._context.bus.shards, interval_s=FOLLOW_INTERVAL_S, positions=positions)

    def _add(self, result: FrameResult) -> None:
        if result.camera.startswith(FILE_PREFIX) or not is_plausible(result):
            return
        watch = self._watch(result.camera)
        changes = watch.add(result)
        self._note(watch, changes)
        if self._thumbnailer and watch.is_at(result):
            self._thumbnailer.add(watch, result, changes)
        self._context.count("results")

    def _due_evidence(self) -> dict[str, EventEvidence]:
        """Return what open events are built on, if it was not written for a while."""
        now, found = self._context.clock.monotonic(), dict[str, EventEvidence]()
        if now >= self._evidence_at:
            self._evidence_at = now + EVIDENCE_INTERVAL_S
            for watch in self._watches.values():
                found |= watch.open_evidence()
        return found

    def _poll(self, *, caught_up: bool) -> None:
        cameras = {camera.name: camera for camera in read_cameras(self._context.bus)}
        at = self._context.clock.now()
        # a camera is forgotten when its last results were read
        forgotten_at = read_forgotten(self._context.bus) if caught_up else {}
        forgotten = forgotten_at.keys() - cameras.keys()
        for name in forgotten & self._watches.keys():
            self._note(self._watches[name], self._watches[name].forget(forgotten_at[name]))
            self._forgotten.add(name)
        shown = []
        for name in {*self._watches, *cameras} - self._forgotten:
            camera, watch = cameras.get(name), self._watch(name)
            state = camera.state if camera else "offline"  # Redis has lost its memory, and the camera does not live
            self._note(watch, watch.poll(state, camera.newest_at if camera else None, at, caught_up=caught_up))
            shown.append(camera_status(name, state, self.rules, watch.state))
        gone = [camera_status(name, "offline", self.rules, CameraState()) for name in forgotten]
        self._board.show(shown, at, gone)

    def _watch(self, camera: str) -> CameraWatch:
        if camera not in self._watches:
            self._watches[camera] = CameraWatch(camera, self.rules)
        return self._watches[camera]

    def _note(self, watch: CameraWatch, changes: Sequence[Change]) -> None:
        self._changed.add(watch.camera)
        self._changes += changes
