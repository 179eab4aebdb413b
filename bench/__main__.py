"""Measure the pipeline on this machine, print a table, and write bench/out/bench.json: `make bench`."""

from __future__ import annotations

import platform
from pathlib import Path

import msgspec

from bench import complete_mode, live
from bench.clip import OUT
from pipeline.runtime.cores import available_cores


def main() -> None:
    """Run all measurements one after the other, so that they do not compete for the machine."""
    cores = available_cores()
    print(f"{_processor()}, {cores} cores, Python {platform.python_version()}")
    whole = complete_mode.measure_complete_mode(cores)
    print(f"\ncomplete mode, 1280x720 clip, {whole['frames']} frames, {whole['faces']} faces, whole commands")
    print(f"  maskwatch label                {whole['pipeline_fps']:7.1f} frames/s")
    print(f"  plain loop, one thread         {whole['loop_fps']:7.1f} frames/s   ratio {whole['ratio']:.2f}")
    all_cores = f"{whole['loop_all_cores_fps']:7.1f} frames/s   ratio {whole['ratio_all_cores']:.2f}"
    print(f"  plain loop, a thread a core    {all_cores}")
    one = live.measure_live_latency()
    print(f"\nlive mode, one 1280x720 camera at 20 frames/s, {one['frames']} frames: capture to labelled")
    print(f"  median {one['median_ms']:.0f} ms   p95 {one['p95_ms']:.0f} ms   max {one['most_ms']:.0f} ms")
    print(f"  labelled: {one['fps']:.1f} frames/s")
    print(f"  dropped: {one['dropped'] or 'nothing'}")
    OUT.mkdir(exist_ok=True)
    (OUT / "bench.json").write_bytes(msgspec.json.encode({"cores": cores, "complete": whole, "live": one}))


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(": ")[2]
    return platform.machine()


if __name__ == "__main__":
    main()
