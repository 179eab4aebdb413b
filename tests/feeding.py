"""A producer and workers in a test: they publish real frames and results as the product does."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import numpy as np
import simple_websocket
from conftest import QuickServer, Server, wait_until
from wsproto import ConnectionType, WSConnection
from wsproto.events import BytesMessage, Request, TextMessage

from pipeline.bus import messages
from pipeline.bus.clock import Clock
from pipeline.bus.connection import connect
from pipeline.bus.frame_ring import FrameRing
from pipeline.bus.keys import LIVE_PIXELS_MS
from pipeline.bus.messages import FaceCrops, Frame, FrameResult, LeaseHolder, Reason
from pipeline.bus.reader import Entry, Reader
from pipeline.bus.writer import Writer
from pipeline.runtime.worker_context import WorkerContext
from pipeline.vision.arrays import Image
from pipeline.vision.faces import Box, Face, Label
from pipeline.vision.jpeg import encode_jpeg

BLOCK_PX = 24  # side of one block of the number that a picture carries
BITS = 16
REPOSITORY = Path(__file__).resolve().parent.parent


def numbered_picture(number: int, width: int = 640, height: int = 360) -> Image:
    """Return a grey image with a number as black and white blocks in its lower left corner, lowest bit first."""
    picture = np.full((height, width, 3), 120, np.uint8)
    for bit in range(BITS):
        picture[-BLOCK_PX:, bit * BLOCK_PX : (bit + 1) * BLOCK_PX] = 255 if number >> bit & 1 else 0
    return picture


def number_in(picture: Image) -> int:
    """Return the number in a numbered image."""
    row = picture[-BLOCK_PX // 2, BLOCK_PX // 2 :: BLOCK_PX][:BITS]
    return sum(1 << bit for bit, pixel in enumerate(row) if pixel.mean() > 127)


def face(label: Label = "mask", confidence: float = 0.96, box: Box = (200, 80, 320, 220)) -> Face:
    return Face(box=box, score=0.9, label=label, confidence=confidence)


class Feed:
    """One camera's producer, and a worker for its frames."""

    def __init__(self, server: Server, camera: str = "demo", *, deadline_s: float = 60.0) -> None:
        self._deadline_s = deadline_s
        self.camera = camera
        self.start = time.time_ns() // 1_000_000
        self.seq = 0
        self._server = server
        token = messages.encode(LeaseHolder(host="test", pid=os.getpid(), token=secrets.token_hex(4)))
        self._writer = Writer(server.shard, camera=camera, token=token, pixels_ms=LIVE_PIXELS_MS)
        self._reader = Reader(server.bus, stage="frames", record_type=Frame, consumer=f"test-{camera}")
        self._reader.read(1)  # creates the group
        server.client.set(f"{{s0}}:lease:{camera}", token)
        server.client.zadd("{s0}:cameras", {camera: server.clock.now()})

    def leave(self) -> None:
        """Release the camera's name, as a producer does at its end."""
        self._server.client.delete(f"{{s0}}:lease:{self.camera}")

    def publish(self, jpeg: bytes | None = None, width: int = 640, height: int = 360, *, age_s: float = 0.0) -> Frame:
        """Publish the next frame; by default it carries its seq. age_s: how long ago it was captured."""
        self.seq += 1
        now = self._server.clock.now()
        frame = Frame(
            frame_id=messages.frame_id(self.camera, self.start, self.seq),
            camera=self.camera,
            start=self.start,
            seq=self.seq,
            width=width,
            height=height,
            pixels_key=f"{{s0}}:pixels:{self.camera}:{self.start}:{self.seq}",
            captured_at=now - age_s,
            deadline_at=now + self._deadline_s,
        )
        picture = jpeg or encode_jpeg(numbered_picture(self.seq, width, height), 90)
        self._writer.publish(frame, picture)
        return frame

    def take(self) -> Entry[Frame]:
        """Read the oldest waiting frame, as a worker does."""
        return wait_until(lambda: self._reader.read(1), 5, "a frame waits")[0]

    def label(self, *faces: Face) -> FrameResult:
        """Label the oldest waiting frame."""
        return self.finish(self.take(), *faces)

    def finish(self, entry: Entry[Frame], *faces: Face) -> FrameResult:
        """Label a frame that was taken."""
        result = FrameResult.for_frame(entry.record, faces=list(faces), model="test", seconds={})
        self._reader.finish(entry, result)
        return result

    def forward(self, crops: Image) -> FaceCrops:
        """Publish a frame and pass the crops of its faces on, as a detector does."""
        self.publish()
        entry = self.take()
        faces = FaceCrops.for_frame(
            entry.record,
            boxes=[(200, 80, 320, 220)] * len(crops),
            scores=[0.9] * len(crops),
            crop_px=crops.shape[1],
            seconds={},
        )
        self._reader.forward(entry, faces, crops.tobytes())
        return faces

    def forward_shared(self, ring: FrameRing, image: Image, boxes: list[Box], crops: Image | None = None) -> FaceCrops:
        """Publish a frame, and pass on where its image is and where its faces are, as a detector does with a file's.

        crops: of the faces, as if a classifier needed them; None for none.
        """
        self.publish(width=image.shape[1], height=image.shape[0])
        entry = self.take()
        frame = msgspec.structs.replace(entry.record, shared=ring.put(image), deadline_at=None)
        scores = [0.9] * len(boxes)
        crop_boxes = boxes if crops is None else None
        faces = FaceCrops.for_frame(frame, boxes=boxes, scores=scores, crop_px=8, seconds={}, crop_boxes=crop_boxes)
        self._reader.forward(entry, faces, b"" if crops is None else crops.tobytes())
        return faces

    def drop(self, reason: Reason = "stale") -> None:
        """Drop the oldest waiting frame."""
        self._reader.drop(self.take(), reason)

    def show(self, *faces: Face) -> FrameResult:
        """Publish a frame and label it."""
        self.publish()
        return self.label(*faces)


@contextmanager
def serving() -> Iterator[Server]:
    """Run a Valkey for longer than one test."""
    folder = Path(tempfile.mkdtemp(prefix="mw-"))
    url = f"unix://{folder}/s"
    client = connect(url)
    try:
        with QuickServer(port=0, unix_socket_path=folder / "s", config={"save": "", "appendonly": "no"}) as process:
            yield Server(url, client, Clock(client), process)
    finally:
        client.close()
        shutil.rmtree(folder)


@contextmanager
def feeding(
    feeds: Sequence[Feed], faces: Sequence[Face], fps: float = 20.0, jpeg: bytes | None = None
) -> Iterator[None]:
    """Publish and label frames of some cameras until the block ends. jpeg: of every frame; None: numbered pictures."""
    ended = threading.Event()

    def feed() -> None:
        while not ended.wait(1 / fps):
            for one in feeds:
                one.publish(jpeg)
                one.label(*faces)

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def alive(server: Server, *roles: str) -> Iterator[None]:
    """Send heartbeats of processes with these roles."""
    contexts = [WorkerContext(role, server.url) for role in roles]
    threads = [threading.Thread(target=context.send_heartbeats) for context in contexts]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for context, thread in zip(contexts, threads, strict=True):
            context.request_stop()
            thread.join()
            context.client.close()


class Page:
    """A browser's socket in a test; it acknowledges frames only when the test does."""

    def __init__(self, viewer_url: str) -> None:
        address = viewer_url.replace("http", "ws", 1) + "socket.io/?EIO=4&transport=websocket"
        self._socket = simple_websocket.Client(address)
        self._socket.send("40")
        wait_until(lambda: (self._receive(1) or "").startswith("40"), 5, "the socket is open")

    def emit(self, event: str, *arguments: object) -> None:
        self._socket.send("42" + json.dumps([event, *arguments]))

    def wait_for(self, event: str, within_s: float = 5) -> list[Any]:
        """Return the arguments of the next event of this name; others are skipped."""
        return wait_until(lambda: self.next(event), within_s, f"event {event}")

    def wait_for_frame(self, *, labelled: bool = True) -> tuple[dict[str, Any], bytes]:
        """Return the next frame of this kind; all that come are acknowledged."""
        while True:
            metadata, jpeg = self.wait_for("frame")
            self.emit("ack", metadata["camera"], metadata["frame_id"])
            if metadata["labelled"] == labelled:
                return metadata, jpeg

    def next(self, event: str, within_s: float = 0.2) -> list[Any] | None:
        """Return the arguments of the next event if it is of this name, None when it is not or none comes."""
        found = self.next_event(within_s)
        return found[1] if found and found[0] == event else None

    def next_event(self, within_s: float = 0.2) -> tuple[str, list[Any]] | None:
        """Return the name and arguments of the next event, None when none comes."""
        text = self._receive(within_s)
        if not text or text[:2] not in ("42", "45"):
            return None
        name, *arguments = json.loads(text[text.index("[") :])
        return name, [self._receive(5) if isinstance(one, dict) and "_placeholder" in one else one for one in arguments]

    def frames(self, for_s: float) -> list[int]:
        """Return the seqs of the frames that come in a while, none of them acknowledged."""
        ends, seqs = time.monotonic() + for_s, []
        while (left := ends - time.monotonic()) > 0:
            if got := self.next("frame", left):
                seqs.append(got[0]["seq"])
        return seqs

    def close(self) -> None:
        with contextlib.suppress(simple_websocket.ConnectionClosed):
            self._socket.close()

    def _receive(self, within_s: float) -> Any:
        message = self._socket.receive(within_s)
        if message == "2":
            self._socket.send("3")
            return self._receive(within_s)
        return message


class SlowPage:
    """A browser's socket behind a slow link, with small buffers; it acknowledges each frame as soon as it arrives.

    frames: of each frame, when the viewer sent it and when it arrived, in Unix seconds.
    """

    def __init__(self, viewer_url: str, cameras: list[str], bytes_per_s: float) -> None:
        address = urlsplit(viewer_url)
        self.frames: list[tuple[float, float]] = []
        self._cameras = cameras
        self._bytes_per_s = bytes_per_s
        self._received: deque[str | bytes] = deque()
        self._partial: str | bytes | None = None
        self._link = threading.Event()  # never set
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        self._socket.settimeout(10)
        self._socket.connect((str(address.hostname), int(address.port or 80)))
        self._protocol = WSConnection(ConnectionType.CLIENT)
        target = "/socket.io/?EIO=4&transport=websocket"
        self._socket.sendall(self._protocol.send(Request(host=address.netloc, target=target)))

    def wait_for_frame(self) -> str:
        """Acknowledge the next frame and return its camera; everything else is answered."""
        while True:
            message = str(self._next())
            if message == "2":
                self._send("3")
            elif message.startswith("0"):
                self._send("40")
            elif message.startswith("40"):
                self._send("42" + json.dumps(["watch", self._cameras]))
            elif message[:2] in ("42", "45"):
                event, *arguments = json.loads(message[message.index("[") :])
                if event == "probe":
                    self._send("42" + json.dumps(["probe", *arguments]))
                elif event == "frame":
                    self._next()
                    told = arguments[0]
                    self.frames.append((told["captured_at"] + told["age_ms"] / 1000, time.time()))
                    self._send("42" + json.dumps(["ack", told["camera"], told["frame_id"]]))
                    return str(told["camera"])

    def close(self) -> None:
        self._socket.close()

    def _send(self, message: str) -> None:
        self._socket.sendall(self._protocol.send(TextMessage(data=message)))

    def _next(self) -> str | bytes:
        while not self._received:
            received = self._socket.recv(4096)
            assert received, "the viewer has closed the socket"
            self._link.wait(len(received) / self._bytes_per_s)
            self._protocol.receive_data(received)
            for event in self._protocol.events():
                self._take(event)
        return self._received.popleft()

    def _take(self, event: object) -> None:
        if isinstance(event, (TextMessage, BytesMessage)):
            self._partial = event.data if self._partial is None else self._partial + event.data
            if event.message_finished:
                self._received.append(self._partial)
                self._partial = None


@dataclass(frozen=True)
class Viewer:
    """A viewer that runs as a process of its own."""

    url: str
    process: subprocess.Popen[str]


@contextmanager
def viewing(redis_url: str, *, before: str = "", **settings: object) -> Iterator[Viewer]:
    """Run a viewer until the block ends; it must then end by itself. before: what its process executes first."""
    program = (
        "import sys, json; from pipeline.runtime.settings import settings_from; from viewer import app;"
        f"from pipeline.runtime.logs import configure_logging; configure_logging(as_json=False); {before}\n"
        "sys.exit(app.main(settings_from(json.loads(sys.argv[1]))))"
    )
    values = json.dumps({"redis_url": redis_url, "port": 0} | settings)
    descriptors = [fd for name, fd in settings.items() if name == "parent_fd" and isinstance(fd, int)]
    process = subprocess.Popen(
        [sys.executable, "-c", program, values],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
        pass_fds=descriptors,
        start_new_session=True,
    )
    assert process.stdout
    line = process.stdout.readline()
    try:
        yield Viewer(line.removeprefix("Viewer: ").strip(), process)
    finally:
        process.stdout.close()
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
