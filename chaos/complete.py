"""A run in complete mode: `label` labels a clip while the pipeline breaks; every frame must have its line."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

from chaos.clip import FRAMES
from chaos.faults import LABEL, Fault, draw_faults
from chaos.injector import Injector
from chaos.leftovers import leftovers
from chaos.lines import Line, compare_lines, count_lines, read_lines
from chaos.observer import is_file
from chaos.pipeline import Pipeline, running_pipeline
from chaos.report import RunReport
from pipeline.bus.status import missing_workers

FIRST_LINES_TIMEOUT_S = 30.0
FINISH_TIMEOUT_S = 60.0  # after the last fault
TIDY_TIMEOUT_S = 15.0  # until the workers have ended what a killed `label` has left
MAX_STARTS = 3  # of `label` that end before their first line, after the last fault
KILLED = -9


class Labelling:
    """`label`, which is resumed whenever it was killed; call `step()` until `status` is not None.

    status: how it ended at last. It may end with an error before its first line only while faults last.
    """

    def __init__(self, pipeline: Pipeline, clip: Path, lines: Path) -> None:
        self.status: int | None = None
        self._pipeline = pipeline
        self._arguments = (LABEL, str(clip), "--json", str(lines))
        self._lines = lines
        self._lines_before = 0
        self._failures = 0
        pipeline.processes.start(LABEL, *self._arguments, restarted=False)

    def step(self, *, faults_over: bool) -> None:
        """Resume it if it was killed and the workers are live; note if it has ended."""
        status = self._pipeline.processes.status(LABEL)
        if status is None or self.status is not None:
            return
        started = count_lines(self._lines) > self._lines_before
        if status == 0 or (status != KILLED and started):
            self.status = status
        elif not missing_workers(self._pipeline.server.client):
            if status != KILLED and faults_over:
                self._failures += 1
            if self._failures >= MAX_STARTS:
                self.status = status
                return
            self._lines_before = count_lines(self._lines)
            self._pipeline.processes.start(LABEL, *self._arguments, "--resume", restarted=False)


def quiet_lines(folder: Path, clip: Path) -> list[Line]:
    """Return the lines of a run without faults."""
    report = run_complete(folder, 0, clip, quiet=None, faults=[])
    lines = read_lines(folder / "lines.jsonl")
    if report.broken or len(lines) != FRAMES:
        raise QuietRunFailed(f"the quiet run failed: {'; '.join(report.broken)}; see the logs in {folder}")
    return lines


class QuietRunFailed(Exception):
    """A run without faults broke a promise."""


def run_complete(
    folder: Path,
    seed: int,
    clip: Path,
    quiet: list[Line] | None,
    faults: list[Fault] | None = None,
    *,
    cluster: bool = False,
) -> RunReport:
    """Label the clip while faults happen.

    Args:
        folder: for logs and lines.
        quiet: the lines of a run without faults; None to compare with nothing.
        faults: None for those of the seed.
        cluster: on a cluster in place of one Redis.
    """
    began = time.monotonic()
    lines = folder / "lines.jsonl"
    with running_pipeline(folder, seed, {}, cluster=cluster) as pipeline:
        labelling = Labelling(pipeline, clip, lines)
        pipeline.wait_until(lambda: count_lines(lines) > 0, FIRST_LINES_TIMEOUT_S)
        injector = Injector(pipeline, draw_faults(seed, "complete", cluster=cluster) if faults is None else faults)
        _label_to_the_end(pipeline, labelling, injector)
        broken = _broken_ends(pipeline, labelling, lines)
        if quiet is not None:
            broken += compare_lines(quiet, read_lines(lines) if lines.exists() else [])
        observer = pipeline.observer
        return RunReport(
            mode="complete",
            cluster=cluster,
            seed=seed,
            seconds=time.monotonic() - began,
            faults=injector.reports(),
            return_s=None,
            fresh_s=None,
            frames=observer.fates(),
            broken=broken + observer.broken,
        )


def _label_to_the_end(pipeline: Pipeline, labelling: Labelling, injector: Injector) -> None:
    def ended() -> bool:
        injector.step()
        labelling.step(faults_over=injector.done)
        return labelling.status is not None

    pipeline.wait_until(lambda: ended() or injector.done, FINISH_TIMEOUT_S)
    pipeline.wait_until(ended, FINISH_TIMEOUT_S)
    injector.stop()
    pipeline.wait_until(partial(_is_over, injector), FINISH_TIMEOUT_S)


def _is_over(injector: Injector) -> bool:
    injector.step()
    return injector.done


def _broken_ends(pipeline: Pipeline, labelling: Labelling, lines: Path) -> list[str]:
    if labelling.status is None:
        return [f"label has not ended {FINISH_TIMEOUT_S:.0f} s after the last fault, with {count_lines(lines)} lines"]
    broken = [f"label ended with status {labelling.status}"] if labelling.status else []
    if not pipeline.wait_until(lambda: pipeline.observer.look() and not leftovers(pipeline.bus), TIDY_TIMEOUT_S):
        broken.append(f"in the end Redis still holds {', '.join(leftovers(pipeline.bus))}")
    ledgers = {name: ledger for name, ledger in pipeline.observer.ledgers().items() if is_file(name)}
    broken += [f"in the end the ledger of {name} does not balance" for name, one in ledgers.items() if not one.balances]
    return broken
