"""Open the URL of a network camera: find out what it serves, and open the source that reads it.

An http URL is asked first: JPEGs are read by us, anything else by FFmpeg. A recording, which has an end, is a video.
"""

from __future__ import annotations

import http.client

from producer.sources.http_client import Answer, HttpClient, NotHttp
from producer.sources.http_pictures import HttpPictures
from producer.sources.jpeg_splitter import START
from producer.sources.network import NetworkSource
from producer.sources.source import RtspTransport, Source, SourceFailed
from producer.sources.source_spec import SourceSpec
from producer.sources.video import VideoSource

PAGES = ("text/html", "application/json", "application/xhtml+xml")  # what a wrong path shows


def open_network(spec: SourceSpec, *, fps: float, transport: RtspTransport, hwaccel: str) -> Source:
    """Open a network camera.

    Args:
        fps: how often a still picture is asked for.
        transport, hwaccel: as NetworkSource takes them.

    Raises:
        SourceFailed: it cannot be opened; says why.
    """
    if spec.kind == "http" and (pictures := _open_pictures(spec, fps)):
        return pictures
    source = NetworkSource(spec.text, spec.name, spec.kind, transport=transport, hwaccel=hwaccel)
    if source.is_live:
        return source
    source.close()
    return VideoSource(spec)


def _open_pictures(spec: SourceSpec, fps: float) -> HttpPictures | None:
    """Return the open camera if it serves JPEGs; None if FFmpeg is to read what it serves."""
    client = HttpClient(spec.text, spec.name)
    try:
        answer = client.get()
    except NotHttp:  # as an old streaming server, whose first line is its own
        return None
    if answer.content_type.startswith(("multipart/", "image/")) or _is_jpeg(answer):
        return HttpPictures(client, answer, spec.name, fps)
    answer.response.close()
    client.close()
    if answer.content_type in PAGES:
        raise SourceFailed(f"{spec.name} serves {answer.content_type}, no video; check the path of the address")
    return None


def _is_jpeg(answer: Answer) -> bool:
    """Return whether an answer is one JPEG, as some cameras send it without its type."""
    if answer.content_type.startswith("video/") or answer.response.length is None:  # without a length: a stream
        return False
    try:
        return answer.response.peek(len(START)).startswith(START)
    except (OSError, http.client.HTTPException):
        return False
