"""A run in live mode: two cameras go on while the pipeline breaks; then new frames are labelled and shown again."""

from __future__ import annotations

import http.client
import time
from functools import partial
from pathlib import Path

from chaos.faults import CAMERAS, draw_faults
from chaos.injector import Injector
from chaos.leftovers import Held, pending_entries, standing_frames
from chaos.observer import Capture
from chaos.pipeline import Pipeline, running_pipeline
from chaos.proxy import HOST
from chaos.report import RunReport

FIRST_LABELS_TIMEOUT_S = 30.0
RETURN_TIMEOUT_S = 60.0  # of processes, on a busy machine
FRESH_S = 3.0  # from the return of all processes to the label of a frame captured after it
FRESH_AFTER_MEMORY_LOSS_S = 5.0
BACK_S = 10.0  # from a primary's death to the label of a frame that each of its cameras captured after it
SETTLED_S = 5.0  # from then until nothing is left of what was captured before
EACH_CAMERA_S = 10.0
VIEWER_TIMEOUT_S = 10.0
VIEWER_FRAMES = 3

Captured = dict[Capture, int]


def run_live(folder: Path, seed: int, *, cluster: bool = False) -> RunReport:
    """Let two cameras run while faults happen. folder: for logs. cluster: on a cluster in place of one Redis."""
    began = time.monotonic()
    with running_pipeline(folder, seed, CAMERAS, cluster=cluster) as pipeline:
        observer = pipeline.observer
        pipeline.wait_until(lambda: _labelled_cameras(pipeline, {}) == set(CAMERAS), FIRST_LABELS_TIMEOUT_S)
        injector = Injector(pipeline, draw_faults(seed, "live", cluster=cluster))
        pipeline.wait_until(lambda: _step(injector), RETURN_TIMEOUT_S)
        over = time.monotonic()
        observer.look()
        before, held = observer.captured.copy(), pending_entries(pipeline.bus)
        broken, return_s, fresh_s = _broken_return(pipeline, injector, over)
        settled = pipeline.wait_until(
            lambda: not _left(pipeline, before, held), max(0.0, over + (return_s or 0) + SETTLED_S - time.monotonic())
        )
        if not settled:
            broken.append(f"{SETTLED_S:.0f} s after the last fault, still {_left(pipeline, before, held)}")
        broken += _broken_viewer(pipeline)
        observer.look()
        broken += [
            f"in the end the ledger of {name} does not balance"
            for name, ledger in observer.ledgers().items()
            if not ledger.balances
        ]
        broken += injector.late_recoveries(BACK_S)
        return RunReport(
            mode="live",
            cluster=cluster,
            seed=seed,
            seconds=time.monotonic() - began,
            faults=injector.reports(),
            return_s=return_s,
            fresh_s=fresh_s,
            frames=observer.fates(),
            broken=broken + observer.broken,
        )


def _step(injector: Injector) -> bool:
    injector.step()
    return injector.done


def _broken_return(pipeline: Pipeline, injector: Injector, over: float) -> tuple[list[str], float | None, float | None]:
    """Wait until all processes are back and label new frames of each camera.

    Returns:
        promises that broke; when the processes were back, after the last fault; when a frame captured since then was
        labelled, after their return.
    """
    if not pipeline.wait_until(lambda: not pipeline.missing(), RETURN_TIMEOUT_S):
        return [f"{', '.join(pipeline.missing())} did not come back in {RETURN_TIMEOUT_S:.0f} s"], None, None
    pipeline.observer.look()
    returned, captured = time.monotonic(), pipeline.observer.captured.copy()
    limit_s = FRESH_AFTER_MEMORY_LOSS_S if injector.loses_memory else FRESH_S
    broken = []
    if not pipeline.wait_until(lambda: bool(_labelled_cameras(pipeline, captured)), limit_s):
        broken.append(f"no new frame was labelled within {limit_s:.0f} s of the return of all processes")
    if not pipeline.wait_until(lambda: _labelled_cameras(pipeline, captured) == set(CAMERAS), EACH_CAMERA_S):
        silent = sorted(set(CAMERAS) - _labelled_cameras(pipeline, captured))
        broken.append(f"no labels of {', '.join(silent)} after the return of all processes")
    times = [
        at
        for (camera, start, seq), at in pipeline.observer.labelled.copy().items()
        if seq > captured.get((camera, start), -1)
    ]
    return broken, returned - over, min(times) - returned if times else None


def _labelled_cameras(pipeline: Pipeline, captured: Captured) -> set[str]:
    """Return the cameras with a labelled frame that is newer than what was captured."""
    return {
        camera for camera, start, seq in pipeline.observer.labelled.copy() if seq > captured.get((camera, start), -1)
    }


def _left(pipeline: Pipeline, before: Captured, held: set[Held]) -> str:
    """Return what is left of frames captured before, and of entries that were held then, in words."""
    frames = [frame_id for frame_id in standing_frames(pipeline.bus, list(CAMERAS)) if _is_older(frame_id, before)]
    entries = held & pending_entries(pipeline.bus)
    words = [f"{len(frames)} frames in flight ({frames[0]} ..)"] if frames else []
    words += [f"{len(entries)} entries pending ({min(entries)} ..)"] if entries else []
    return " and ".join(words)


def _is_older(frame_id: str, before: Captured) -> bool:
    camera, start, seq = frame_id.split(":")
    return int(seq) <= before.get((camera, int(start)), -1)


def _broken_viewer(pipeline: Pipeline) -> list[str]:
    broken = []
    if not pipeline.wait_until(lambda: _answers(pipeline.port, "/healthz"), VIEWER_TIMEOUT_S):
        broken.append(f"the viewer's /healthz was not 200 within {VIEWER_TIMEOUT_S:.0f} s")
    return broken + [
        f"the viewer did not show {camera} within {VIEWER_TIMEOUT_S:.0f} s"
        for camera in CAMERAS
        if not pipeline.wait_until(partial(_shows, pipeline.port, camera), VIEWER_TIMEOUT_S)
    ]


def _shows(port: int, camera: str) -> bool:
    """Return whether the viewer has a labelled frame of a camera and streams several."""
    page = f"/cameras/{camera}"
    return _answers(port, f"{page}/snapshot.jpg") and _answers(port, f"{page}/stream.mjpg", VIEWER_FRAMES)


def _answers(port: int, path: str, frames: int = 0) -> bool:
    """Return whether the viewer answers a request with status 200, and with so many frames of a stream."""
    connection = http.client.HTTPConnection(HOST, port, timeout=VIEWER_TIMEOUT_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        while answer.status == 200 and frames and (line := answer.readline()):
            frames -= line.startswith(b"Content-Type: image/jpeg")
        return answer.status == 200 and not frames
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
