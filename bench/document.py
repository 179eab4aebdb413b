"""Write docs/performance.md and its plots: measurements in, a page for people out.

`python -m bench.document` writes them again from bench/out/bench.json.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import msgspec

from bench import complete_mode, live, load
from bench.clip import OUT
from bench.complete_mode import CompleteRun
from bench.live import LiveRun
from bench.load import LoadRun


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """All measurements of `make bench`."""

    machine: str
    cores: int
    complete: CompleteRun
    live: list[LiveRun]
    load: list[LoadRun]


DOCS = Path(__file__).parent.parent / "docs"
PAGE = """# Performance

Written by `make bench`, which takes 20 minutes; do not edit. The machine: {machine}.

## Files

{frames} frames of 1280x720 with {faces} faces, whole commands with their start-up, in turn, medians of {rounds}.
The loops run the same parts (decoding, detector, crops, classifier, JSON lines), one frame after the other.

{complete}

![frames/s of the commands](performance-files.png)

The bound is what {cores} cores could do if nothing but the parts took time: {cores} times the loop with one thread.
`maskwatch label` reaches {of_bound:.0%} of it. The rest is starting processes, passing pixels and records between them,
and moments at which a process waits for another. The lines of `label` and of the loop are {same}.

{peer}## Live cameras

Cameras of 1280x720 at 20 frames/s, each a process that decodes a video, on one machine with all workers: one of each
kind for one camera, as many of each as cores for more. Times are from capture to labelled.

{live}

![processor time of a frame, by process](performance-live.png)

## More than the machine can do

Eight cameras that repeat decoded frames of the same video, with as many workers of each kind as cores. Labelled are
frames within their deadline of a second; what is offered beyond that ends as `stale`. Publishing takes processor time,
too: cameras that offer far too much take it away from the workers.

{load}

![labelled against offered frames](performance-load.png)

## What helped, and what did not

- Pixels in shared memory instead of JPEG through Redis ([pixels.md](pixels.md)); `--no-shared-memory` shows the
  difference.
- Crops of files that the classifier cuts itself, instead of sending them through Redis.
- As many classifiers as detectors: with `--classifiers 1`, one cannot keep up with two detectors when there are 7 faces
  in a frame, and a core is idle for part of the time.
- Faces that keep labels: of a live camera's faces a fifth is classified ([labels.md](labels.md)). In the video above,
  which pans quickly, two thirds of the faces count as changed.
- Larger batches did not help on a CPU: a face takes as long with `--max-batch 64`, which needs more memory.
- Three workers of each kind on two cores did not help, nor did starting workers before the source is opened: the start
  is bound by the processor time of importing libraries.
"""


def write_document(measured: Measured) -> None:
    """Write the page and its plots."""
    mpl.use("agg")
    complete = measured.complete
    _plot_complete(complete)
    _plot_live(measured.live)
    _plot_load(measured.load)
    label, loop = complete.rates[complete_mode.LABEL], complete.rates[complete_mode.LOOP]
    page = PAGE.format(
        machine=measured.machine,
        cores=measured.cores,
        frames=complete.frames,
        faces=complete.faces,
        rounds=complete.rounds,
        complete=complete_mode.table(complete),
        of_bound=label / (measured.cores * loop),
        same="the same" if complete.same_lines else "NOT the same",
        peer=_peer(complete),
        live=live.table(measured.live),
        load=load.table(measured.load),
    )
    (DOCS / "performance.md").write_text(page)


def _peer(complete: CompleteRun) -> str:
    if complete_mode.PEER not in complete.rates:
        return ""
    return (
        "The peer is the released detector of AIZOO, which finds faces and their masks with one network; its time is\n"
        "that of its loop alone, because importing TensorFlow takes seconds. It finds "
        f"{complete.peer_faces} faces in these frames.\n\n"
    )


def _plot_complete(complete: CompleteRun) -> None:
    figure, axes = plt.subplots(figsize=(7, 0.6 + 0.4 * len(complete.rates)), layout="constrained")
    names = list(complete.rates)[::-1]
    axes.barh(names, [complete.rates[name] for name in names], color="#56b4e9")
    axes.set_xlabel("frames/s")
    figure.savefig(DOCS / "performance-files.png", dpi=120)
    plt.close(figure)


def _plot_live(runs: list[LiveRun]) -> None:
    figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
    bottom = [0.0] * len(runs)
    names = [f"{run.cameras} camera{'s' if run.cameras > 1 else ''}" for run in runs]
    for role in ("camera", "detector", "classifier", "redis"):
        heights = [run.cpu_ms.get(role, 0.0) for run in runs]
        axes.bar(names, heights, bottom=bottom, label=role)
        bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
    axes.set_ylabel("ms of processor time a labelled frame")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(DOCS / "performance-live.png", dpi=120)
    plt.close(figure)


def _plot_load(loads: list[LoadRun]) -> None:
    figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
    offered = [one.offered for one in loads]
    axes.plot(offered, [one.labelled for one in loads], "o-", label="labelled")
    axes.plot(offered[:4], offered[:4], ":", color="grey", label="offered")
    axes.set_xlabel("offered, frames/s")
    axes.set_ylabel("labelled, frames/s")
    axes.set_ylim(bottom=0)
    axes.legend()
    figure.savefig(DOCS / "performance-load.png", dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    write_document(msgspec.json.decode((OUT / "bench.json").read_bytes(), type=Measured))
