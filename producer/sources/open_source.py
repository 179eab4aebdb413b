"""Open a source by its text: a camera's number, a file, a folder, a URL, or `demo`.

`kind_of` tells what a text names without opening it; `open_source` opens it. Both raise SourceFailed, in one line for
people, when there is nothing of that kind.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from pipeline.bus.connection import hide_password
from producer.sources.demo.scene import DemoSource, parameters_of
from producer.sources.folder import PICTURE_SUFFIXES, FolderSource
from producer.sources.source import Kind, Source, SourceFailed, SourceFrame
from producer.sources.video import VideoSource
from producer.sources.webcam import WebcamSource

__all__ = ["MAY_COME_BACK", "Source", "SourceFailed", "SourceFrame", "kind_of", "open_source"]

MAY_COME_BACK: frozenset[Kind] = frozenset({"webcam", "rtsp", "http"})  # kinds worth trying again when they fail

_SCHEMES: dict[str, Kind] = {"rtsp": "rtsp", "rtsps": "rtsp", "http": "http", "https": "http"}


def kind_of(text: str) -> Kind:
    """Return what kind of source a text names.

    Raises:
        SourceFailed: it can never name one: an unknown scheme or parameter, or a path that does not exist.
    """
    if text == "demo" or text.startswith("demo:"):
        parameters_of(text)
        return "demo"
    if "://" in text:
        return _kind_of_url(text)
    if text.isdecimal() or text.startswith("/dev/"):
        return "webcam"
    path = Path(text).expanduser()
    if path.is_dir() or (path.suffix.lower() in PICTURE_SUFFIXES and path.exists()):
        return "folder"
    if path.exists():
        return "video"
    raise SourceFailed(
        f"there is no file or folder {text!r}; a source is a camera's number, a video file, a folder of pictures, "
        "an rtsp:// or http:// URL, or demo"
    )


def open_source(text: str, *, fps: float = 20.0, seed: int = 0) -> Source:
    """Open the source that a text names.

    Args:
        text: `0`, `/dev/video0`, a video file, a picture, a folder of pictures, rtsp(s)://, http(s)://, `demo` or
            `demo:numbered`.
        fps: asked of sources that make pictures at any rate.
        seed: of what is random in the demo.

    Raises:
        SourceFailed: it cannot be opened; says what to do.
    """
    kind = kind_of(text)
    if kind == "demo":
        return DemoSource(text, fps=fps, seed=seed)
    if kind == "webcam":
        return WebcamSource(text)
    if kind == "folder":
        return FolderSource(Path(text).expanduser())
    return VideoSource(str(Path(text).expanduser()) if kind == "video" else text, kind)


def _kind_of_url(text: str) -> Kind:
    try:
        parts = urlsplit(text)
        kind, host = _SCHEMES.get(parts.scheme.lower()), parts.hostname
        _ = parts.port  # raises when it is not a number
    except ValueError as error:
        raise SourceFailed(f"{text.partition('://')[0]}://... is not a URL: {error}") from error
    if kind is None:
        raise SourceFailed(f"{hide_password(text)}: sources have the schemes {', '.join(sorted(_SCHEMES))}")
    if not host:
        raise SourceFailed(f"{hide_password(text)} names no host")
    return kind
