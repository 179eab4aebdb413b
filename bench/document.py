"""Write docs/performance.md and its plots: measurements in, a page for people out.

`python -m bench.document` writes them again from bench/out/bench.json.
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any, cast

import matplotlib as mpl
import matplotlib.pyplot as plt
import msgspec
from matplotlib.axes import Axes

from bench import batches, classifiers, complete_mode, costs, live, load
from bench.batches import BatchRun
from bench.classifier_speed import BATCHES
from bench.classifiers import ClassifiersRun
from bench.clip import OUT, WIDTH
from bench.complete_mode import CompleteRun
from bench.costs import CostRun
from bench.live import LiveRun
from bench.load import LoadRun

RESULTS = OUT / "bench.json"
DOCS = Path(__file__).parent.parent / "docs"
COLOUR = "#56b4e9"
PAGE = """# Performance

Written by `make bench`, which takes an hour; do not edit. `python -m bench SECTION` measures one part again. The
machine: {machine}.

## Files

`python -m bench files_few_faces` and `python -m bench files`. Two videos of 1280x720 and two minutes, panning over
photographs. Whole commands with their start-up, in turn, medians of {rounds}. The loops run the same parts (decoding,
detector, crops, classifier, JSON lines), one frame after the other. The bound is what {cores} cores could do if nothing
but the parts took time: {cores} times the loop with one thread.

{files_few_faces}

{files}

![frames/s of the commands](performance-files.png)

What `label` does not reach of the bound is starting processes, passing pixels and records between them, and moments at
which a process waits for another.
{peer}
## Live cameras

`python -m bench live`. Cameras of 1280x720 at 20 frames/s, each a process that decodes a video, on one machine with all
workers: one of each kind for one camera, as many of each as cores for more. Times are from capture to labelled.

{live}

Processor time of a labelled frame, by process, and bytes that Redis receives and sends for it. Pixels are in shared
memory; Redis passes records, and the crops of faces that are classified.

{live_costs}

![processor time of a frame, by process](performance-live.png)

## More than the machine can do

`python -m bench load`. Eight cameras that repeat decoded frames of the same video, with as many workers of each kind as
cores. Labelled are frames within their deadline of a second; what is offered beyond that ends as `stale`. Their pixels
are shared before, since cameras beyond what a machine can label are on other machines; publishing a record takes
processor time all the same. Medians of 20 rounds of two seconds a load, in each of which the loads come in another
order.

{load}

![labelled against offered frames](performance-load.png)

## More classifiers

`python -m bench classifiers`. Classifiers that wait 40 ms for each frame, as if on a GPU of their own, so that the
queue is all that limits them; the queue's own processor time is in [scale.md](scale.md).

{classifiers}

## Batches

`python -m bench batches`. The cameras of "More than the machine can do", with other settings of the classifiers:
labelled frames/s, and the median from capture to labelled. 0 for the wait takes what is there at once.

{batches}

## Picture size and faces

`python -m bench costs`. Videos of 40 seconds, whole commands, each run once.

{costs}

![frames/s against faces a frame](performance-costs.png)

## The classifier

`python -m bench models`, or `python -m bench.classifier_speed --model models/default`. Milliseconds a face on one
thread, by the number of faces in a batch. {gpu}

{models}

## What helped, and what did not

- Pixels in shared memory instead of JPEG through Redis ([pixels.md](pixels.md)); `--no-shared-memory` shows the
  difference.
- Workers that are forked instead of started: their libraries are imported once ([decisions.md](decisions.md)).
- Detectors that take up to 8 frames of a file at once: 3 %.
- One heap a process instead of one a thread needs less memory, and takes as long.
- Crops of files that the classifier cuts itself, instead of sending them through Redis.
- As many classifiers as detectors: with `--classifiers 1`, one cannot keep up with two detectors when there are 7 faces
  in a frame, and a core is idle for part of the time.
- Faces that keep labels: of a live camera's faces a fifth is classified ([labels.md](labels.md)). In the videos above,
  which pan quickly, two thirds of the faces count as changed.
- Larger batches did not help on a CPU: a face takes as long with `--max-batch 64`, which needs more memory.
- Three workers of each kind on two cores did not help.
- With too many frames, each one that is replaced costs its camera and Redis time, and interrupts workers. Publishing
  without waiting for Redis' answer, holding every second frame back until the next, and fewer commands in the scripts
  changed that by a hundredth at most.
- Cameras that do not interrupt workers when they wake up (SCHED_BATCH): with four cameras a labelled frame takes 8 %
  less processor time, but is labelled later, in the median after 42 instead of 29 ms.
"""


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """All measurements of `make bench`. models: of each model and runtime, milliseconds a face for each of BATCHES."""

    machine: str
    cores: int
    files: CompleteRun
    files_few_faces: CompleteRun
    live: list[LiveRun]
    load: list[LoadRun]
    classifiers: list[ClassifiersRun]
    batches: list[BatchRun]
    costs: list[CostRun]
    models: dict[str, dict[str, list[float]]]


def read_results() -> dict[str, Any]:
    """Return what was measured so far, by section; empty at first."""
    return cast(dict[str, Any], msgspec.json.decode(RESULTS.read_bytes())) if RESULTS.exists() else {}


def write_document(measured: Measured) -> None:
    """Write the page and its plots."""
    mpl.use("agg")
    _plot("files", lambda axes: _draw_files(axes, measured))
    _plot("live", lambda axes: _draw_live(axes, measured.live))
    _plot("load", lambda axes: _draw_load(axes, measured.load))
    _plot("costs", lambda axes: _draw_costs(axes, measured.costs))
    page = PAGE.format(
        machine=measured.machine,
        cores=measured.cores,
        rounds=measured.files.rounds,
        files_few_faces=_files(measured.files_few_faces, measured.cores),
        files=_files(measured.files, measured.cores),
        peer=_peer(measured),
        live=live.table(measured.live),
        live_costs=live.cost_table(measured.live),
        load=load.table(measured.load),
        classifiers=classifiers.table(measured.classifiers),
        batches=batches.table(measured.batches),
        costs=costs.table(measured.costs),
        models=_models(measured.models),
        gpu="" if any("cuda" in found for found in measured.models.values()) else "No GPU was there to be measured.",
    )
    (DOCS / "performance.md").write_text(page)


def _files(run: CompleteRun, cores: int) -> str:
    of_bound = run.rates[complete_mode.LABEL] / (cores * run.rates[complete_mode.LOOP])
    same = "the same" if run.same_lines else "NOT the same"
    return (
        f"{run.frames} frames with {run.faces} faces, {run.faces / run.frames:.1f} a frame. `label` reaches "
        f"{of_bound:.0%} of the bound.\nIts lines and those of the loop are {same}.\n\n{complete_mode.table(run)}"
    )


def _peer(measured: Measured) -> str:
    runs = (measured.files_few_faces, measured.files)
    if any(complete_mode.PEER not in run.rates for run in runs):
        return ""
    found = " and ".join(f"{run.peer_faces} instead of {run.faces}" for run in runs)
    text = (
        "The peer is the released detector of AIZOO, which finds faces and their masks with one network; its time is "
        f"that of its loop alone, because importing TensorFlow takes seconds. It finds {found} faces."
    )
    return f"\n{textwrap.fill(text, 120)}\n"


def _models(models: dict[str, dict[str, list[float]]]) -> str:
    rows = ["| model | runtime |" + "".join(f" {batch} |" for batch in BATCHES), "|---|---|" + "---|" * len(BATCHES)]
    for model, runtimes in models.items():
        for runtime, times in runtimes.items():
            rows.append(f"| {model} | {runtime} |" + "".join(f" {ms:.2f} |" for ms in times))
    return "\n".join(rows)


def _plot(name: str, draw: Any) -> None:
    figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
    draw(axes)
    figure.savefig(DOCS / f"performance-{name}.png", dpi=120)
    plt.close(figure)


def _draw_files(axes: Axes, measured: Measured) -> None:
    names = list(measured.files.rates)[::-1]
    for offset, run, colour in ((0.2, measured.files_few_faces, COLOUR), (-0.2, measured.files, "#e69f00")):
        places = [place + offset for place in range(len(names))]
        label = f"{run.faces / run.frames:.0f} faces a frame"
        axes.barh(places, [run.rates[name] for name in names], height=0.4, color=colour, label=label)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("frames/s")
    axes.legend()


def _draw_live(axes: Axes, runs: list[LiveRun]) -> None:
    bottom = [0.0] * len(runs)
    names = [f"{run.cameras} camera{'s' if run.cameras > 1 else ''}" for run in runs]
    for role in ("camera", "detector", "classifier", "redis"):
        heights = [run.cpu_ms.get(role, 0.0) for run in runs]
        axes.bar(names, heights, bottom=bottom, label=role)
        bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
    axes.set_ylabel("ms of processor time a labelled frame")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))


def _draw_load(axes: Axes, loads: list[LoadRun]) -> None:
    offered = [one.offered for one in loads]
    axes.plot(offered, [one.labelled for one in loads], "o-", label="labelled")
    axes.plot(offered[:4], offered[:4], ":", color="grey", label="offered")
    axes.set_xlabel("offered, frames/s")
    axes.set_ylabel("labelled, frames/s")
    axes.set_ylim(bottom=0)
    axes.legend()


def _draw_costs(axes: Axes, runs: list[CostRun]) -> None:
    chosen = sorted((run for run in runs if run.width == WIDTH), key=lambda run: run.faces)
    faces = [run.faces for run in chosen]
    axes.plot(faces, [run.label for run in chosen], "o-", label="maskwatch label")
    axes.plot(faces, [run.loop for run in chosen], "o-", label="plain loop, one thread")
    axes.set_xlabel("faces found in a frame of 1280x720")
    axes.set_ylabel("frames/s")
    axes.set_ylim(bottom=0)
    axes.legend()


if __name__ == "__main__":
    write_document(msgspec.json.decode(RESULTS.read_bytes(), type=Measured))
