"""The HTTP routes: the page, health and status for programs, and images for other clients."""

from __future__ import annotations

import msgspec
import redis
from flask import Flask, Response, render_template, request
from werkzeug.exceptions import NotFound

from pipeline.bus import messages, status
from pipeline.runtime.worker_context import WorkerContext
from pipeline.vision.jpeg import BadImage
from viewer import health
from viewer.health import Health
from viewer.live_view import LiveView
from viewer.mjpeg import BOUNDARY, AnnotatedJpegEncoder, stream_parts
from viewer.security.authenticator import Authenticator, session_of
from viewer.security.login import sign_out_token
from viewer.security.rejection_log import RejectionLog
from viewer.serving.connection_limiter import FULL, ConnectionLimiter


def add_api_routes(app: Flask, context: WorkerContext, authenticator: Authenticator, rejections: RejectionLog) -> None:
    """Add the page, health and status, and the answers to errors."""

    @app.get("/")
    def page() -> str:
        return render_template("index.html", token=sign_out_token(authenticator, session_of(request.environ)))

    @app.get("/healthz")
    def healthz() -> Response:
        found = health.read_health(context)
        visible = found if found.ok or session_of(request.environ) else Health(ok=False, reasons=["sign in to see why"])
        return _json(msgspec.json.encode(visible), 200 if found.ok else 503)

    @app.get("/api/status")
    def api_status() -> Response:
        return _json(msgspec.json.encode(status.read_status(context.bus)))

    @app.errorhandler(redis.RedisError)
    def redis_error(error: redis.RedisError) -> Response:
        return _line(f"Redis cannot be reached: {error}", 503)

    @app.errorhandler(NotFound)
    def not_found(_: NotFound) -> Response:
        rejections.log(request.environ, "not found")
        return _line("not found", 404)


def add_media_routes(
    app: Flask,
    context: WorkerContext,
    live_view: LiveView,
    limiter: ConnectionLimiter,
    authenticator: Authenticator,
    rejections: RejectionLog,
) -> None:
    """Add the snapshot and the MJPEG stream of each camera."""
    encoder = AnnotatedJpegEncoder()

    @app.get("/cameras/<name>/snapshot.jpg")
    def snapshot(name: str) -> Response:
        if not _is_known(context, rejections, name):
            return _unknown(name)
        frame = live_view.newest_labelled(name)
        if frame is None:
            return _line(f"camera {name} has no labelled frame right now", 503)
        try:
            return Response(encoder.encode(frame), mimetype="image/jpeg")
        except BadImage as error:
            return _line(f"camera {name} sends damaged pictures: {error}", 503)

    @app.get("/cameras/<name>/stream.mjpg")
    def stream(name: str) -> Response:
        session = session_of(request.environ)
        if not _is_known(context, rejections, name):
            return _unknown(name)
        if not limiter.acquire():
            return _line(FULL, 503)
        opened = live_view.audience.open(name)

        def should_run() -> bool:
            return context.should_run() and session is not None and authenticator.is_valid(session)

        response = Response(
            stream_parts(should_run, opened, encoder), mimetype=f"multipart/x-mixed-replace; boundary={BOUNDARY}"
        )
        response.call_on_close(lambda: live_view.audience.close(opened))
        response.call_on_close(limiter.release)
        return response


def _is_known(context: WorkerContext, rejections: RejectionLog, name: str) -> bool:
    if not messages.is_camera_name(name):
        rejections.log(request.environ, "not a valid camera name")
        return False
    return context.client.zscore(context.bus.shard_of(name).key("cameras"), name) is not None


def _unknown(name: str) -> Response:
    return _line(f"there is no camera {name!r}; /api/status lists them", 404)


def _line(text: str, code: int) -> Response:
    return Response(text + "\n", code, mimetype="text/plain")


def _json(content: bytes, code: int = 200) -> Response:
    return Response(content, code, mimetype="application/json")
