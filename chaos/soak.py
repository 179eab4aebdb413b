"""Run seed after seed, print what each run found, and in the end a table of all."""

from __future__ import annotations

import itertools
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import click
import msgspec

from chaos.clip import render_clip
from chaos.complete import quiet_lines, run_complete
from chaos.faults import Mode
from chaos.janitor import temporary_folder
from chaos.lines import Line
from chaos.live import run_live
from chaos.report import RunReport, run_text, summary_text
from chaos.server import faketime

NO_FAKETIME = "Redis' clock is not set in these runs: the package libfaketime is not installed"


def soak(
    modes: Sequence[Mode],
    first_seed: int,
    *,
    cluster: bool,
    runs: int | None,
    minutes: float | None,
    json_path: Path | None,
    logs: Path | None,
) -> int:
    """Run seeds in each mode until there were enough, or the time is over; return the exit status.

    Args:
        cluster: on a cluster in place of one Redis.
        runs: of each mode; None for no limit.
        minutes: after which no run begins; None for no limit.
        logs: a folder that gets the logs of runs that broke a promise; None to remove them.
    """
    ends = float("inf") if minutes is None else time.monotonic() + 60 * minutes
    reports: list[RunReport] = []
    if faketime() is None:
        click.echo(NO_FAKETIME)
    with temporary_folder() as folder:
        quiet: list[Line] = []
        clip = folder / "clip.mp4"
        if "complete" in modes:
            render_clip(clip)
            quiet = quiet_lines(_new_folder(folder, "quiet"), clip)
        for number in itertools.count() if runs is None else range(runs):
            for mode in modes:
                if time.monotonic() > ends:
                    break
                seed = first_seed + number
                own = _new_folder(folder, f"{mode}-{seed}")
                report = (
                    run_live(own, seed, cluster=cluster)
                    if mode == "live"
                    else run_complete(own, seed, clip, quiet, cluster=cluster)
                )
                reports.append(report)
                click.echo(run_text(report))
                if report.broken and logs:
                    shutil.copytree(own, logs / own.name, dirs_exist_ok=True)
                shutil.rmtree(own)
            if time.monotonic() > ends:
                break
    click.echo("\n" + summary_text(reports))
    if json_path is not None:
        json_path.write_bytes(msgspec.json.encode(reports))
    return 1 if any(report.broken for report in reports) else 0


def _new_folder(folder: Path, name: str) -> Path:
    new = folder / name
    new.mkdir()
    return new
