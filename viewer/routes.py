"""The HTTP routes: the page, health and status for programs, and images for other clients."""

from __future__ import annotations

import msgspec
from flask import Flask, Response, render_template, request

from events.event_database import EventDatabase
from pipeline.bus import messages, status
from pipeline.runtime.worker_context import WorkerContext
from viewer import health
from viewer.live_view import LiveView
from viewer.mjpeg import BOUNDARY, stream_parts
from viewer.security.authenticator import Authenticator, session_of
from viewer.security.login import sign_out_token
from viewer.security.rejection_log import RejectionLog
from viewer.serving.connection_limiter import FULL, ConnectionLimiter
from viewer.snapshots import NoSnapshot, Snapshots, UnknownCamera


def add_api_routes(app: Flask, context: WorkerContext, authenticator: Authenticator, database: EventDatabase) -> None:
    """Add the page, health and status."""

    @app.get("/")
    def page() -> str:
        return render_template("index.html", token=sign_out_token(authenticator, session_of(request.environ)))

    @app.get("/healthz")
    def healthz() -> Response:
        found = health.read_health(context, database)
        visible = found if session_of(request.environ) else health.without_reasons(found)
        return _json(msgspec.json.encode(visible), 200 if found.ok else 503)

    @app.get("/api/status")
    def api_status() -> Response:
        return _json(msgspec.json.encode(status.read_status(context.bus)))


def add_media_routes(
    app: Flask,
    context: WorkerContext,
    live_view: LiveView,
    snapshots: Snapshots,
    limiter: ConnectionLimiter,
    authenticator: Authenticator,
    rejections: RejectionLog,
) -> None:
    """Add the snapshot and the MJPEG stream of each camera."""

    @app.get("/cameras/<name>/snapshot.jpg")
    def snapshot(name: str) -> Response:
        try:
            return Response(snapshots.newest(name), mimetype="image/jpeg")
        except NoSnapshot as error:
            return _line(str(error), 503)

    @app.get("/cameras/<name>/stream.mjpg")
    def stream(name: str) -> Response:
        session = session_of(request.environ)
        snapshots.check_known(name)
        if not limiter.acquire():
            return _line(FULL, 503)
        opened = live_view.audience.open(name)

        def should_run() -> bool:
            return context.should_run() and session is not None and authenticator.is_valid(session)

        parts = stream_parts(should_run, opened, snapshots.encoder, lambda: live_view.gap_s(name))
        response = Response(parts, mimetype=f"multipart/x-mixed-replace; boundary={BOUNDARY}")
        response.call_on_close(lambda: live_view.audience.close(opened))
        response.call_on_close(limiter.release)
        return response

    @app.errorhandler(UnknownCamera)
    def unknown_camera(error: UnknownCamera) -> Response:
        if not messages.is_camera_name(error.camera):
            rejections.log(request.environ, "not a valid camera name")
        return _line(f"{error}; /api/status lists them", 404)


def _line(text: str, code: int) -> Response:
    return Response(text + "\n", code, mimetype="text/plain")


def _json(content: bytes, code: int = 200) -> Response:
    return Response(content, code, mimetype="application/json")
