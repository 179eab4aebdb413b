"""Render the clip that complete mode labels: the demo scene, encoded once. The same machine gives the same file."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import cv2

from producer.sources.demo.scene import DemoSource

FRAMES = 300
FPS = 20
WIDTH, HEIGHT = 640, 360
SEED = 0  # the clip is the same for all seeds, so that a run is repeated alone as it was among others


def render_clip(path: Path) -> None:
    """Write FRAMES frames as H.264."""
    with av.open(str(path), "w", format="mp4") as file:
        stream = file.add_stream("libx264", rate=Fraction(FPS), options={"preset": "veryfast", "threads": "1"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for frame in DemoSource(numbered=False, frames=FRAMES, fps=FPS, seed=SEED):
            image = cv2.resize(frame.image, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        file.mux(stream.encode())
