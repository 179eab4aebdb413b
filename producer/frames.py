"""Convert a source's frame to what is published: the record and the JPEG."""

from __future__ import annotations

from pipeline.bus.messages import Frame, Relabel, SharedPixels, frame_id
from pipeline.bus.shards import Shard
from pipeline.vision.jpeg import encode_jpeg
from producer.sources.source import SourceFrame


def frame_record(
    source_frame: SourceFrame,
    shard: Shard,
    camera: str,
    *,
    start: int,
    seq: int,
    captured_at: float,
    deadline_s: float | None,
    shared: SharedPixels | None = None,
    relabel: Relabel | None = None,
) -> Frame:
    """Return the record of a camera's frame.

    Args:
        shard: the camera's.
        deadline_s: after its capture; None for no deadline.
        shared: where its pixels are, if they are shared.
        relabel: None when all its faces are to be classified.
    """
    identity = frame_id(camera, start, seq)
    return Frame(
        frame_id=identity,
        camera=camera,
        start=start,
        seq=seq,
        width=source_frame.width,
        height=source_frame.height,
        pixels_key=shard.key("pixels", identity),
        captured_at=captured_at,
        deadline_at=None if deadline_s is None else captured_at + deadline_s,
        shared=shared,
        relabel=relabel,
    )


def frame_jpeg(source_frame: SourceFrame, quality: int) -> bytes:
    """Return a frame's own JPEG, or its image as JPEG of this quality, 1 to 100."""
    if source_frame.jpeg is not None:
        return source_frame.jpeg
    if source_frame.image is None:
        raise ValueError(f"{source_frame.name} has neither an image nor a JPEG")
    return encode_jpeg(source_frame.image, quality)
