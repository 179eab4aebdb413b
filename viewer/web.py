"""What the viewer answers over HTTP: the page, health and status for programs, pictures for other screens."""

from __future__ import annotations

import msgspec
import redis
from flask import Flask, Response, render_template

from pipeline import messages, status
from pipeline.pixels import BadPicture
from pipeline.process import Running
from viewer import health
from viewer.mjpeg import BOUNDARY, Burner, parts
from viewer.seats import FULL, Seats
from viewer.watch import Watch

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}
AWAY = "Redis cannot be reached"


def add_routes(app: Flask, run: Running, watch: Watch, seats: Seats) -> None:
    """Give the app its routes."""
    burner = Burner()

    @app.get("/")
    def page() -> str:
        return render_template("index.html")

    @app.get("/healthz")
    def healthz() -> Response:
        found = health.read(run)
        return _json(msgspec.json.encode(found), 200 if found.ok else 503)

    @app.get("/api/status")
    def api_status() -> Response:
        return _json(msgspec.json.encode(status.read(run.client, run.clock)))

    @app.get("/cameras/<name>/snapshot.jpg")
    def snapshot(name: str) -> Response:
        if not _is_known(run, name):
            return _unknown(name)
        shown = watch.newest_labelled(name)
        if shown is None:
            return _line(f"camera {name} has no labelled frame right now", 503)
        try:
            return Response(burner.burned(shown), mimetype="image/jpeg", headers={"Cache-Control": "no-store"})
        except BadPicture as error:
            return _line(f"camera {name} sends damaged pictures: {error}", 503)

    @app.get("/cameras/<name>/stream.mjpg")
    def stream(name: str) -> Response:
        if not _is_known(run, name):
            return _unknown(name)
        if not seats.take():
            return _line(FULL, 503)
        opened = watch.audience.open(name)
        answer = Response(
            parts(run, opened, burner),
            mimetype=f"multipart/x-mixed-replace; boundary={BOUNDARY}",
            headers={"Cache-Control": "no-store"},
        )
        answer.call_on_close(lambda: watch.audience.close(opened))
        answer.call_on_close(seats.give_back)
        return answer

    @app.errorhandler(redis.RedisError)
    def away(error: redis.RedisError) -> Response:
        return _line(f"{AWAY}: {error}", 503)

    @app.after_request
    def protect(answer: Response) -> Response:
        answer.headers.update(HEADERS)
        return answer


def _is_known(run: Running, name: str) -> bool:
    return messages.is_camera_name(name) and run.client.zscore(messages.CAMERAS, name) is not None


def _unknown(name: str) -> Response:
    return _line(f"there is no camera {name!r}; /api/status lists them", 404)


def _line(text: str, code: int) -> Response:
    return Response(text + "\n", code, mimetype="text/plain")


def _json(content: bytes, code: int = 200) -> Response:
    return Response(content, code, mimetype="application/json", headers={"Cache-Control": "no-store"})
