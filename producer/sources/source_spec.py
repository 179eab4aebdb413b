"""Which source a text names: a camera's number, a file, a folder, a URL, or `demo`; parsed once into a record.

`parse_source` checks the text without opening anything, `SourceSpec.open` opens the source. Both raise SourceFailed,
with one line for people. The modules that read sources are imported when one is opened: they load OpenCV and FFmpeg.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from pipeline.bus.connection import hide_password
from producer.sources.picture_signature import is_picture
from producer.sources.source import PICTURE_SUFFIXES, Kind, RtspTransport, Source, SourceFailed

UNREADABLE = (
    "this URL cannot be parsed as SCHEME://USER:PASSWORD@HOST:PORT/PATH with a number for the port; in user and "
    "password write @ as %40, / as %2F, # as %23, ? as %3F, % as %25, : as %3A, [ as %5B and ] as %5D"
)
_SCHEMES: dict[str, Kind] = {"rtsp": "rtsp", "rtsps": "rtsp", "http": "http", "https": "http"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSpec:
    """A source that a user named.

    text: as the user wrote it; a URL may hold a password.
    name: the text for logs and outputs, its password hidden.
    path: the file, folder or device; None for a URL and the demo.
    recursive: of a folder: with the pictures of the folders in it.
    numbered, frames: of the demo: each frame shows its index; how many frames there are, None for no end.
    """

    text: str = field(repr=False)
    name: str
    kind: Kind
    path: Path | None = None
    recursive: bool = False
    numbered: bool = False
    frames: int | None = None

    @property
    def may_come_back(self) -> bool:
        """Whether a source of this kind is worth opening again after it failed."""
        return self.kind in ("webcam", "rtsp", "http")

    def open(
        self, *, fps: float = 20.0, seed: int = 0, rtsp_transport: RtspTransport = "auto", hwaccel: str = "none"
    ) -> Source:
        """Open the source.

        Args:
            fps: frame rate of a source that can produce frames at any rate (the demo, a still picture that is polled);
                of a webcam, the rate that its mode should reach.
            seed: of what is random in the demo.
            rtsp_transport: of an RTSP camera; auto is TCP, or UDP where the camera rejects TCP.
            hwaccel: what decodes a network camera: none for the CPU, auto, or FFmpeg's name of a kind of device.

        Raises:
            SourceFailed: it cannot be opened; says what to do.
        """
        if self.kind == "demo":
            from producer.sources.demo.scene import DemoSource

            return DemoSource(numbered=self.numbered, frames=self.frames, fps=fps, seed=seed)
        if self.kind == "webcam" and self.path:
            from producer.sources.webcam import WebcamSource

            return WebcamSource(self.path, fps=fps)
        if self.kind == "folder" and self.path:
            from producer.sources.folder import FolderSource

            return FolderSource(self.path, recursive=self.recursive)
        if self.path is None:
            from producer.sources.open_network import open_network

            return open_network(self, fps=fps, transport=rtsp_transport, hwaccel=hwaccel)
        from producer.sources.video import VideoSource

        return VideoSource(self)


def parse_source(text: str) -> SourceSpec:
    """Return which source a text names, for example `0`, `film.mp4`, `rtsp://camera` or `demo:numbered,frames=200`.

    Raises:
        SourceFailed: it can never name one: an unknown scheme or parameter, or a path that does not exist.
    """
    if text == "demo" or text.startswith("demo:"):
        return _parse_demo(text)
    if "://" in text:
        return SourceSpec(text=text, name=hide_password(text), kind=_kind_of_url(text))
    if text.isdecimal() or text.startswith("/dev/"):
        device = Path(f"/dev/video{int(text)}" if text.isdecimal() else text)
        return SourceSpec(text=text, name=text, kind="webcam", path=device)
    return _parse_path(text)


def _parse_demo(text: str) -> SourceSpec:
    numbered, frames = False, None
    for parameter in filter(None, text.removeprefix("demo").removeprefix(":").split(",")):
        name, _, value = parameter.partition("=")
        if parameter == "numbered":
            numbered = True
        elif name == "frames" and value.isdecimal() and int(value) > 0:
            frames = int(value)
        else:
            raise SourceFailed(
                f"{text}: {parameter!r} is not a parameter of the demo; its parameters are numbered and frames=N, "
                "separated by commas"
            )
    return SourceSpec(text=text, name=text, kind="demo", numbered=numbered, frames=frames)


def _parse_path(text: str) -> SourceSpec:
    try:
        path = Path(text).expanduser()
        exists, is_folder = path.exists(), path.is_dir()
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: no user ~name; ValueError: no file name
        raise SourceFailed(
            f"{hide_password(text)!r} cannot be read: {getattr(error, 'strerror', None) or error}"
        ) from error
    if not exists:
        raise SourceFailed(
            f"there is no file or folder {hide_password(text)!r}; a source is a camera's number, a video file, a "
            "folder of pictures, an rtsp:// or http:// URL, or demo"
        )
    is_still = path.suffix.lower() in PICTURE_SUFFIXES or (path.is_file() and is_picture(path))
    kind: Kind = "folder" if is_folder or is_still else "video"
    return SourceSpec(text=text, name=text, kind=kind, path=path)


def _kind_of_url(text: str) -> Kind:
    try:
        parts = urlsplit(text)
        kind, host = _SCHEMES.get(parts.scheme.lower()), parts.hostname
        _ = parts.port  # raises when it is not a number
        _check_password(parts)
    except ValueError:  # its text may contain a password
        raise SourceFailed(UNREADABLE) from None
    if kind is None:
        scheme = text.partition("://")[0]  # no more: the rest of a foreign URL may be a key
        raise SourceFailed(
            f"{hide_password(scheme)}:// cannot be read: sources have the schemes {', '.join(sorted(_SCHEMES))}"
        )
    if not host:
        raise SourceFailed(f"{hide_password(text)} names no host")
    return kind


def _check_password(parts: SplitResult) -> None:
    """Check that no raw character of a password ended the host's part of a URL too early.

    Raises:
        ValueError: an @ comes later, so what was taken for host and port may be part of user and password.
    """
    credentials_may_go_on = "@" in parts.netloc or parts.netloc.rpartition("]")[2].count(":") > 0
    name_of_parameter, _, _ = parts.query.partition("=")
    if "@" in parts.fragment or (credentials_may_go_on and "@" in parts.path + name_of_parameter):
        raise ValueError("a raw character in a password")
