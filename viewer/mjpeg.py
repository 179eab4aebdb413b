"""Pictures with their labels burned in: for whoever shows an MJPEG stream or a JPEG but runs no page of ours."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from weakref import WeakKeyDictionary

from pipeline.vision.drawing import draw, offline_image
from pipeline.vision.jpeg import BadImage, Image, decode_jpeg, encode_jpeg
from viewer.audience import DisplayFrame, Stream

BOUNDARY = "frame"
QUALITY = 85
TAKE_S = 1.0  # a stream looks so often whether the viewer ends
SILENT_S = 3.0  # a camera without a new frame for so long is shown as offline
NOT_LABELLED = "not labelled right now"


class AnnotatedJpegEncoder:
    """Burn labels in once a frame, however many streams show it; forgotten with the frame."""

    def __init__(self) -> None:
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._burned: WeakKeyDictionary[DisplayFrame, bytes] = WeakKeyDictionary()

    def burned(self, shown: DisplayFrame) -> bytes:
        """Return the frame as JPEG with its labels.

        Raises:
            BadImage: its pixels are damaged.
        """
        with self._locks[shown.camera]:
            jpeg = self._burned.get(shown)
            if jpeg is None:
                note = None if shown.labelled else NOT_LABELLED
                jpeg = encode_jpeg(draw(decode_jpeg(shown.jpeg), shown.faces, note=note), QUALITY)
                self._burned[shown] = jpeg
            return jpeg


def parts(going: Callable[[], bool], stream: Stream, burner: AnnotatedJpegEncoder) -> Iterator[bytes]:
    """Yield a multipart stream, each frame the newest there is, until the viewer or the session ends.

    A camera that falls silent is shown as offline, once a second, which also finds out whether anybody still looks.
    """
    yield f"--{BOUNDARY}\r\n".encode()
    last: DisplayFrame | None = None
    silent_s = SILENT_S - TAKE_S  # until the first frame: a stream of an offline camera says so soon
    while going():
        shown = stream.take(TAKE_S)
        silent_s = 0.0 if shown else silent_s + TAKE_S
        try:
            if shown:
                last = shown
                yield part(burner.burned(shown))
            elif silent_s >= SILENT_S:
                yield part(_offline(stream.camera, last))
        except BadImage:
            continue  # detection dead-letters the frame and says so


def part(jpeg: bytes) -> bytes:
    """Return one part of the stream and the boundary after it: browsers show a picture once they see that."""
    head = f"Content-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
    return head.encode() + jpeg + f"\r\n--{BOUNDARY}\r\n".encode()


def _offline(camera: str, last: DisplayFrame | None) -> bytes:
    frame: Image | None = decode_jpeg(last.jpeg) if last else None
    return encode_jpeg(offline_image(frame, f"{camera} is offline"), QUALITY)
