"""Run the scene of ten minutes: `python -m bench.event_scene --recorders 3 --seed 1 --database postgresql`.

Exit status 1 if an event was lost or doubled, or a time differs by more than half a second from the table.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import click

from bench.event_scene.recorders import TookTooLong
from bench.event_scene.run import Outcome, Plan, run
from bench.event_scene.scene import FULL_S, SHORT_S


@click.command()
@click.option("--recorders", default=3, show_default=True)
@click.option("--kills", default=5, show_default=True, help="Of each recorder, with SIGKILL.")
@click.option("--outage-s", default=30.0, show_default=True, help="How long the database is away.")
@click.option("--speed", default=6.0, show_default=True, help="Of the scene, of real time.")
@click.option("--short", is_flag=True, help="Only the first part of the scene.")
@click.option("--empty-redis", is_flag=True, help="Redis restarts without its memory.")
@click.option("--database", type=click.Choice(["sqlite", "postgresql"]), default="sqlite", show_default=True)
@click.option("--seed", default=1, show_default=True, help="Of jitter, missed faces and moments of faults.")
def main(
    recorders: int,
    kills: int,
    outage_s: float,
    speed: float,
    short: bool,
    empty_redis: bool,
    database: str,
    seed: int,
) -> None:
    """Run a scene, and print its events."""
    plan = Plan(
        seconds=SHORT_S if short else FULL_S,
        speed=speed,
        recorders=recorders,
        kills=kills,
        outage_s=outage_s,
        seed=seed,
        database=database,
        empties_redis=empty_redis,
    )
    with tempfile.TemporaryDirectory(prefix="mw-") as folder:
        try:
            outcome = run(plan, Path(folder))
        except FileNotFoundError as error:
            sys.exit(f"event_scene: {error}")
        except TookTooLong as error:
            sys.exit(f"event_scene: {error}\n{Path(folder, 'recorders.log').read_text()[-2000:]}")
    print_outcome(outcome)
    sys.exit(0 if outcome.held else 1)


def print_outcome(outcome: Outcome) -> None:
    """Print the faults, the table beside what was recorded, and the sums."""
    for fault in outcome.faults:
        print(f"{fault.at:7.1f}  {fault.kind}{f' {fault.recorder + 1}' if fault.kind == 'kill' else ''}")
    for one, other in outcome.pairs:
        print(
            f"{one.rule:<9} {one.camera:<5} {one.begin:7.1f} - {one.end:6.1f}   {other.begin:7.2f} - {other.end:6.2f}"
        )
    for name, events in (("LOST", outcome.lost), ("EXTRA", outcome.extra)):
        for one in events:
            print(f"{one.rule:<9} {one.camera:<5} {one.begin:7.1f} - {one.end:6.1f}   {name}")
    expected = len(outcome.pairs) + len(outcome.lost)
    print(
        f"expected {expected}, found {len(outcome.pairs)}, lost {len(outcome.lost)}, "
        f"doubled or not expected {len(outcome.extra)}, worst difference {outcome.worst_s:.2f} s"
    )


if __name__ == "__main__":
    main()
