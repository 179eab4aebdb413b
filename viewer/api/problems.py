"""Errors of the API as JSON problem objects (RFC 9457): a status and a sentence in, the answer out."""

from __future__ import annotations

import functools
from http import HTTPStatus

import msgspec
from msgspec import Struct
from werkzeug.wrappers import Response

API = "/api/v1"  # what the paths of the API begin with
PROBLEM_TYPE = "application/problem+json"


class Problem(Struct, frozen=True, kw_only=True):
    """The content of every error. title: the name of the status. detail: what is wrong, and what to do."""

    status: int
    title: str
    detail: str


class ApiError(Exception):
    """A request cannot be answered; becomes a problem object.

    Args:
        retry_after_s: when the client may try again; None if the same request would fail again.
    """

    def __init__(self, status: HTTPStatus, detail: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.retry_after_s = retry_after_s


def is_api(path: str) -> bool:
    """Return whether a path, without the base path, belongs to the API."""
    return path == API or path.startswith(f"{API}/")


def problem_response(status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    """Return a problem object as the answer to a request."""
    content = Problem(status=status, title=title_of(status), detail=detail)
    return Response(msgspec.json.encode(content), status, headers, content_type=PROBLEM_TYPE)


def error_response(error: ApiError) -> Response:
    """Return the answer of an operation that failed."""
    headers = {} if error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)}
    return problem_response(error.status, error.detail, headers)


@functools.cache
def title_of(status: int) -> str:
    """Return the name of a status."""
    return HTTPStatus(status).phrase
