"""The socket protocol between the viewer and its page, Socket.IO over WebSocket.

From the page: `watch` (a list of camera names: only their frames are sent), `ack` (camera, frame_id: the frame is
drawn, the next one may be sent) and `probe` (the number of the probe that it answers). To the page: `frame` (metadata,
JPEG as bytes), `probe` (a number, to be returned at once), and when it connects and then once a second `status` (the
content of /api/status) and `health` (the content of /healthz). An event with invalid arguments is logged and ignored; a
packet of any other form closes the WebSocket.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, cast

from flask import Flask, request
from flask_socketio import SocketIO

from pipeline.bus.messages import is_camera_name
from pipeline.vision.faces import label_text
from viewer.audience import Audience, DisplayFrame
from viewer.security.page_packet import CONNECT, MALFORMED, MALFORMED_PACKET, PagePacket
from viewer.security.rejection_log import RejectionLog
from viewer.serving.websocket_limiter import close_websocket

PING_INTERVAL_S = 5
PONG_TIMEOUT_S = 10  # a browser that has not answered a ping for this long is disconnected
MAX_WATCHED = 256  # cameras that a page may watch
MAX_MESSAGE = 20_000  # bytes of one message from a page


class PageSockets:
    """The sockets of all pages. `audience` decides which frame each of them gets next."""

    def __init__(self, app: Flask, rejections: RejectionLog) -> None:
        self.audience = Audience(self._send, self._send_probe)
        self._new_pages: deque[str] = deque()
        self._rejections = rejections
        for name in ("engineio.server", "socketio.server"):
            logging.getLogger(name).setLevel(logging.ERROR)  # without a level they add a handler of their own
        options: dict[str, Any] = {
            "async_mode": "threading",
            "async_handlers": False,  # no thread for each message: the handlers below never block
            "manage_session": False,
            "transports": ["websocket"],
            "cors_allowed_origins": [],  # SecurityMiddleware has checked the origin
            "ping_interval": PING_INTERVAL_S,
            "ping_timeout": PONG_TIMEOUT_S,
            "max_http_buffer_size": MAX_MESSAGE,
            "serializer": PagePacket,
        }
        self._io = SocketIO(app, **options)
        self._io.on_event("connect", self._connected)
        self._io.on_event("disconnect", self._disconnected)
        self._io.on_event("watch", self._watch)
        self._io.on_event("ack", self._acknowledge)
        self._io.on_event("probe", self._answer_probe)
        self._io.on_event(MALFORMED, self._malformed)
        self._server = cast(Any, self._io).server
        self._handle_message = self._server.eio.handlers["message"]
        self._server.eio.on("message", self._receive)

    def broadcast(self, event: str, content: object) -> None:
        """Send an event to every page."""
        self._io.emit(event, content)

    def send(self, pages: Sequence[str], event: str, content: object) -> None:
        """Send an event to some pages; those that have left meanwhile are left out."""
        for page in pages:
            self._io.emit(event, content, to=page)

    def take_new_pages(self) -> list[str]:
        """Return the pages that have connected since the last call."""
        return [self._new_pages.popleft() for _ in range(len(self._new_pages))]

    def _send(self, id_: str, frame: DisplayFrame) -> None:
        self._io.emit("frame", (frame_metadata(frame), frame.jpeg), to=id_)

    def _send_probe(self, id_: str, number: int) -> None:
        self._io.emit("probe", number, to=id_)

    def _receive(self, id_: str, message: object) -> None:
        """Handle a message, unless its page has left; a second connect would double all that the page is sent."""
        if id_ not in self._server.environ:
            return
        if message == CONNECT and self._server.manager.sid_from_eio_sid(id_, "/"):
            message = MALFORMED_PACKET
        self._handle_message(id_, message)

    def _connected(self, *_: object) -> None:
        self._new_pages.append(_socket_id())

    def _disconnected(self, *_: object) -> None:
        self.audience.leave(_socket_id())
        close_websocket(request.environ)

    def _watch(self, cameras: object = None, *_: object) -> None:
        if not isinstance(cameras, list) or len(cameras) > MAX_WATCHED:
            self._rejections.log(request.environ, f"watch without a list of at most {MAX_WATCHED} cameras")
            return
        names = [name for name in cameras if isinstance(name, str) and is_camera_name(name)]
        if len(names) < len(cameras):
            self._rejections.log(request.environ, "watch with an invalid camera name")
        self.audience.watch(_socket_id(), names)

    def _acknowledge(self, camera: object = None, frame_id: object = None, *_: object) -> None:
        if isinstance(camera, str) and is_camera_name(camera) and isinstance(frame_id, str):
            self.audience.acknowledge(_socket_id(), camera, frame_id)
        else:
            self._rejections.log(request.environ, "ack with an invalid camera name or frame ID")

    def _answer_probe(self, number: object = None, *_: object) -> None:
        if isinstance(number, int):
            self.audience.answer_probe(_socket_id(), number)
        else:
            self._rejections.log(request.environ, "probe without a number")

    def _malformed(self, *_: object) -> None:
        self._rejections.log(request.environ, "an invalid message; its WebSocket is closed")
        close_websocket(request.environ)


def frame_metadata(frame: DisplayFrame) -> dict[str, Any]:
    """Return the metadata of a frame that a page gets with its JPEG."""
    return {
        "camera": frame.camera,
        "frame_id": frame.frame_id,
        "seq": frame.seq,
        "width": frame.width,
        "height": frame.height,
        "labelled": frame.labelled,
        "captured_at": frame.captured_at,
        "age_ms": round(1000 * (frame.age_s + time.monotonic() - frame.at_s), 1),
        "faces": [
            {
                "box": [round(coordinate, 1) for coordinate in face.box],
                "label": face.label,
                "confidence": round(face.confidence, 4),
                "text": label_text(face.label, face.confidence),
                "track": face.track,
            }
            for face in frame.faces
        ],
    }


def _socket_id() -> str:
    return str(cast(Any, request).sid)  # Flask-SocketIO adds it to the request
