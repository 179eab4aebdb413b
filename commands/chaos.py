"""`maskwatch chaos`: break a real pipeline on this machine at random, and check its promises."""

from __future__ import annotations

import secrets
import sys
from pathlib import Path
from typing import Any

import click

from commands.errors import fail
from commands.shared import run_process
from pipeline.runtime.logs import configure_logging, is_json
from pipeline.runtime.settings import setting_options

DEFAULT_RUNS = 5
MAX_SEED = 1_000_000


@click.command()
@click.option("--minutes", type=click.FloatRange(min=0), help="Begin no run after this time.")
@click.option(
    "--runs", type=click.IntRange(min=1), help=f"Runs of each mode; default: {DEFAULT_RUNS} without --minutes."
)
@click.option("--mode", type=click.Choice(["complete", "live", "both"]), default="both", show_default=True)
@click.option("--cluster", is_flag=True, help="On a cluster, of which a primary dies in each run.")
@click.option("--seed", type=click.IntRange(min=0), help="Seed of the first run; each further one is one higher.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write all runs as JSON.")
@click.option("--logs", type=click.Path(path_type=Path), help="Keep the logs of runs that break a promise here.")
def chaos(
    minutes: float | None,
    runs: int | None,
    mode: str,
    cluster: bool,
    seed: int | None,
    json_path: Path | None,
    logs: Path | None,
) -> None:
    """Break a pipeline of real processes at random, and check that no frame is lost.

    A run kills, suspends and stops processes, kills and empties Redis, cuts its connections, fills its memory and sets
    its clock. It needs Linux. Exit status 1 if a promise broke; the same seed and mode repeat the faults of a run.
    """
    from chaos.complete import QuietRunFailed
    from chaos.faults import Mode
    from chaos.pipeline import NotStarted
    from chaos.soak import soak

    if not sys.platform.startswith("linux"):
        fail("chaos needs Linux: it finds processes in /proc", 2)
    configure_logging(as_json=is_json())
    modes: list[Mode] = ["complete", "live"] if mode == "both" else [mode]  # type: ignore[list-item]
    limits: dict[str, Any] = {"minutes": minutes, "runs": runs if runs or minutes else DEFAULT_RUNS, "cluster": cluster}
    first = secrets.randbelow(MAX_SEED) if seed is None else seed
    run_process(lambda: soak(modes, first, **limits, json_path=json_path, logs=logs), NotStarted, QuietRunFailed)


@click.command("chaos-janitor", hidden=True)
@click.argument("folder", type=click.Path(path_type=Path))
@setting_options("parent_fd")
def chaos_janitor(folder: Path, parent_fd: int) -> None:
    """Kill what `chaos` leaves when it ends, and remove its folder."""
    from chaos.janitor import wait_and_tidy_up

    sys.exit(wait_and_tidy_up(folder, parent_fd))
