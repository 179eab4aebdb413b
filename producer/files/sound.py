"""Copy the sound of a video beside its labelled frames: packets of the source in, packets of the written file out.

Sound is never a reason to lose a video: damaged pieces are left out, counted, and said in one line; a track that cannot
be decoded is left out, too. Times are those of the video: 0 is where its film begins, and jumps back are bridged.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
from av.filter import Graph

from producer.sources.packet_reader import PacketReader
from producer.sources.streams import film_of, sound_of, start_s
from producer.sources.timestamps import SteadyTimes

log = logging.getLogger(__name__)

COPIED = ("aac", "mp3", "ac3")  # codecs that MP4 players support; other sound is converted to AAC
AAC_SAMPLES = 1024  # of a frame
# Silence where a piece is missing; up to 1,000 samples a second of stretching, so that sound stays with the picture.
FILL_GAPS = "async=1000:first_pts=0"
OTHER_RATE = 48_000  # Hz, for sound of a rate that AAC does not have
EARLIEST_S = -0.1  # the silence that encoders begin with; sound from before that has no picture


class Sound:
    """The source's sound, read by a second demuxer and written along with the frames; nothing when none can be read.

    source: a video file; None for no sound. file: an open output.
    """

    def __init__(self, source: Path | None, file: Any) -> None:
        self._file = file
        self._input: Any = None
        self._stream: Any = None
        self._packets: Iterator[Any] = iter(())
        self._next: Any = None
        if source is None:
            return
        self._name = source.name
        self._input = av.open(f"file:{source}", metadata_errors="replace")  # a file's name may look like a URL
        self._stream = sound_of(self._input, self._name)
        self._reader = PacketReader(self._input, self._stream, name=self._name, content="sound")
        if self._stream is None:
            self.close()

    def start(self) -> None:
        """Add the sound to the file; all streams must be there before the first packet."""
        if self._stream is None:
            return
        film = film_of(self._input)
        zero_s = start_s(film) if film is not None else None
        codec = self._stream.codec_context
        self._times = SteadyTimes(zero_s=zero_s, interval_s=(codec.frame_size or AAC_SAMPLES) / codec.sample_rate)
        if codec.name in COPIED:
            self._packets = self._copied(self._file.add_stream_from_template(self._stream))
        else:
            layout = "mono" if codec.channels == 1 else "stereo"
            self._packets = self._encoded(
                self._file.add_stream("aac", rate=_aac_rate(codec.sample_rate), layout=layout)
            )
        self._next = next(self._packets, None)

    def write_until(self, at_s: float) -> None:
        """Write the sound up to this time of the video, in seconds."""
        while self._next is not None and float(self._next.pts * self._next.time_base) <= at_s:
            try:
                self._file.mux(self._next)
            except av.error.InvalidDataError as error:
                self._reader.note_damage(error)
            self._next = next(self._packets, None)

    def close(self) -> None:
        """Stop reading, and say what was left out."""
        if self._input is not None:
            if self._reader.damaged:
                log.warning("%s: %d damaged packets of sound were left out", self._name, self._reader.damaged)
            self._input.close()
            self._input = None

    def _copied(self, target: Any) -> Iterator[Any]:
        for packet, at_s in self._timed(self._demuxed()):
            damaged = self._reader.damaged
            self._reader.decode(packet)  # players differ in what they do with damaged sound
            if self._reader.damaged == damaged:
                packet.pts = packet.dts = round(at_s / packet.time_base)
                packet.stream = target
                yield packet

    def _encoded(self, target: Any) -> Iterator[Any]:
        graph: Graph | None = None
        built_for = None
        for frame, at_s in self._timed(self._decoded()):
            frame.time_base = Fraction(1, frame.sample_rate)
            frame.pts = round(at_s * frame.sample_rate)
            kind = (frame.format.name, frame.layout.name, frame.sample_rate)
            if kind != built_for:
                yield from self._flushed(graph, target)
                graph, built_for = _graph(frame, target), kind
            if graph is not None:
                graph.push(frame)
                yield from _encoded_from(graph, target)
        yield from self._flushed(graph, target)
        yield from target.encode(None)

    def _flushed(self, graph: Graph | None, target: Any) -> Iterator[Any]:
        if graph is not None:
            graph.push(None)
            yield from _encoded_from(graph, target)

    def _timed(self, pieces: Iterator[Any]) -> Iterator[tuple[Any, float]]:
        """Yield packets or frames with their times in the video, without those from before it begins."""
        for piece in pieces:
            recorded = piece.pts if piece.pts is not None else piece.dts
            at_s = self._times.at_s(None if recorded is None else float(recorded * piece.time_base))
            if at_s > EARLIEST_S:
                yield piece, at_s

    def _decoded(self) -> Iterator[Any]:
        for packet in self._demuxed():
            yield from self._reader.decode(packet)
        yield from self._reader.decode(None)

    def _demuxed(self) -> Iterator[Any]:
        with contextlib.suppress(av.error.InvalidDataError):  # too much damage: the sound ends here
            for packet in self._reader.packets():
                if packet.size:  # the last one is empty
                    yield packet


def _graph(frame: Any, target: Any) -> Graph:
    """Return what makes frames like this one into those that the encoder takes, silent where there is a gap."""
    graph = Graph()
    source = graph.add_abuffer(
        sample_rate=frame.sample_rate, format=frame.format.name, layout=frame.layout.name, time_base=frame.time_base
    )
    wanted = f"sample_fmts={target.format.name}:sample_rates={target.rate}:channel_layouts={target.layout.name}"
    graph.link_nodes(
        source, graph.add("aresample", FILL_GAPS), graph.add("aformat", wanted), graph.add("abuffersink")
    ).configure()
    graph.set_audio_frame_size(AAC_SAMPLES)
    return graph


def _encoded_from(graph: Graph, target: Any) -> Iterator[Any]:
    while True:
        try:
            frame = graph.pull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
        yield from target.encode(frame)


def _aac_rate(rate: int) -> int:
    """Return the sample rate to encode with: the source's, if AAC has it."""
    return rate if rate in (av.codec.Codec("aac", "w").audio_rates or ()) else OTHER_RATE
