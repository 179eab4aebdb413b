"""What an operation of the API is. The routes and the OpenAPI document are both made from these records.

So no operation can be missing in the document, and none can be documented that does not exist.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Annotated, Any, Literal

import msgspec
from flask import Response, request
from msgspec import Meta, Struct

from pipeline.bus.messages import CameraName
from viewer.api.problems import ApiError
from viewer.security.api_tokens import Scope

Method = Literal["GET", "POST", "PUT"]
Errors = dict[int, str]  # what an error means, by its status

JSON_TYPE = "application/json"
PATH_PARAMETER = re.compile(r"\{(\w+)\}")
# Those that every operation may answer. The first ones come from the middleware, before an operation begins.
COMMON_ERRORS: Errors = {
    400: "The request is malformed.",
    401: "No token, an unknown token, or a session that has ended.",
    403: "The token lacks the scope, the request comes from another site, or a session's POST lacks its CSRF token.",
    411: "The body has no Content-Length.",
    413: "The body is too large.",
    421: "The Host header names no host of this viewer, which has no password.",
    422: "A parameter is unknown or invalid.",
    500: "An error of the viewer, which its log explains.",
    503: "Redis cannot be reached, or what the operation needs is not there.",
}


class NoParameters(Struct, frozen=True, forbid_unknown_fields=True):
    """The parameters of an operation without any."""


class CameraParameters(Struct, frozen=True, forbid_unknown_fields=True):
    """The parameters of an operation on one camera."""

    name: Annotated[CameraName, Meta(description="The camera's name.", examples=["demo"])]


class Operation(Struct, frozen=True, kw_only=True):
    """One method of one path.

    path: below /api/v1, with its parameters in braces. id: unique, for generated clients.
    scope: what a token needs.
    path_type, query_type: Structs with the parameters of the path and of the query.
    body: the types of content that it takes; a Struct for each form, None for bytes. max_body: bytes.
    answer: the type of the JSON answer, or the type of its content as text.
    errors: besides COMMON_ERRORS. handle: answers; takes the path's and the query's parameters, or raises ApiError.
    """

    method: Method = "GET"
    path: str
    id: str
    summary: str
    scope: Scope = "read"
    path_type: type[Struct] = NoParameters
    query_type: type[Struct] = NoParameters
    body: dict[str, type[Struct] | None] = {}
    max_body: int = 0
    answer: type[Any] | str
    errors: Errors = {}
    handle: Callable[[Any, Any], Response]

    @property
    def rule(self) -> str:
        """The path as Flask writes it."""
        return PATH_PARAMETER.sub(r"<\1>", self.path)

    @property
    def all_errors(self) -> Errors:
        """The errors that the operation may answer, by status."""
        return dict(sorted((COMMON_ERRORS | self.errors).items()))

    def view(self, **path: str) -> Response:
        """Check the parameters of the present request and answer it."""
        return self.handle(self._path(path), self._query())

    def _path(self, path: dict[str, str]) -> Struct:
        try:
            return msgspec.convert(path, self.path_type, strict=False)
        except msgspec.ValidationError as error:
            names = ", ".join(map(repr, path.values()))
            raise ApiError(HTTPStatus.NOT_FOUND, f"there is nothing of the name {names:.80}") from error

    def _query(self) -> Struct:
        repeated = [name for name, values in request.args.lists() if len(values) > 1]
        if repeated:
            raise ApiError(HTTPStatus.UNPROCESSABLE_ENTITY, f"parameter {repeated[0]!a:.80} is given more than once")
        try:
            return msgspec.convert(request.args.to_dict(), self.query_type, strict=False)
        except msgspec.ValidationError as error:
            raise ApiError(HTTPStatus.UNPROCESSABLE_ENTITY, f"a parameter of the query: {error}") from error


def json_response(content: Any) -> Response:
    """Return a Struct as the answer to a request."""
    return Response(msgspec.json.encode(content), content_type=JSON_TYPE)


def by_path(operations: Iterable[Operation]) -> dict[str, list[Operation]]:
    """Return operations by their path."""
    found: dict[str, list[Operation]] = {}
    for operation in operations:
        found.setdefault(operation.path, []).append(operation)
    return found
