"""Decide which pictures of an MJPEG stream are decoded, so that its delay cannot grow. Pure: waits in, a decision out.

Such a stream has no timestamps. But when decoding is slower than the camera, the next picture has always come already:
nothing has to be waited for. Then most pictures are left out, which is fast, until one has to be waited for again.
"""

from __future__ import annotations

MAX_UNWAITED = 10  # pictures in a row that had come already: half a second of 20 a second
WAIT_S = 0.005  # reading takes less when the bytes are there, even while other threads of the process run
SHOWN = 10  # of a camera that is always faster than reading, each picture of this number is shown


class PictureSkipper:
    """Count the pictures that did not have to be waited for."""

    def __init__(self) -> None:
        self._unwaited = 0

    def is_late(self, waited_s: float) -> bool:
        """Return whether to leave out a picture. waited_s: how long reading it took."""
        self._unwaited = 0 if waited_s > WAIT_S else self._unwaited + 1
        return self._unwaited > MAX_UNWAITED and self._unwaited % SHOWN != 0
