"""What `label` writes: JSON lines, a folder of labelled pictures, or a labelled video, in the source's order.

A line is written whole or not at all, a picture or video under its final name only when it is complete. What cannot be
written raises BadOutput, one line for people.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import BinaryIO, Literal, cast

import cv2
import msgspec
from msgspec import UNSET, Struct, UnsetType

from pipeline.bus.messages import Face, FrameResult
from pipeline.vision.drawing import draw
from pipeline.vision.jpeg import BadImage, Image, decode_jpeg
from pipeline.vision.tracks import Tracks
from producer.files.video_out import FALLBACK_FPS, BadOutput, Video
from producer.sources.folder import PICTURE_SUFFIXES, printable
from producer.sources.source import Source, SourceFrame

__all__ = ["BadOutput", "Line", "Outputs", "error_line", "labelled_line"]

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv")
OTHER_VIDEO_SUFFIXES = (".avi", ".webm", ".m4v", ".mpg", ".ts", ".wmv", ".flv")  # meant as a video, not as a folder
WRITTEN_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")  # of the pictures OpenCV can write


class LineFace(Struct, frozen=True, kw_only=True):
    """One face of a line. track: the same number for the same face over a video; None for pictures."""

    box: tuple[float, float, float, float]
    score: float
    label: Literal["mask", "no_mask"]
    confidence: float
    track: int | None


class Line(Struct, frozen=True, kw_only=True):
    """One frame of the JSON lines. error: why it could not be labelled; absent when it was."""

    source: str
    frame: int
    name: str
    width: int
    height: int
    faces: list[LineFace]
    model: str | None
    latency_ms: float | None
    error: str | UnsetType = UNSET


def labelled_line(source: str, picture: SourceFrame, result: FrameResult) -> Line:
    """Return the line of a labelled frame, its tracks still to be told. latency_ms: capture to labelled."""
    return Line(
        source=source,
        frame=picture.index,
        name=printable(picture.name),
        width=result.width,
        height=result.height,
        faces=[
            LineFace(
                box=(round(x1, 2), round(y1, 2), round(x2, 2), round(y2, 2)),
                score=round(face.score, 4),
                label=face.label,
                confidence=round(face.confidence, 4),
                track=None,
            )
            for face in result.faces
            for x1, y1, x2, y2 in [face.box]
        ],
        model=result.model,
        latency_ms=round(1000 * sum(result.seconds.values()), 1),
    )


def error_line(source: str, picture: SourceFrame, error: str) -> Line:
    """Return the line of a frame that could not be labelled."""
    return Line(
        source=source,
        frame=picture.index,
        name=printable(picture.name),
        width=picture.width,
        height=picture.height,
        faces=[],
        model=None,
        latency_ms=None,
        error=error,
    )


class Outputs:
    """Write each frame to everything that was asked for, and count.

    Args:
        source: what is read. name: as the user named it, without a password.
        json_path: of the JSON lines; "-" for stdout; None for none.
        out_path: a video file, or a folder for pictures; None for none.
        resume: go on after the last whole line of json_path.

    Raises:
        BadOutput: a file cannot be written, is the source or another output, or the lines to go on from are not of
            this source.
    """

    def __init__(
        self, source: Source, name: str, *, json_path: str | None, out_path: Path | None, resume: bool
    ) -> None:
        json_file = None if json_path in (None, "-") else Path(json_path)
        if json_path == "":
            raise BadOutput("--json: the name is empty; name a file, or - for stdout")
        if out_path is not None:
            _check_kind(source, out_path)
        _check_places(source, name, json_file, out_path)
        self.source = printable(name)
        self.draws = out_path is not None
        self.frames = self.faces = self.masks = self.errors = 0
        self._tracks = Tracks() if source.kind == "video" else None
        self._known = _read_lines(json_file, self.source) if resume and json_file else []
        self._json = LinesFile(json_file, len(self._known), made=out_path) if json_path else None
        self._out: PictureFolder | Video | None = None
        if out_path is not None:
            as_video = out_path.suffix.lower() in VIDEO_SUFFIXES
            self._out = (
                Video(out_path, source.path) if as_video else PictureFolder(out_path, numbered=source.kind != "folder")
            )

    def known_line(self, picture: SourceFrame) -> Line | None:
        """Return the line that an earlier run wrote for a picture, None when it wrote none.

        Raises:
            BadOutput: its line is another picture's.
        """
        if picture.index >= len(self._known):
            return None
        line = self._known[picture.index]
        if (line.frame, line.name) != (picture.index, printable(picture.name)):
            raise BadOutput(
                f"--resume: line {picture.index + 1} is of {line.name!r}, the source has {picture.name!r} there"
            )
        return line

    def write(self, picture: SourceFrame, jpeg: bytes, line: Line) -> None:
        """Write one frame everywhere."""
        shown = [Face(box=f.box, score=f.score, label=f.label, confidence=f.confidence) for f in line.faces]
        if self._tracks is not None:
            tracked = self._tracks.update(
                shown, picture.at_s if picture.at_s is not None else line.frame / FALLBACK_FPS
            )
            faces = [msgspec.structs.replace(f, track=t.track) for f, t in zip(line.faces, tracked, strict=True)]
            line = msgspec.structs.replace(line, faces=faces)
            shown = [
                msgspec.structs.replace(f, label=t.label, confidence=t.confidence)
                for f, t in zip(shown, tracked, strict=True)
            ]
        if self._json is not None and line.frame >= len(self._known):
            self._json.write(line)
        if self._out is not None and line.error is UNSET:
            self._out.write(picture, draw(_pixels(picture, jpeg), shown))
        self.frames += 1
        self.faces += len(shown)
        self.masks += sum(face.label == "mask" for face in shown)
        self.errors += line.error is not UNSET

    def close(self, *, complete: bool) -> None:
        """Finish the files; what is not complete is removed, the lines stay to go on from.

        Raises:
            BadOutput: a file cannot be finished, or the source was complete with fewer pictures than lines.
        """
        shrank = complete and len(self._known) > self.frames
        try:
            if self._json is not None:
                self._json.close(complete=complete and not shrank)
        finally:
            if isinstance(self._out, Video):
                self._out.close(complete=complete and not shrank)
        if shrank:
            raise BadOutput(
                f"--resume: there are {len(self._known)} lines, but {self.source} has only {self.frames} pictures now; "
                "label it without --resume"
            )


class LinesFile:
    """Write the JSON lines behind those that an earlier run wrote whole; the file is untouched until the first write.

    Args:
        path: None for stdout.
        known: how many lines are kept; anything behind them is cut off.
        made: a folder that will be there before the first write; None for none.

    Raises:
        BadOutput: it cannot be written.
    """

    def __init__(self, path: Path | None, known: int, *, made: Path | None) -> None:
        self._path = path
        self._known = known
        self._file: BinaryIO | None = sys.stdout.buffer if path is None else None
        if path is None:
            return
        if path.is_dir():
            raise BadOutput(f"--json {path}: that is a folder")
        if not path.exists() and path.parent == made:
            return
        if not path.parent.is_dir():
            raise BadOutput(f"--json {path}: the folder {path.parent} does not exist")
        if not os.access(path if path.exists() else path.parent, os.W_OK):
            raise BadOutput(f"--json {path}: cannot be written, permission is denied")

    def write(self, line: Line) -> None:
        """Write one line, whole."""
        try:
            file = self._open()
            file.write(msgspec.json.encode(line) + b"\n")
            file.flush()
        except OSError as error:
            raise BadOutput(f"--json {self._path or '-'}: {error.strerror}") from error

    def close(self, *, complete: bool) -> None:
        """Close the file; a complete run without a new line leaves it without a torn one, too."""
        try:
            if complete:
                self._open()
            if self._file is not None and self._path is not None:
                self._file.close()
        except OSError as error:
            raise BadOutput(f"--json {self._path}: {error.strerror}") from error

    def _open(self) -> BinaryIO:
        if self._file is None and self._path is not None:
            self._file = self._path.open("r+b" if self._known else "wb")
            for _ in range(self._known):
                self._file.readline()
            if self._known:
                self._file.truncate()
        return cast(BinaryIO, self._file)


class PictureFolder:
    """Write labelled pictures under the names of their sources; numbered: under the source's stem and their index."""

    def __init__(self, folder: Path, *, numbered: bool) -> None:
        self._numbered = numbered
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadOutput(f"--out {folder}: {error.strerror}") from error
        self._folder = folder

    def write(self, picture: SourceFrame, frame: Image) -> None:
        """Write one labelled picture; what the format cannot be written in becomes PNG."""
        name = Path(printable(picture.name))
        if self._numbered:
            name = Path(f"{name.stem}-{picture.index:06d}.jpg")
        suffix = name.suffix.lower() if name.suffix.lower() in WRITTEN_SUFFIXES else ".png"
        path = self._folder / (name.name if suffix == name.suffix.lower() else name.name + suffix)
        written, packed = cv2.imencode(suffix, frame)
        if not written:
            raise BadOutput(
                f"--out {path}: OpenCV cannot write a {suffix} picture of {frame.shape[1]}x{frame.shape[0]}"
            )
        part = path.with_name(path.name + ".part")
        try:
            part.write_bytes(packed.tobytes())
            part.replace(path)
        except OSError as error:
            raise BadOutput(f"--out {path}: {error.strerror}") from error


def _read_lines(path: Path, source: str) -> list[Line]:
    """Return the whole lines of an earlier run; a torn last line is as good as none."""
    try:
        whole = path.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise BadOutput(f"--json {path}: {error.strerror}") from error
    try:
        lines = [msgspec.json.decode(line, type=Line) for line in whole]
    except msgspec.DecodeError as error:
        raise BadOutput(f"--resume: {path} holds a line that maskwatch did not write: {error}") from error
    foreign = next(
        (text for text in dict.fromkeys(line.source for line in lines) if not _same_source(text, source)), None
    )
    if foreign is not None:
        raise BadOutput(f"--resume: {path} was written for {foreign}, not for {source}")
    return lines


def _same_source(one: str, other: str) -> bool:
    if one == other or "://" in one or "://" in other:
        return one == other
    return Path(one).expanduser().resolve() == Path(other).expanduser().resolve()


def _pixels(picture: SourceFrame, jpeg: bytes) -> Image:
    """Return what to draw on. A picture with a line may have been damaged since the run that wrote the line."""
    if picture.frame is not None:
        return picture.frame
    try:
        return decode_jpeg(picture.jpeg or jpeg)
    except BadImage as error:
        raise BadOutput(
            f"--out: {picture.name} was labelled, but cannot be read any more: {picture.error or error}"
        ) from error


def _check_kind(source: Source, out: Path) -> None:
    """Refuse a name that does not fit what would be written there."""
    suffix = out.suffix.lower()
    if suffix in VIDEO_SUFFIXES:
        if source.kind == "folder":
            raise BadOutput(f"--out {out}: a folder of pictures is labelled into a folder, not into a video")
        if out.is_dir():
            raise BadOutput(f"--out {out}: that is a folder; a video needs another name")
    elif suffix in OTHER_VIDEO_SUFFIXES and not out.is_dir():
        raise BadOutput(f"--out {out}: {suffix} is not written; name a {', '.join(VIDEO_SUFFIXES)} file, or a folder")
    elif suffix in PICTURE_SUFFIXES and not out.is_dir():
        raise BadOutput(f"--out {out}: labelled pictures go into a folder; name one")


def _check_places(source: Source, name: str, json: Path | None, out: Path | None) -> None:
    """Refuse to write over the source, or two outputs over each other."""
    read = Path(name).expanduser() if source.kind == "folder" else source.path
    places = [] if read is None else [read]
    if read is not None and source.kind == "folder" and read.is_file():
        places.append(read.parent)  # its labelled copy would have its name
    is_video = out is not None and out.suffix.lower() in VIDEO_SUFFIXES
    written = [] if out is None else [out, out.with_name(out.name + ".part")] if is_video else [out]
    if any(_same_place(one, place) for one in written for place in places):
        raise BadOutput(f"--out {out}: that would write over the source; name another place")
    if json is None:
        return
    if any(_is_or_is_picture_in(json, place) for place in places):
        raise BadOutput(f"--json {json}: that would write over the source; name another file")
    if any(_is_or_is_picture_in(json, one) for one in written):
        raise BadOutput(f"--json {json}: that is where --out {out} is written; name another file")


def _is_or_is_picture_in(file: Path, place: Path) -> bool:
    target = file.resolve()
    return _same_place(target, place) or (
        target.suffix.lower() in PICTURE_SUFFIXES and _same_place(target.parent, place)
    )


def _same_place(one: Path, other: Path) -> bool:
    if one.exists() and other.exists():
        return one.samefile(other)
    return one.resolve() == other.resolve()
