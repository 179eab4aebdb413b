"""Write a labelled video: H.264 yuv420p, which browsers play, with the source's timestamps and sound.

The file gets its name when it is complete; until then it is NAME.part, which is removed when the run stops early.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import cv2

from pipeline.vision.arrays import Image
from producer.files.sound import Sound
from producer.sources.source import SourceFrame

TIME_BASE = Fraction(1, 90_000)  # the customary clock of video timestamps
CRF = "20"  # x264's constant quality; 18 to 28 is the sane range
PRESET = "veryfast"
FALLBACK_FPS = 25.0  # of a source without timestamps
FORMATS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}


class BadOutput(Exception):
    """Something cannot be written; says what and why."""


@contextlib.contextmanager
def failures_as_bad_output(what: str) -> Iterator[None]:
    """Raise BadOutput, which begins with `what`, when the system or FFmpeg reports an error in the block."""
    try:
        yield
    except (OSError, av.error.FFmpegError) as error:
        raise BadOutput(f"{what}: {error.strerror}") from error


def claim(fd: int, what: str) -> None:
    """Lock a regular file that is being written, until it is closed; raise BadOutput if another run writes it."""
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise BadOutput(f"{what}: another run is writing it; wait for its end, or name another one") from error
    except OSError:
        pass  # a file system without locks


class VideoFile:
    """A labelled video. path: ends in one of FORMATS. sound_from: a video whose sound is copied; None for none."""

    def __init__(self, path: Path, *, sound_from: Path | None) -> None:
        self._path = path
        self._part = path.with_name(path.name + ".part")
        self._stream: Any = None
        self._last_pts = -1
        with contextlib.ExitStack() as undo:
            with failures_as_bad_output(f"--out {path}"):
                self._lock = os.open(self._part, os.O_WRONLY | os.O_CREAT, 0o666)
                undo.callback(os.close, self._lock)
                claim(self._lock, f"--out {path}")
                undo.callback(self._part.unlink, missing_ok=True)
                self._file = av.open(f"file:{self._part}", "w", format=FORMATS[path.suffix.lower()])
            try:
                self._sound = Sound(sound_from, self._file)
            except (OSError, av.error.FFmpegError) as error:
                with contextlib.suppress(av.error.FFmpegError):
                    self._file.close()
                raise BadOutput(f"--out {path}: the sound of {sound_from} cannot be read: {error.strerror}") from error
            undo.pop_all()

    def write(self, source_frame: SourceFrame, image: Image) -> None:
        """Write one frame at the source's time; odd sides are made even by repeating the last row or column."""
        even = cv2.copyMakeBorder(image, 0, image.shape[0] % 2, 0, image.shape[1] % 2, cv2.BORDER_REPLICATE)
        at_s = source_frame.at_s if source_frame.at_s is not None else source_frame.index / FALLBACK_FPS
        out = av.VideoFrame.from_ndarray(even, format="bgr24")
        out.pts = self._last_pts = max(self._last_pts + 1, round(at_s / TIME_BASE))
        out.time_base = TIME_BASE
        with failures_as_bad_output(f"--out {self._path}"):
            if self._stream is None:
                self._start(even.shape[1], even.shape[0])
            self._file.mux(self._stream.encode(out))
            self._sound.write_until(at_s)

    def close(self, *, complete: bool) -> None:
        """Finish the video, or remove it when it is not complete."""
        try:
            if self._stream is not None and complete:
                self._file.mux(self._stream.encode())
                self._sound.write_until(float("inf"))
            with contextlib.suppress(av.error.FFmpegError) if self._stream is None else contextlib.nullcontext():
                self._file.close()
            if complete and self._stream is not None:
                self._part.replace(self._path)
        except (OSError, av.error.FFmpegError) as error:
            raise BadOutput(f"--out {self._path}: {error.strerror}") from error
        finally:
            self._sound.close()
            self._part.unlink(missing_ok=True)
            os.close(self._lock)

    def _start(self, width: int, height: int) -> None:
        stream: Any = self._file.add_stream("libx264", options={"crf": CRF, "preset": PRESET})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.time_base = stream.codec_context.time_base = TIME_BASE
        self._stream = stream
        self._sound.start()
