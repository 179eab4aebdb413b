"""An RTSP camera for tests with the manners of real ones: it sends H.264 that it encodes itself, over TCP or UDP.

Each session begins with the first picture. Picture N of a clip is of one grey, GREY + N after decoding.
"""

from __future__ import annotations

import base64
import contextlib
import io
import re
import socket
import socketserver
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import av
import numpy as np

PARAMETER_SETS = (7, 8)  # kinds of NAL units: of a sequence, of a picture
START_CODE = re.compile(b"\0\0\0\1|\0\0\1")
MAX_PAYLOAD_BYTES = 1380
CLOCK_HZ = 90_000
GREY = 17
POLL_S = 0.02  # how soon a server notices that it is to end

Send = Callable[[bytes], object]


def grey_clip(pictures: int, *, key_every: int) -> list[list[bytes]]:
    """Return the NAL units of each picture of a clip."""
    encoded = io.BytesIO()
    with av.open(encoded, "w", format="h264") as file:
        options = {"preset": "ultrafast", "tune": "zerolatency", "x264-params": f"keyint={key_every}:scenecut=0"}
        stream = file.add_stream("libx264", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(pictures):
            image = np.full((48, 64, 3), 20 + number % 200, np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        file.mux(stream.encode())
    units: list[list[bytes]] = [[]]
    for nal in filter(None, START_CODE.split(encoded.getvalue())):
        if nal[0] & 31 in (1, 5, *PARAMETER_SETS):
            units[-1].append(nal)
        if nal[0] & 31 in (1, 5):
            units.append([])
    return units[:-1]


@dataclass(kw_only=True)
class Manners:
    """How a camera behaves.

    declared_fps: by its timestamps; None for as it sends.
    transports: those that it accepts. answers_udp: whatever it is asked for.
    in_band: whether parameter sets are in the stream alone, not in its description.
    media: the lines of the description from `m=` on, and payload_type what they say of packets; None for H.264 video.
    status: the answer to DESCRIBE.
    sends: whether pictures follow at all.
    """

    clip: list[list[bytes]] = field(default_factory=list)
    fps: float = 25.0
    declared_fps: float | None = None
    transports: tuple[str, ...] = ("tcp", "udp")
    answers_udp: bool = False
    in_band: bool = False
    media: str | None = None
    payload_type: int = 96
    status: str = "200 OK"
    sends: bool = True


class RtspCamera(socketserver.ThreadingTCPServer):
    """A camera that listens on a port of its own. sent: how many pictures it has sent; setups: transports asked for."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, manners: Manners) -> None:
        super().__init__(("127.0.0.1", 0), _Session)
        self.manners = manners
        self.sent = 0
        self.setups: list[str] = []
        self.closing = threading.Event()
        self.url = f"rtsp://127.0.0.1:{self.server_address[1]}/stream"

    def description(self) -> str:
        """Return the SDP of the stream."""
        head = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\na=control:*\r\n"
        if self.manners.media is not None:
            return head + self.manners.media
        video = "m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=control:track1\r\na=fmtp:96 packetization-mode=1"
        if self.manners.in_band:
            return f"{head}{video}\r\n"
        sets = ",".join(base64.b64encode(nal).decode() for nal in self.manners.clip[0] if nal[0] & 31 in PARAMETER_SETS)
        return f"{head}{video};sprop-parameter-sets={sets}\r\n"


@contextmanager
def rtsp_camera(manners: Manners) -> Iterator[RtspCamera]:
    """Serve a camera until the block ends."""
    with RtspCamera(manners) as camera:
        threading.Thread(target=camera.serve_forever, args=(POLL_S,), daemon=True).start()
        yield camera
        camera.closing.set()
        camera.shutdown()


class _Session(socketserver.StreamRequestHandler):
    server: RtspCamera

    def setup(self) -> None:
        super().setup()
        self._send: Send | None = None
        self._udp: socket.socket | None = None
        self._ended = threading.Event()
        self._lock = threading.Lock()

    def handle(self) -> None:
        answers = {"DESCRIBE": self._describe, "SETUP": self._set_up, "PLAY": self._play}
        with contextlib.suppress(ConnectionError):  # a client that leaves
            while request := self._request():
                method, headers = request
                answers.get(method, self._answer)(headers)

    def finish(self) -> None:
        self._ended.set()
        if self._udp:
            self._udp.close()
        super().finish()

    def _request(self) -> tuple[str, dict[str, str]] | None:
        """Return the next method with its headers; None at the end."""
        while first := self.rfile.read(1):
            if first == b"$":  # a report of the client's
                _, length = struct.unpack(">BH", self.rfile.read(3))
                self.rfile.read(length)
                continue
            method = (first + self.rfile.readline()).decode().split()[0]
            lines = iter(lambda: self.rfile.readline().decode().strip(), "")
            return method, {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return None

    def _describe(self, headers: dict[str, str]) -> None:
        manners = self.server.manners
        if manners.status == "200 OK":
            self._answer(headers, extra="Content-Type: application/sdp\r\n", body=self.server.description())
        else:
            self._answer(headers, manners.status)

    def _set_up(self, headers: dict[str, str]) -> None:
        asked = headers["transport"]
        transport = "tcp" if "TCP" in asked else "udp"
        self.server.setups.append(transport)
        if transport not in self.server.manners.transports:
            self._answer(headers, "461 Unsupported Transport")
        elif transport == "tcp" and not self.server.manners.answers_udp:
            self._send = self._send_interleaved
            self._answer(headers, extra="Session: 7\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n")
        else:
            named = re.search(r"client_port=(\d+)", asked)
            port = int(named[1]) if named else 50_000
            self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._udp.bind(("127.0.0.1", 0))
            self._send = lambda packet: self._udp.sendto(packet, ("127.0.0.1", port))
            own = self._udp.getsockname()[1]
            ports = f"client_port={port}-{port + 1};server_port={own}-{own + 1}"
            self._answer(headers, extra=f"Session: 7\r\nTransport: RTP/AVP;unicast;{ports}\r\n")

    def _play(self, headers: dict[str, str]) -> None:
        self._answer(headers, extra="Session: 7\r\nRange: npt=0.000-\r\n")
        if self.server.manners.sends:
            threading.Thread(target=self._send_clip, daemon=True).start()

    def _answer(self, headers: dict[str, str], status: str = "200 OK", extra: str = "", body: str = "") -> None:
        length = f"Content-Length: {len(body)}\r\n" if body else ""
        text = f"RTSP/1.0 {status}\r\nCSeq: {headers['cseq']}\r\n{extra}{length}\r\n{body}"
        with self._lock:
            self.wfile.write(text.encode())

    def _send_interleaved(self, packet: bytes) -> None:
        with self._lock:
            self.wfile.write(struct.pack(">cBH", b"$", 0, len(packet)) + packet)

    def _send_clip(self) -> None:
        manners, sequence, began = self.server.manners, 0, time.monotonic()
        for number, unit in enumerate(manners.clip):
            stamp = int(number * CLOCK_HZ / (manners.declared_fps or manners.fps))
            for is_last, payload in _payloads(unit):
                sequence += 1
                try:
                    self._send(_rtp(sequence, stamp, payload, manners.payload_type | is_last << 7))
                except OSError:
                    return
            self.server.sent += 1
            if self._ended.wait(max(0.0, began + (number + 1) / manners.fps - time.monotonic())):
                return


def _payloads(unit: list[bytes]) -> Iterator[tuple[bool, bytes]]:
    """Yield the payloads of one picture's packets, and whether each is the last."""
    for nal in unit:
        if len(nal) <= MAX_PAYLOAD_BYTES:
            yield nal is unit[-1], nal
            continue
        pieces = [nal[at : at + MAX_PAYLOAD_BYTES] for at in range(1, len(nal), MAX_PAYLOAD_BYTES)]
        for index, piece in enumerate(pieces):
            is_end = index == len(pieces) - 1
            header = bytes([nal[0] & 0xE0 | 28, nal[0] & 31 | (index == 0) << 7 | is_end << 6])
            yield is_end and nal is unit[-1], header + piece


def _rtp(sequence: int, stamp: int, payload: bytes, kind: int) -> bytes:
    return struct.pack(">BBHII", 0x80, kind, sequence & 0xFFFF, stamp & 0xFFFFFFFF, 7) + payload
