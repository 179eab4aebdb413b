"""What the application answers when a route fails: a line of text, or a problem object below /api/v1."""

from __future__ import annotations

import redis
from flask import Flask, request
from werkzeug.exceptions import HTTPException, InternalServerError, NotFound
from werkzeug.wrappers import Response

from events.database import DatabaseAway
from pipeline.bus.shards import UnusableRedis
from viewer.api.problems import ApiError, error_response, is_api, problem_response
from viewer.security.rejection_log import RejectionLog


def add_error_answers(app: Flask, rejections: RejectionLog) -> None:
    """Add the answers."""

    @app.errorhandler(redis.RedisError)
    def redis_error(error: redis.RedisError) -> Response:
        return _answer(503, f"Redis cannot be reached: {error}")

    @app.errorhandler(UnusableRedis)
    def unusable_redis(error: UnusableRedis) -> Response:
        return _answer(503, str(error))

    @app.errorhandler(DatabaseAway)
    def database_away(error: DatabaseAway) -> Response:
        return _answer(503, str(error))

    @app.errorhandler(NotFound)
    def not_found(_: NotFound) -> Response:
        rejections.log(request.environ, "not found")
        if is_api(request.path):
            return problem_response(404, "there is nothing here: /api/v1/openapi.json describes what there is")
        return _answer(404, "not found")

    @app.errorhandler(ApiError)
    def api_error(error: ApiError) -> Response:
        return error_response(error)

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Response:
        if not is_api(request.path):
            return error.get_response(request.environ)
        is_ours = isinstance(error, InternalServerError)
        detail = "an error of the viewer, which its log explains" if is_ours else str(error.description)
        headers = {name: value for name, value in error.get_headers() if name == "Allow"}
        return problem_response(error.code or 500, detail, headers)


def _answer(status: int, text: str) -> Response:
    if is_api(request.path):
        return problem_response(status, text, {"Retry-After": "1"} if status == 503 else None)
    return Response(f"{text}\n", status, mimetype="text/plain")
