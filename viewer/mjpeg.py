"""JPEG images with their labels drawn in, for clients that show an MJPEG stream or a snapshot without our page."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from weakref import WeakKeyDictionary

from pipeline.vision.arrays import Image
from pipeline.vision.jpeg import BadImage, decode_jpeg, encode_jpeg
from viewer.audience import DisplayFrame, MjpegStream

BOUNDARY = "frame"
QUALITY = 85
FRAME_TIMEOUT_S = 1.0  # how often a stream without new frames checks whether it should end
OFFLINE_CAMERA_S = 3.0  # a camera without a new frame for this long is shown as offline, a slow one later
NOT_LABELLED = "not labelled right now"


class AnnotatedJpegEncoder:
    """Draws and encodes each frame once for all streams that show it; the result is kept as long as the frame."""

    def __init__(self) -> None:
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._encoded: WeakKeyDictionary[DisplayFrame, bytes] = WeakKeyDictionary()

    def encode(self, frame: DisplayFrame) -> bytes:
        """Return the frame as JPEG with its labels.

        Raises:
            BadImage: its pixels are damaged.
        """
        with self._locks[frame.camera]:
            jpeg = self._encoded.get(frame)
            if jpeg is None:
                from pipeline.vision.drawing import draw_faces  # here: it loads OpenCV, which only this needs

                note = None if frame.labelled else NOT_LABELLED
                jpeg = encode_jpeg(draw_faces(decode_jpeg(frame.jpeg), frame.faces, note=note), QUALITY)
                self._encoded[frame] = jpeg
            return jpeg


def stream_parts(
    should_run: Callable[[], bool], stream: MjpegStream, encoder: AnnotatedJpegEncoder, gap_s: Callable[[], float]
) -> Iterator[bytes]:
    """Yield the parts of a multipart stream, each the newest frame, while `should_run()`.

    A silent camera is shown as offline once a second; a client that has gone is noticed when that is sent.

    gap_s: returns the time between two frames of the camera; a slow one is not offline between them.
    """
    yield f"--{BOUNDARY}\r\n".encode()
    last: DisplayFrame | None = None
    silent_s = OFFLINE_CAMERA_S - FRAME_TIMEOUT_S  # so that the stream of an offline camera begins soon
    while should_run():
        frame = stream.take(FRAME_TIMEOUT_S)
        silent_s = 0.0 if frame else silent_s + FRAME_TIMEOUT_S
        try:
            if frame:
                last = frame
                yield stream_part(encoder.encode(frame))
            elif silent_s >= max(OFFLINE_CAMERA_S, 3 * gap_s()):
                yield stream_part(_offline(stream.camera, last))
        except BadImage:
            continue  # the detector dead-letters the frame


def stream_part(jpeg: bytes) -> bytes:
    """Return one part and the boundary after it: browsers show an image when they receive that."""
    head = f"Content-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
    return head.encode() + jpeg + f"\r\n--{BOUNDARY}\r\n".encode()


def _offline(camera: str, last: DisplayFrame | None) -> bytes:
    from pipeline.vision.drawing import offline_image

    image: Image | None = decode_jpeg(last.jpeg) if last else None
    return encode_jpeg(offline_image(image, f"{camera} is offline"), QUALITY)
