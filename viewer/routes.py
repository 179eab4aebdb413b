"""What the viewer answers over HTTP: the page, health and status for programs, pictures for other screens."""

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
from viewer.mjpeg import BOUNDARY, AnnotatedJpegEncoder, parts
from viewer.security.authenticator import Authenticator, session_of
from viewer.security.login import sign_out_token
from viewer.security.middleware import MAX_BODY
from viewer.security.rejection_log import RejectionLog
from viewer.serving.connection_limiter import FULL, ConnectionLimiter
from viewer.watch import Watch

AWAY = "Redis cannot be reached"


def add_routes(
    app: Flask,
    context: WorkerContext,
    watch: Watch,
    seats: ConnectionLimiter,
    access: Authenticator,
    refusals: RejectionLog,
) -> None:
    """Give the app its routes."""
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
    app.url_map.merge_slashes = False  # what is not exactly an address of ours is none
    add_api_routes(app, context, access, refusals)
    add_media_routes(app, context, watch, seats, access, refusals)


def add_api_routes(app: Flask, context: WorkerContext, access: Authenticator, refusals: RejectionLog) -> None:
    """Give the app the page, what programs read, and what is said when something is wrong."""

    @app.get("/")
    def page() -> str:
        return render_template("index.html", token=sign_out_token(access, session_of(request.environ)))

    @app.get("/healthz")
    def healthz() -> Response:
        found = health.read(context)
        told = found if found.ok or session_of(request.environ) else Health(ok=False, reasons=["sign in to see why"])
        return _json(msgspec.json.encode(told), 200 if found.ok else 503)

    @app.get("/api/status")
    def api_status() -> Response:
        return _json(msgspec.json.encode(status.read(context.client, context.clock)))

    @app.errorhandler(redis.RedisError)
    def away(error: redis.RedisError) -> Response:
        return _line(f"{AWAY}: {error}", 503)

    @app.errorhandler(NotFound)
    def not_found(_: NotFound) -> Response:
        refusals.tell(request.environ, "there is nothing of this name")
        return _line("there is nothing of this name", 404)


def add_media_routes(
    app: Flask,
    context: WorkerContext,
    watch: Watch,
    seats: ConnectionLimiter,
    access: Authenticator,
    refusals: RejectionLog,
) -> None:
    """Give the app each camera's pictures."""
    burner = AnnotatedJpegEncoder()

    @app.get("/cameras/<name>/snapshot.jpg")
    def snapshot(name: str) -> Response:
        if not _is_known(context, refusals, name):
            return _unknown(name)
        shown = watch.newest_labelled(name)
        if shown is None:
            return _line(f"camera {name} has no labelled frame right now", 503)
        try:
            return Response(burner.burned(shown), mimetype="image/jpeg")
        except BadImage as error:
            return _line(f"camera {name} sends damaged pictures: {error}", 503)

    @app.get("/cameras/<name>/stream.mjpg")
    def stream(name: str) -> Response:
        session = session_of(request.environ)
        if not _is_known(context, refusals, name):
            return _unknown(name)
        if not seats.take():
            return _line(FULL, 503)
        opened = watch.audience.open(name)

        def going() -> bool:
            return context.should_run() and session is not None and access.lasts(session)

        answer = Response(parts(going, opened, burner), mimetype=f"multipart/x-mixed-replace; boundary={BOUNDARY}")
        answer.call_on_close(lambda: watch.audience.close(opened))
        answer.call_on_close(seats.give_back)
        return answer


def _is_known(context: WorkerContext, refusals: RejectionLog, name: str) -> bool:
    if not messages.is_camera_name(name):
        refusals.tell(request.environ, "this cannot be a camera's name")
        return False
    return context.client.zscore(messages.CAMERAS, name) is not None


def _unknown(name: str) -> Response:
    return _line(f"there is no camera {name!r}; /api/status lists them", 404)


def _line(text: str, code: int) -> Response:
    return Response(text + "\n", code, mimetype="text/plain")


def _json(content: bytes, code: int = 200) -> Response:
    return Response(content, code, mimetype="application/json")
