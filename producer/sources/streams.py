"""Choose the tracks of a video file: which pictures are its film, and which sound belongs to it."""

from __future__ import annotations

import logging
from typing import Any

from av.stream import Disposition

log = logging.getLogger(__name__)


def film_of(container: Any) -> Any | None:
    """Return the video track to read: FFmpeg's choice, never a cover picture; None if there is none with a decoder."""
    films = [
        stream
        for stream in container.streams.video
        if stream.codec_context is not None and not stream.disposition & Disposition.attached_pic
    ]
    best = container.streams.best("video")
    return best if best in films else max(films, key=_pixels, default=None)


def sound_of(container: Any, name: str) -> Any | None:
    """Return the sound track to read: FFmpeg's choice, or else the first with a decoder; None if there is none.

    name: of the file, for the log.
    """
    playable = [track for track in container.streams.audio if _is_playable(track)]
    for track in container.streams.audio:
        if track not in playable:
            log.warning("%s: the sound of track %d cannot be decoded: left out", name, track.index)
    best = container.streams.best("audio")
    return best if best in playable else next(iter(playable), None)


def start_s(stream: Any) -> float | None:
    """Return when a track begins on the clock of its file, in seconds; None if the file does not say it."""
    return None if stream.start_time is None else float(stream.start_time * stream.time_base)


def interval_s(stream: Any, default_s: float) -> float:
    """Return the usual time between two frames of a video track; default_s if the file does not say it."""
    rate = stream.average_rate or stream.guessed_rate
    return float(1 / rate) if rate else default_s


def _pixels(stream: Any) -> int:
    return int(stream.codec_context.width * stream.codec_context.height)


def _is_playable(track: Any) -> bool:
    """Return whether there is a decoder for a sound track, and enough of it to know how it sounds."""
    return track.codec_context is not None and track.codec_context.sample_rate > 0
