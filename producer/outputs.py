"""What `label` writes: JSON lines, a folder of labelled pictures, or a labelled video, in the source's order.

A line is written whole or not at all, a picture or video under its final name only when it is complete. What cannot be
written raises BadOutput, one line for people.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import BinaryIO, Literal

import cv2
import msgspec
from msgspec import UNSET, Struct, UnsetType

from pipeline.draw import draw
from pipeline.messages import Face, FrameResult
from pipeline.pixels import decode_jpeg
from pipeline.tracks import Tracks
from producer.picture import Frame, Picture, Source
from producer.video_out import FALLBACK_FPS, BadOutput, Video

__all__ = ["BadOutput", "Line", "Outputs", "error_line", "labelled_line"]

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv")
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


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


def labelled_line(source: str, picture: Picture, result: FrameResult) -> Line:
    """Return the line of a labelled frame, its tracks still to be told. latency_ms: capture to labelled."""
    return Line(
        source=source,
        frame=picture.index,
        name=picture.name,
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


def error_line(source: str, picture: Picture, error: str) -> Line:
    """Return the line of a frame that could not be labelled."""
    return Line(
        source=source,
        frame=picture.index,
        name=picture.name,
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
        BadOutput: a file cannot be opened, or the lines to go on from are not of this source.
    """

    def __init__(
        self, source: Source, name: str, *, json_path: str | None, out_path: Path | None, resume: bool
    ) -> None:
        if out_path is not None and out_path.suffix.lower() in VIDEO_SUFFIXES and source.kind == "folder":
            raise BadOutput(f"--out {out_path}: a folder of pictures is labelled into a folder, not into a video")
        self.source = name
        self.draws = out_path is not None
        self.frames = self.faces = self.masks = self.errors = 0
        self._tracks = Tracks() if source.kind == "video" else None
        self._known = _read_lines(Path(json_path), name) if resume and json_path else []
        self._json = _open_lines(json_path, self._known) if json_path else None
        self._out: PictureFolder | Video | None = None
        if out_path is not None:
            as_video = out_path.suffix.lower() in VIDEO_SUFFIXES
            self._out = (
                Video(out_path, name if source.kind == "video" else None) if as_video else PictureFolder(out_path)
            )

    def known_line(self, picture: Picture) -> Line | None:
        """Return the line that an earlier run wrote for a picture, None when it wrote none.

        Raises:
            BadOutput: its line is another picture's.
        """
        if picture.index >= len(self._known):
            return None
        line = self._known[picture.index]
        if (line.frame, line.name) != (picture.index, picture.name):
            raise BadOutput(
                f"--resume: line {picture.index + 1} is of {line.name!r}, the source has {picture.name!r} there"
            )
        return line

    def write(self, picture: Picture, jpeg: bytes, line: Line) -> None:
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
            try:
                self._json.write(msgspec.json.encode(line) + b"\n")
                self._json.flush()
            except OSError as error:
                raise BadOutput(f"--json: {error.strerror}") from error
        if self._out is not None and line.error is UNSET:
            frame = picture.frame if picture.frame is not None else decode_jpeg(picture.jpeg or jpeg)
            self._out.write(picture, draw(frame, shown))
        self.frames += 1
        self.faces += len(shown)
        self.masks += sum(face.label == "mask" for face in shown)
        self.errors += line.error is not UNSET

    def close(self, *, complete: bool) -> None:
        """Finish the files; what is not complete is removed, the lines stay to go on from."""
        if self._json is not None and self._json is not sys.stdout.buffer:
            self._json.close()
        if isinstance(self._out, Video):
            self._out.close(complete=complete)


class PictureFolder:
    """Write labelled pictures under the names of their sources."""

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadOutput(f"--out {folder}: {error.strerror}") from error
        self._folder = folder

    def write(self, picture: Picture, frame: Frame) -> None:
        """Write one labelled picture; what the format cannot be written in becomes PNG."""
        name = Path(picture.name)
        suffix = name.suffix.lower() if name.suffix.lower() in PICTURE_SUFFIXES else ".png"
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
    foreign = next((line.source for line in lines if line.source != source), None)
    if foreign is not None:
        raise BadOutput(f"--resume: {path} was written for {foreign}, not for {source}")
    return lines


def _open_lines(path: str, known: list[Line]) -> BinaryIO:
    """Open the JSON lines; what an earlier run wrote whole is kept, anything behind it is cut off."""
    if path == "-":
        return sys.stdout.buffer
    try:
        file = Path(path).open("r+b" if known else "wb")  # noqa: SIM115 -- closed by Outputs.close
        for _ in known:
            file.readline()
        file.truncate()
    except OSError as error:
        raise BadOutput(f"--json {path}: {error.strerror}") from error
    return file
