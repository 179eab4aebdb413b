"""Read a camera that sends JPEGs over HTTP: one after the other in one answer (MJPEG), or one for each request.

BGR frames out. A stream that ends, one that is silent for longer than its pace allows, and a still picture that does
not come raise SourceFailed; a damaged picture is a SourceFrame with an error.
"""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator

from pipeline.vision import jpeg
from producer.sources.exif import upright
from producer.sources.http_client import Answer, HttpClient
from producer.sources.jpeg_splitter import MAX_PICTURE_BYTES, JpegSplitter, JpegTooLarge
from producer.sources.network_errors import reason
from producer.sources.picture_skipper import PictureSkipper
from producer.sources.source import Kind, SourceFailed, SourceFrame
from producer.sources.timeouts import SilenceLimit

END_TIMEOUT_S = 0.01  # for the end of an answer behind its picture
MAX_POLL_PERIOD_S = 30.0  # a camera of a still picture is asked at least this often


class HttpPictures:
    """An open camera that sends JPEGs.

    Args:
        answer: to the first request; of type multipart/..., or one picture.
        fps: how often a still picture is asked for.
    """

    kind: Kind = "http"
    is_live = True
    total: int | None = None

    def __init__(self, client: HttpClient, answer: Answer, name: str, fps: float) -> None:
        self._client = client
        self._answer = answer
        self._name = name
        self._period_s = min(1 / fps, MAX_POLL_PERIOD_S)
        self._is_stream = answer.content_type.startswith("multipart/")
        self._skipper = PictureSkipper()

    def __iter__(self) -> Iterator[SourceFrame]:
        index, skipped = 0, 0
        for picture, is_late in self._pictures():
            if is_late:
                skipped += 1
                continue
            yield self._frame(index, picture, skipped)
            index, skipped = index + 1, 0

    def close(self) -> None:
        """Close the connection."""
        self._answer.response.close()
        self._client.close()

    def _pictures(self) -> Iterator[tuple[bytes, bool]]:
        """Yield each picture, and whether it is late because decoding is slower than the camera."""
        if self._is_stream:
            for picture, waited_s in self._streamed(SilenceLimit(time.monotonic())):
                yield picture, self._skipper.is_late(waited_s)
            raise SourceFailed(f"{self._name} ended the stream")
        while True:
            asked = time.monotonic()
            picture, _ = next(self._streamed(SilenceLimit(asked)), (b"", 0.0))
            if not picture:
                kind = self._answer.content_type or "no type"
                raise SourceFailed(f"{self._name} sends no JPEG ({kind}); check the path of the address")
            yield picture, False
            if not self._has_ended():
                self._client.close()
            time.sleep(max(0.0, asked + self._period_s - time.monotonic()))
            self._answer.response.close()
            self._answer = self._client.get()

    def _streamed(self, silence: SilenceLimit) -> Iterator[tuple[bytes, float]]:
        """Yield the pictures of one answer, and how long each was waited for, in seconds."""
        splitter, waited_s = JpegSplitter(), 0.0
        while True:
            asked = time.monotonic()
            chunk = self._read(silence)
            waited_s += time.monotonic() - asked
            for picture in self._split(splitter, chunk):
                silence.note_picture(time.monotonic())
                yield picture, waited_s
                waited_s = 0.0
            if not chunk:
                return

    def _has_ended(self) -> bool:
        """Return whether an answer is at its end, so that the connection can be used again."""
        try:
            return not self._answer.read(END_TIMEOUT_S)
        except (OSError, http.client.HTTPException):
            return False

    def _read(self, silence: SilenceLimit) -> bytes:
        try:
            return self._answer.read(silence.remaining_s(time.monotonic()))
        except TimeoutError as error:
            raise SourceFailed(f"{self._name} broke off: {silence.reason()}") from error
        except (OSError, http.client.HTTPException) as error:
            raise SourceFailed(f"{self._name} broke off: {reason(error)}") from error

    def _split(self, splitter: JpegSplitter, chunk: bytes) -> list[bytes]:
        """Return the pictures that end in a chunk; at the end of an answer what has come of a still picture."""
        try:
            pictures = splitter.add(chunk)
        except JpegTooLarge:
            limit = MAX_PICTURE_BYTES // 1_000_000
            raise SourceFailed(f"{self._name} sends a picture that does not end within {limit} MB") from None
        if chunk or self._is_stream:
            return pictures
        rest = splitter.rest()
        return [rest] if rest else []

    def _frame(self, index: int, picture: bytes, skipped: int) -> SourceFrame:
        try:
            image = upright(jpeg.decode_jpeg(picture), picture)
        except jpeg.BadImage as error:
            return SourceFrame(name=self._name, index=index, error=str(error), skipped=skipped)
        height, width = image.shape[:2]
        return SourceFrame(name=self._name, index=index, width=width, height=height, image=image, skipped=skipped)
