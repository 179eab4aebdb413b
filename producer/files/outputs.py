"""What `label` writes: JSON lines, a folder of labelled pictures, or a labelled video, in the source's order.

A picture or video gets its final name only when it is complete. What cannot be written raises BadOutput, with one line
for people.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path

import cv2
import msgspec
from msgspec import UNSET

from pipeline.vision.arrays import Image
from pipeline.vision.drawing import draw_faces
from pipeline.vision.faces import Face
from pipeline.vision.jpeg import BadImage, decode_jpeg
from pipeline.vision.tracks import FaceTracker
from producer.files.lines import JsonLine, KnownLines, LinesFile
from producer.files.video_out import FALLBACK_FPS, FORMATS, BadOutput, VideoFile, failures_as_bad_output
from producer.sources.picture_file import printable_name
from producer.sources.source import PICTURE_SUFFIXES, SourceFrame
from producer.sources.source_spec import SourceSpec

OTHER_VIDEO_SUFFIXES = (".avi", ".webm", ".m4v", ".mpg", ".ts", ".wmv", ".flv")  # meant as a video, not as a folder
WRITTEN_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})  # by OpenCV
MAX_NAME_BYTES = 255  # of a file, on the file systems that people have


class Outputs:
    """Write each frame to every output that was asked for, and count.

    Args:
        spec: the source.
        json_path: of the JSON lines; "-" for stdout; None for none.
        out_path: a video file, or a folder for pictures; None for none.
        resume: continue after the last complete line of json_path.

    Raises:
        BadOutput: a file cannot be written, is the source or another output, or holds the lines of another source.
    """

    def __init__(self, spec: SourceSpec, *, json_path: str | None, out_path: Path | None, resume: bool) -> None:
        json_file = None if json_path in (None, "-") else Path(json_path)
        if json_path == "":
            raise BadOutput("--json: the name is empty; name a file, or - for stdout")
        if out_path is not None:
            _check_kind(spec, out_path)
        _check_locations(spec, json_file, out_path)
        self.source = printable_name(spec.name)
        self.draws = out_path is not None
        self.frames = self.faces = self.masks = self.errors = 0
        self._tracks = FaceTracker() if spec.kind == "video" else None
        self._known = KnownLines(json_file, self.source) if resume and json_file else None
        self._known_count = self._known.count if self._known else 0
        keep_bytes = self._known.size if self._known else 0
        self._json = LinesFile(json_file, keep_bytes=keep_bytes, created=out_path) if json_path else None
        self._out: PictureWriter | VideoFile | None = None
        if out_path is not None and _is_video(out_path):
            self._out = VideoFile(out_path, sound_from=spec.path)
        elif out_path is not None:
            self._out = PictureWriter(out_path, numbered=spec.kind != "folder")

    def known_line(self, source_frame: SourceFrame) -> JsonLine | None:
        """Return the line that an earlier run wrote for a frame; None when it wrote none.

        Call it once for each frame, in order: the lines are read from their file one after the other.
        """
        if self._known is None or source_frame.index >= self._known_count:
            return None
        line = self._known.read()
        name = printable_name(source_frame.name)
        if (line.frame, line.name) != (source_frame.index, name):
            number = source_frame.index + 1
            raise BadOutput(
                f"--resume: line {number} is for {line.name!r}, but the source has {name!r} at this position"
            )
        return line

    def write(self, source_frame: SourceFrame, jpeg: bytes, line: JsonLine) -> None:
        """Write one frame to every output. jpeg: the frame's pixels where source_frame has none."""
        faces: Sequence[Face] = line.faces
        if self._tracks is not None:
            at_s = source_frame.at_s if source_frame.at_s is not None else line.frame / FALLBACK_FPS
            faces = tracked = self._tracks.update(line.faces, at_s)
            numbered = [
                msgspec.structs.replace(face, track=same.track) for face, same in zip(line.faces, tracked, strict=True)
            ]
            line = msgspec.structs.replace(line, faces=numbered)
        if self._json is not None and line.frame >= self._known_count:
            self._json.write(line)
        if self._out is not None and line.error is UNSET:
            self._out.write(source_frame, draw_faces(_image(source_frame, jpeg), faces))
        self.frames += 1
        self.faces += len(faces)
        self.masks += sum(face.label == "mask" for face in faces)
        self.errors += line.error is not UNSET

    def close(self, *, complete: bool) -> None:
        """Finish the files. An incomplete video is removed; the lines stay, so that a later run can continue.

        Raises:
            BadOutput: a file cannot be finished, or the source was complete with fewer frames than lines.
        """
        shrank = complete and self._known_count > self.frames
        try:
            if self._json is not None:
                self._json.close(complete=complete and not shrank)
        finally:
            if isinstance(self._out, VideoFile):
                self._out.close(complete=complete and not shrank)
        if shrank:
            raise BadOutput(
                f"--resume: there are {self._known_count} lines, but {self.source} has only {self.frames} pictures "
                "now; label it without --resume"
            )


class PictureWriter:
    """Write labelled pictures under their own names; numbered: under the video's name and the frame's index."""

    def __init__(self, folder: Path, *, numbered: bool) -> None:
        self._numbered = numbered
        with failures_as_bad_output(f"--out {folder}"):
            folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._part_name = f".maskwatch-{secrets.token_hex(4)}.part"  # this run's own: others may write here, too
        self._written: set[Path] = set()

    def write(self, source_frame: SourceFrame, image: Image) -> None:
        """Write one labelled picture; as PNG where OpenCV cannot write the file's own format."""
        name = Path(printable_name(source_frame.name))
        if self._numbered:
            name = Path(f"{name.stem}-{source_frame.index:06d}.jpg")
        suffix = name.suffix.lower() if name.suffix.lower() in WRITTEN_SUFFIXES else ".png"
        path = self._path_for(name, "" if suffix == name.suffix.lower() else suffix)
        written, packed = cv2.imencode(suffix, image)
        if not written:
            raise BadOutput(
                f"--out {path}: OpenCV cannot write a {suffix} picture of {image.shape[1]}x{image.shape[0]}"
            )
        part = path.with_name(self._part_name)
        with failures_as_bad_output(f"--out {path}"):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                part.write_bytes(packed.tobytes())
                part.replace(path)
            except OSError:
                part.unlink(missing_ok=True)
                raise

    def _path_for(self, name: Path, suffix: str) -> Path:
        """Return where to write a picture, which is not where another one was written."""
        path = self._folder / name.parent / _fitting(name.stem, name.suffix + suffix)
        number = 2
        while path in self._written:
            path = self._folder / name.parent / _fitting(name.stem, f"-{number}{name.suffix}{suffix}")
            number += 1
        self._written.add(path)
        return path


def _fitting(stem: str, end: str) -> str:
    """Return a file's name of these two, with a shorter stem if it is too long."""
    return stem.encode()[: MAX_NAME_BYTES - len(end.encode())].decode(errors="ignore") + end


def _image(source_frame: SourceFrame, jpeg: bytes) -> Image:
    """Return the image to draw on; its file may have been damaged since an earlier run labelled it."""
    if source_frame.image is not None:
        return source_frame.image
    try:
        return decode_jpeg(source_frame.jpeg or jpeg)
    except BadImage as error:
        reason = source_frame.error or error
        raise BadOutput(f"--out: {source_frame.name} was labelled, but cannot be read any more: {reason}") from error


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in FORMATS


def _check_kind(spec: SourceSpec, out: Path) -> None:
    """Reject a name that does not fit what would be written there."""
    suffix = out.suffix.lower()
    if _is_video(out):
        if spec.kind == "folder":
            raise BadOutput(f"--out {out}: a folder of pictures is labelled into a folder, not into a video")
        if out.is_dir():
            raise BadOutput(f"--out {out}: that is a folder; a video needs another name")
    elif suffix in OTHER_VIDEO_SUFFIXES and not out.is_dir():
        raise BadOutput(f"--out {out}: {suffix} is not written; name a {', '.join(FORMATS)} file, or a folder")
    elif suffix in PICTURE_SUFFIXES and not out.is_dir():
        raise BadOutput(f"--out {out}: labelled pictures go into a folder; name one")


def _check_locations(spec: SourceSpec, json: Path | None, out: Path | None) -> None:
    """Reject outputs that would overwrite the source or each other."""
    sources = [] if spec.path is None else [spec.path]
    if spec.path is not None and spec.kind == "folder" and spec.path.is_file():
        sources.append(spec.path.parent)  # its labelled copy would have its name
    outputs = [] if out is None else [out, out.with_name(out.name + ".part")] if _is_video(out) else [out]
    if any(_is_same(output, source) for output in outputs for source in sources):
        raise BadOutput(f"--out {out}: that would write over the source; name another location")
    if spec.recursive and out and any(out.resolve().is_relative_to(source.resolve()) for source in sources):
        raise BadOutput(
            f"--out {out}: with --recursive, the next run would label what is in there; name another folder"
        )
    if json is None:
        return
    if any(_is_or_is_picture_in(json, source) for source in sources):
        raise BadOutput(f"--json {json}: that would write over the source; name another file")
    if any(_is_or_is_picture_in(json, output) for output in outputs):
        raise BadOutput(f"--json {json}: that is where --out {out} is written; name another file")


def _is_or_is_picture_in(file: Path, location: Path) -> bool:
    target = file.resolve()
    is_picture = target.suffix.lower() in PICTURE_SUFFIXES
    return _is_same(target, location) or (is_picture and _is_same(target.parent, location))


def _is_same(one: Path, other: Path) -> bool:
    if one.exists() and other.exists():
        return one.samefile(other)
    return one.resolve() == other.resolve()
