"""Show training jobs as text: a table of all, or the details of one."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import msgspec

from trainer.jobs.job_list import TrainingRun


def jobs_table(found: list[TrainingRun]) -> str:
    """Return a table with a line for each job."""
    lines = [f"{'JOB':<10} {'STATE':<10} {'ARCH':<9} {'EPOCH':>9} {'LOSS':>7} {'ACCURACY':>8} {'LEFT':>8}  DATA"]
    for run in found:
        loss = run.loss if run.validation_loss is None else run.validation_loss
        accuracy = run.accuracy if run.validation_accuracy is None else run.validation_accuracy
        figures = f"{_epoch(run):>9} {_number(loss, '.3f'):>7} {_number(accuracy, '.1%'):>8}"
        left = _duration(run.seconds_left) if run.state == "running" else "-"
        about = f"failed: {run.error}" if run.error else run.waiting or _data(run)
        lines.append(
            f"{run.id:<10} {run.state:<10} {run.settings.arch if run.settings else '-':<9} {figures} {left:>8}  {about}"
        )
    return "\n".join(lines)


def job_details(run: TrainingRun) -> str:
    """Return all fields of a job, a line each."""
    settings = msgspec.to_builtins(run.settings) if run.settings else {}
    rows: list[tuple[str, object]] = [
        ("job", run.id),
        ("state", "lost: its trainer is gone, and the next one takes it over" if run.state == "lost" else run.state),
        ("why", run.waiting),
        ("error", run.error),
        ("folder", run.out),
        ("version", run.version),
        ("registered at", run.registered_at),
        ("epoch", _epoch(run)),
        ("step", f"{run.step} of {run.steps}" if run.step is not None else None),
        ("loss", _number(run.loss, ".4f")),
        ("accuracy", _number(run.accuracy, ".2%")),
        ("validation loss", _number(run.validation_loss, ".4f")),
        ("validation accuracy", _number(run.validation_accuracy, ".2%")),
        ("average precision", _number(run.average_precision, ".3f")),
        ("time left", _duration(run.seconds_left) if run.state == "running" else None),
        ("reported at", _time(run.updated_at)),
        ("enqueued", _time(run.enqueued_at)),
        ("started", _time(run.started_at)),
        ("ended", _time(run.ended_at)),
        ("trainer", run.trainer),
        ("attempt", run.attempt or None),
        *(("interrupted", why) for why in run.interrupted),
        *((name.replace("_", " "), _setting(value)) for name, value in settings.items() if name != "out"),
    ]
    return "\n".join(f"{name:<20} {value}" for name, value in rows if value not in (None, "-"))


def _epoch(run: TrainingRun) -> str:
    return "-" if run.epoch is None else f"{run.epoch}/{run.epochs}"


def _data(run: TrainingRun) -> str:
    return ", ".join("/".join(Path(one).parts[-2:]) for one in (run.settings.datasets if run.settings else ())) or "-"


def _setting(value: object) -> object:
    return ", ".join(map(str, value)) or None if isinstance(value, list | tuple) else value


def _number(value: float | None, kind: str) -> str:
    return "-" if value is None else format(value, kind)


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    minutes = round(seconds / 60)
    return f"{seconds:.0f} s" if seconds < 90 else f"{minutes} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def _time(at: float | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at).astimezone().isoformat(" ", "seconds")
