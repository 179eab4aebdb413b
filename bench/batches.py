"""Measure batch sizes and waits of classifiers against load: real workers, pretend cameras with real pictures."""

from __future__ import annotations

import msgspec

from bench.load import LoadRun, measure_load

LOADS = (40.0, 80.0, 160.0)  # frames/s of all cameras
SETTINGS = ((1, 0), (4, 0), (16, 0), (64, 0), (16, 10), (16, 40))  # --max-batch, --max-wait-ms


class BatchRun(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured with one setting. max_wait_ms: how long a batch waits to be full. loads: as in LOADS."""

    max_batch: int
    max_wait_ms: int
    loads: list[LoadRun]


def measure_batches(workers: int) -> list[BatchRun]:
    """Run all settings against all loads, with so many workers of each kind."""
    return [
        BatchRun(
            max_batch=batch,
            max_wait_ms=wait_ms,
            loads=[
                measure_load(load, workers, "--max-batch", str(batch), "--max-wait-ms", str(wait_ms)) for load in LOADS
            ],
        )
        for batch, wait_ms in SETTINGS
    ]


def table(runs: list[BatchRun]) -> str:
    """Return the measurements as a Markdown table: labelled frames/s, and the median from capture to labelled."""
    heads = "".join(f" {load:.0f} frames/s offered |" for load in LOADS)
    rows = [f"| `--max-batch` | `--max-wait-ms` |{heads}", "|---|---|" + "---|" * len(LOADS)]
    for run in runs:
        cells = "".join(f" {load.labelled:.1f}, {load.p50_ms:.0f} ms |" for load in run.loads)
        rows.append(f"| {run.max_batch} | {run.max_wait_ms} |{cells}")
    return "\n".join(rows)
