"""Add the API to the application: the operations in, a route for each of them and the document out."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from importlib.metadata import version
from typing import Any

import msgspec
from flask import Flask, Response, request

from viewer.api.openapi import openapi_document
from viewer.api.operations import JSON_TYPE, NoParameters, Operation
from viewer.api.problems import API, ApiError
from viewer.security.callers import scopes_of


def add_api(app: Flask, operations: Sequence[Operation], base_path: str) -> None:
    """Add the operations and the document that describes them. base_path: of the viewer."""

    def document(_path: NoParameters, _query: NoParameters) -> Response:
        """Return this document."""
        return Response(content, content_type=JSON_TYPE)

    described = Operation(
        path="/openapi.json",
        id="get_document",
        summary="Get the OpenAPI document",
        answer=dict[str, Any],
        handle=document,
    )
    everything = [*operations, described]
    content = msgspec.json.encode(openapi_document(everything, version("maskwatch"), base_path))
    for operation in everything:
        _add(app, operation)


def _add(app: Flask, operation: Operation) -> None:
    def view(**path: str) -> Response:
        if operation.scope not in scopes_of(request.environ):
            raise ApiError(HTTPStatus.FORBIDDEN, f"the token lacks the scope {operation.scope}: create another one")
        return operation.view(**path)

    app.add_url_rule(
        API + operation.rule,
        operation.id,
        view,
        methods=[operation.method],
        provide_automatic_options=False,
    )
