"""The JSON lines of `label`: a record for each frame, the file that they are written to, and those of an earlier run.

A line is written in full or not at all. BadOutput says what cannot be written, or why a run cannot be resumed.
"""

from __future__ import annotations

import fcntl
import io
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, TextIO, cast

import msgspec
from msgspec import UNSET, Struct, UnsetType

from pipeline.bus.messages import FrameResult
from pipeline.vision.faces import Face
from producer.files.video_out import BadOutput, claim, failures_as_bad_output
from producer.sources.picture_file import printable_name
from producer.sources.source import SourceFrame


class LineFace(Face, frozen=True, kw_only=True):
    """One face of a line. track: the same number for the same face over a video; None for pictures."""

    track: int | None = None


class JsonLine(Struct, frozen=True, kw_only=True):
    """One frame of the JSON lines.

    model: None when it was not labelled. latency_ms: from capture to labelled; None when it was not.
    error: why it could not be labelled; absent when it was.
    """

    source: str
    frame: int
    name: str
    width: int
    height: int
    faces: list[LineFace] = []
    model: str | None = None
    latency_ms: float | None = None
    error: str | UnsetType = UNSET


def labelled_line(source: str, source_frame: SourceFrame, result: FrameResult) -> JsonLine:
    """Return the line of a labelled frame, without tracks."""
    faces = [
        LineFace(
            box=(round(x1, 2), round(y1, 2), round(x2, 2), round(y2, 2)),
            score=round(face.score, 4),
            label=face.label,
            confidence=round(face.confidence, 4),
            fresh=face.fresh,
        )
        for face in result.faces
        for x1, y1, x2, y2 in [face.box]
    ]
    latency_ms = round(1000 * sum(result.seconds.values()), 1)
    line = error_line(source, source_frame, UNSET)
    return msgspec.structs.replace(line, faces=faces, model=result.model, latency_ms=latency_ms)


def error_line(source: str, source_frame: SourceFrame, error: str | UnsetType) -> JsonLine:
    """Return the line of a frame that could not be labelled."""
    return JsonLine(
        source=source,
        frame=source_frame.index,
        name=printable_name(source_frame.name),
        width=source_frame.width,
        height=source_frame.height,
        error=error,
    )


class LinesFile:
    """Append JSON lines to the complete lines of an earlier run; the file does not change before the first write.

    Args:
        path: None for stdout.
        keep_bytes: of the file, the complete lines; anything after them is cut off.
        created: a folder that will exist before the first write; None for none.
    """

    def __init__(self, path: Path | None, *, keep_bytes: int, created: Path | None) -> None:
        self._path = path
        self._keep_bytes = keep_bytes
        self._file: BinaryIO | None = sys.stdout.buffer if path is None else None
        if path is None:
            if not _is_open_for_writing(sys.stdout):
                raise BadOutput("--json -: stdout is closed; leave it open, or name a file")
            return
        if path.is_dir():
            raise BadOutput(f"--json {path}: that is a folder")
        if not path.exists() and path.parent == created:
            return
        if not path.parent.is_dir():
            raise BadOutput(f"--json {path}: the folder {path.parent} does not exist")
        if not os.access(path if path.exists() else path.parent, os.W_OK):
            raise BadOutput(f"--json {path}: cannot be written, permission is denied")

    def write(self, line: JsonLine) -> None:
        """Write one line in full."""
        with failures_as_bad_output(f"--json {self._path or '-'}"):
            file = self._open()
            file.write(msgspec.json.encode(line) + b"\n")
            file.flush()

    def close(self, *, complete: bool) -> None:
        """Close the file; after a complete run it ends with a whole line, even when no line was written."""
        with failures_as_bad_output(f"--json {self._path}"):
            if complete:
                self._open()
            if self._file is not None and self._path is not None:
                self._file.close()

    def _open(self) -> BinaryIO:
        if self._file is None and self._path is not None:
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o666)
            self._file = os.fdopen(fd, "wb")
            claim(fd, f"--json {self._path}")
            if stat.S_ISREG(os.fstat(fd).st_mode):
                self._file.seek(self._keep_bytes)
                self._file.truncate()
        return cast(BinaryIO, self._file)


class KnownLines:
    """The complete lines that an earlier run wrote for a source: all are checked at first, then read one at a time.

    A file of millions of lines would fill the memory.

    count: how many lines there are; none when there is no file. size: of them all, bytes.

    Raises:
        BadOutput: the file cannot be read, or holds a line that was not written for this source.
    """

    def __init__(self, path: Path, source: str) -> None:
        self.count = self.size = 0
        self._path = path
        self._decoder = msgspec.json.Decoder(JsonLine)
        spellings = {source}
        for packed in self._complete_lines():
            other = self._decode(packed).source
            if other not in spellings and not _same_source(other, source):
                raise BadOutput(f"--resume: {path} was written for {other}, not for {source}")
            spellings.add(other)
            self.count += 1
            self.size += len(packed)
        self._unread = self._complete_lines()

    def read(self) -> JsonLine:
        """Return the next line, from the first on; there are `count`."""
        packed = next(self._unread, None)
        if packed is None:
            raise BadOutput(f"--resume: {self._path} became shorter while it was read")
        return self._decode(packed)

    def _complete_lines(self) -> Iterator[bytes]:
        try:
            with self._path.open("rb") as file:
                for line in file:
                    if line.endswith(b"\n"):  # the last one may be torn
                        yield line
        except FileNotFoundError:
            return
        except OSError as error:
            raise BadOutput(f"--json {self._path}: {error.strerror}") from error

    def _decode(self, packed: bytes) -> JsonLine:
        try:
            return self._decoder.decode(packed)
        except UnicodeDecodeError as error:
            raise BadOutput(f"--resume: {self._path} holds a line that is not UTF-8") from error
        except (msgspec.DecodeError, RecursionError) as error:
            raise BadOutput(f"--resume: {self._path} holds a line that maskwatch did not write: {error}") from error


def _is_open_for_writing(stream: TextIO) -> bool:
    """Return whether a stream can be written; one that was closed at the start cannot (see maskwatch.py)."""
    try:
        return fcntl.fcntl(stream.fileno(), fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
    except io.UnsupportedOperation:  # no file at all, but an object in memory
        return True


def _same_source(one: str, other: str) -> bool:
    if one == other or "://" in one or "://" in other:
        return one == other
    return Path(one).expanduser().resolve() == Path(other).expanduser().resolve()
