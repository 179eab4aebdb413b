"""Say what a run was and found, and what all runs did: as text for people, and as records."""

from __future__ import annotations

import collections
import statistics
from collections.abc import Sequence

from msgspec import Struct

from chaos.faults import KINDS, Fault, Kind, Mode, kinds_of


class FaultReport(Struct, frozen=True, kw_only=True):
    """A fault that hit something.

    recovery_s: from its end to the next labelled frame, from a primary's death to a new one of each camera that it
    served, or of every camera if it served none; None when none came.
    """

    kind: Kind
    at_s: float
    text: str
    recovery_s: float | None


class RunReport(Struct, frozen=True, kw_only=True):
    """One run.

    return_s: from the end of the last fault until all processes were live again.
    fresh_s: from then until a frame that was captured later was labelled; None in complete mode, or when none was.
    frames: by fate. broken: promises that broke, as sentences.
    """

    mode: Mode
    cluster: bool = False
    seed: int
    seconds: float
    faults: list[FaultReport]
    return_s: float | None
    fresh_s: float | None
    frames: dict[str, int]
    broken: list[str]


def fault_reports(faults: Sequence[Fault], recoveries: Sequence[float | None]) -> list[FaultReport]:
    """Return the reports of faults in the order in which they began."""
    reports = [
        FaultReport(kind=fault.kind, at_s=fault.at_s, text=fault.text, recovery_s=recovery)
        for fault, recovery in zip(faults, recoveries, strict=True)
    ]
    return sorted(reports, key=lambda report: report.at_s)


def run_text(run: RunReport) -> str:
    """Return one run in some lines."""
    where = " on a cluster" if run.cluster else ""
    lines = [f"{run.mode} seed {run.seed}{where}: {len(run.faults)} faults, {run.seconds:.0f} s"]
    for fault in run.faults:
        after = "no labels after it" if fault.recovery_s is None else f"labels after {_seconds(fault.recovery_s)}"
        lines.append(f"  at {fault.at_s:4.1f} s  {fault.text}: {after}")
    if run.return_s is not None:
        fresh = "" if run.fresh_s is None else f", a new frame labelled {_seconds(run.fresh_s)} later"
        lines.append(f"  all processes back {_seconds(run.return_s)} after the last fault{fresh}")
    lines.append(f"  frames: {_counts(run.frames)}")
    lines += [f"  BROKEN: {sentence}" for sentence in run.broken] or ["  every promise held"]
    return "\n".join(lines)


def summary_text(runs: Sequence[RunReport]) -> str:
    """Return all runs as a table, and how to repeat those that broke a promise."""
    modes = collections.Counter(run.mode for run in runs)
    kinds = [kind for kind in KINDS if any(kind in kinds_of(run.mode, cluster=run.cluster) for run in runs)]
    lines = [f"{len(runs)} runs ({_counts(modes)})", ""]
    lines.append(f"{'FAULT':<12} {'TIMES':>6} {'MEDIAN':>8} {'WORST':>8}  to the next labelled frame")
    for kind in kinds:
        found = [fault for run in runs for fault in run.faults if fault.kind == kind]
        times = [fault.recovery_s for fault in found if fault.recovery_s is not None]
        figures = (
            f"{_seconds(statistics.median(times)):>8} {_seconds(max(times)):>8}" if times else f"{'-':>8} {'-':>8}"
        )
        lines.append(f"{kind:<12} {len(found):>6} {figures}")
    if fresh := [run.fresh_s for run in runs if run.fresh_s is not None]:
        lines.append(
            f"a new frame labelled after the last return: median {_seconds(statistics.median(fresh))}, "
            f"worst {_seconds(max(fresh))}"
        )
    frames: collections.Counter[str] = collections.Counter()
    for run in runs:
        frames.update(run.frames)
    lines += ["", f"frames: {_counts(frames)}"]
    broken = [run for run in runs if run.broken]
    lines.append(f"PROMISES BROKEN in {len(broken)} runs:" if broken else "every promise held")
    lines += [
        f"  maskwatch chaos --runs 1 {'--cluster ' if run.cluster else ''}--mode {run.mode} --seed {run.seed}: "
        f"{'; '.join(run.broken)}"
        for run in broken
    ]
    return "\n".join(lines)


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f} s"


def _counts(counts: dict[str, int] | collections.Counter[str] | collections.Counter[Mode]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "none"
