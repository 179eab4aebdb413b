"""The socket protocol between the viewer and its page, over Socket.IO on WebSocket.

From the page: `watch` (list of camera names: pictures are sent of these and no others) and `ack` (camera, frame_id: the
frame is drawn, the next may come). To the page: `frame` (metadata, JPEG as bytes), and once a second `status`
(what /api/status says) and `health` (what /healthz says). What does not fit is logged and changes nothing.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from flask import Flask, request
from flask_socketio import SocketIO

from pipeline.bus.messages import is_camera_name
from pipeline.vision.drawing import label_text
from viewer.audience import Audience, DisplayFrame
from viewer.security.authenticator import Authenticator
from viewer.security.rejection_log import RejectionLog
from viewer.security.socket_guard import MAX_RECEIVED, guard

PING_S = 5
PONG_S = 10  # a browser that has not answered a ping for so long is gone
MAX_WATCHED = 256  # cameras a page may watch


class Sockets:
    """Every page's socket. `audience` says which frame each gets next."""

    def __init__(self, app: Flask, access: Authenticator, refusals: RejectionLog) -> None:
        self.audience = Audience(self._send)
        self._refusals = refusals
        for name in ("engineio.server", "socketio.server"):
            logging.getLogger(name).setLevel(logging.ERROR)  # without a level they write their lines twice
        self._io = SocketIO(  # type: ignore[call-arg]  # its stubs do not know transports
            app,
            async_mode="threading",
            async_handlers=False,  # no thread for each message; the handlers below never wait
            manage_session=False,
            transports=["websocket"],
            cors_allowed_origins=[],  # the gate has looked at the origin before
            ping_interval=PING_S,
            ping_timeout=PONG_S,
            max_http_buffer_size=MAX_RECEIVED,
        )
        guard(self._io.server.eio, access, refusals)  # type: ignore[attr-defined]  # its stubs do not know server
        self._io.on_event("disconnect", self._disconnected)
        self._io.on_event("watch", self._watch)
        self._io.on_event("ack", self._acknowledge)

    def tell_all(self, event: str, content: object) -> None:
        """Send something small to every page."""
        self._io.emit(event, content)

    def _send(self, id_: str, shown: DisplayFrame) -> None:
        self._io.emit("frame", (metadata(shown), shown.jpeg), to=id_)

    def _disconnected(self, *_: object) -> None:
        self.audience.leave(_session())

    def _watch(self, cameras: object = None, *_: object) -> None:
        if not isinstance(cameras, list) or len(cameras) > MAX_WATCHED:
            self._refusals.tell(request.environ, f"to watch what is no list of at most {MAX_WATCHED} cameras")
            return
        names = [name for name in cameras if isinstance(name, str) and is_camera_name(name)]
        if len(names) < len(cameras):
            self._refusals.tell(request.environ, "to watch what cannot be a camera's name")
        self.audience.watch(_session(), names)

    def _acknowledge(self, camera: object = None, frame_id: object = None, *_: object) -> None:
        if isinstance(camera, str) and is_camera_name(camera) and isinstance(frame_id, str):
            self.audience.acknowledge(_session(), camera, frame_id)
        else:
            self._refusals.tell(request.environ, "to acknowledge what cannot be a camera's frame")


def metadata(shown: DisplayFrame) -> dict[str, Any]:
    """Return what a page is told about a frame beside its picture."""
    return {
        "camera": shown.camera,
        "frame_id": shown.frame_id,
        "seq": shown.seq,
        "width": shown.width,
        "height": shown.height,
        "labelled": shown.labelled,
        "captured_at": shown.captured_at,
        "age_ms": round(1000 * (shown.age_s + time.monotonic() - shown.at_s), 1),
        "faces": [
            {
                "box": [round(side, 1) for side in face.box],
                "label": face.label,
                "confidence": round(face.confidence, 4),
                "text": label_text(face.label, face.confidence),
                "track": face.track,
            }
            for face in shown.faces
        ],
    }


def _session() -> str:
    return str(request.sid)  # type: ignore[attr-defined]  # Flask-SocketIO adds it
