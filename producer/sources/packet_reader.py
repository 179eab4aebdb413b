"""Read the packets of one track past damaged parts: an open FFmpeg container in, packets and decoded frames out.

A damaged packet is skipped and counted, with one log line for the first. After 100 in a row, reading fails with
FFmpeg's InvalidDataError. Other errors of reading, such as time-outs, are passed on; reading may go on after them. Any
error of decoding but a lack of memory is damage.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Any

import av.error

from producer.sources.network_errors import reason

log = logging.getLogger(__name__)

MAX_DAMAGED = 100  # damaged packets in a row, after which reading fails


class PacketReader:
    """The packets of a track, without damaged ones. One thread uses it.

    damaged: how many packets were skipped so far. last_damage: what is wrong with the last one, in FFmpeg's words.
    asked: when the newest packet was asked for, on the monotonic clock.

    Args:
        container: an open FFmpeg container.
        stream: the track of it to read.
        name: of the source, for the log.
        content: what a packet holds, for the log.
    """

    def __init__(self, container: Any, stream: Any, *, name: str, content: str) -> None:
        self.damaged = 0
        self.last_damage = ""
        self.asked = time.monotonic()
        self._container = container
        self._stream = stream
        self._name = name
        self._content = content
        self._in_a_row = 0

    def packets(self) -> Iterator[Any]:
        """Yield the packets from here on, and at last the empty packet that flushes the decoder.

        Raises:
            av.error.InvalidDataError: too many damaged packets in a row.
            av.error.FFmpegError: the container cannot be read on; after a time-out, call this again to go on.
        """
        packets = self._container.demux(self._stream)
        while True:
            self.asked = time.monotonic()
            try:
                packet = next(packets, None)
            except av.error.InvalidDataError as error:
                self.note_damage(error)
                self._in_a_row += 1
                if self._in_a_row >= MAX_DAMAGED:
                    raise
                packets = self._container.demux(self._stream)
                continue
            except IndexError:  # PyAV, behind the last packet, when the file has more tracks than its beginning says
                return
            if packet is None:
                return
            self._in_a_row = 0
            yield packet

    def decode(self, packet: Any) -> list[Any]:
        """Return the frames that a packet completes; none if it is damaged. packet: None flushes the decoder.

        Raises:
            MemoryError: there is too little memory.
        """
        try:
            return list(self._stream.codec_context.decode(packet))
        except MemoryError:
            raise
        except av.error.FFmpegError as error:  # damage may look like something that FFmpeg has not implemented
            self.note_damage(error)
            return []

    def note_damage(self, error: Exception) -> None:
        """Count a damaged packet, and log the first."""
        self.last_damage = reason(error)
        if self.damaged == 0:
            log.warning("%s: a damaged packet of %s is skipped: %s", self._name, self._content, self.last_damage)
        self.damaged += 1
