"""Run the scene of ten minutes: `python -m bench.event_scene --recorders 3 --seed 1 --database postgresql`.

`python -m bench.event_scene --undisturbed 100` reads as many scenes, of seeds from 1, by one process without faults.
Exit status 1 if an event was lost or doubled, or a time differs by more than half a second from the table.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import click

from bench.event_scene.recorders import TookTooLong
from bench.event_scene.run import Outcome, Plan, compare, run
from bench.event_scene.scene import FULL_S, SHORT_S, results, table
from bench.event_scene.undisturbed import events_of

BEGIN = 1_700_000_000.0  # of an undisturbed scene, Unix seconds


@click.command()
@click.option("--recorders", default=3, show_default=True)
@click.option("--kills", default=5, show_default=True, help="Of each recorder, with SIGKILL.")
@click.option("--outage-s", default=30.0, show_default=True, help="How long the database is away.")
@click.option("--speed", default=6.0, show_default=True, help="Of the scene, of real time.")
@click.option("--short", is_flag=True, help="Only the first part of the scene.")
@click.option("--empty-redis", is_flag=True, help="Redis restarts without its memory.")
@click.option("--database", type=click.Choice(["sqlite", "postgresql"]), default="sqlite", show_default=True)
@click.option("--undisturbed", default=0, metavar="N", help="Only read N scenes, without recorders and faults.")
@click.option("--seed", default=1, show_default=True, help="Of jitter, missed faces and moments of faults.")
def main(
    recorders: int,
    kills: int,
    outage_s: float,
    speed: float,
    short: bool,
    empty_redis: bool,
    database: str,
    undisturbed: int,
    seed: int,
) -> None:
    """Run a scene, and print its events."""
    if undisturbed:
        broken = sum(not _read_undisturbed(one) for one in range(1, undisturbed + 1))
        sys.exit(1 if broken else 0)
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


def _read_undisturbed(seed: int) -> bool:
    """Read a scene, print how well its events are those of the table, and return whether all are."""
    expected = table(FULL_S)
    outcome = compare([], expected, events_of(results(FULL_S, BEGIN, seed), BEGIN))
    print(
        f"seed {seed}: found {len(outcome.pairs)} of {len(expected)}, doubled or not expected {len(outcome.extra)}, "
        f"worst difference {outcome.worst_s:.2f} s"
    )
    return outcome.held


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
