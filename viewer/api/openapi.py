"""The OpenAPI 3.1 document of the API: operations in, the document out. Nothing of it is written by hand.

Schemas come from the types that encode the answers and decode the parameters.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from viewer.api.operations import JSON_TYPE, Operation, by_path
from viewer.api.problems import API, PROBLEM_TYPE, Problem, title_of
from viewer.security.api_tokens import SCOPES

REFERENCES = "#/components/schemas/{name}"
TITLE = "maskwatch"
DESCRIPTION = (
    "Cameras with their state and newest labelled pictures, models, training jobs, and labels for pictures. Without a "
    "password the viewer serves its own machine only, and nobody needs a token. Otherwise a request needs a token of "
    "`maskwatch tokens create`, or the session of the page; a POST with a session needs its CSRF token, too."
)
SECURITY_SCHEMES = {
    "token": {
        "type": "http",
        "scheme": "bearer",
        "description": f"A token of `maskwatch tokens create`. Scopes: {', '.join(SCOPES)}.",
    },
    "session": {"type": "apiKey", "in": "cookie", "name": "maskwatch-session", "description": "The page's session."},
    "csrf": {
        "type": "apiKey",
        "in": "header",
        "name": "X-CSRF-Token",
        "description": "With a session: the value of `token` in the page's sign-out form.",
    },
}


def openapi_document(operations: Sequence[Operation], version: str, base_path: str) -> dict[str, Any]:
    """Return the document.

    Args:
        version: of maskwatch.
        base_path: of the viewer, without a slash at its end.
    """
    types = dict.fromkeys([*_types(operations), Problem])
    schemas, components = msgspec.json.schema_components(types, ref_template=REFERENCES)
    by_type = dict(zip(types, schemas, strict=True))
    document = {
        "openapi": "3.1.0",
        "info": {"title": TITLE, "version": version, "description": DESCRIPTION, "license": {"name": "MIT"}},
        "servers": [{"url": f"{base_path}{API}"}],
        "paths": {
            path: {one.method.lower(): _operation(one, by_type) for one in found}
            for path, found in by_path(operations).items()
        },
        "components": {"schemas": components, "securitySchemes": SECURITY_SCHEMES},
    }
    translated: dict[str, Any] = _with_patterns_of_json_schema(document)
    return translated


def _types(operations: Iterable[Operation]) -> Iterator[Any]:
    for operation in operations:
        yield from (one for one in operation.body.values() if one is not None)
        if not isinstance(operation.answer, str):
            yield operation.answer


def _operation(operation: Operation, by_type: dict[Any, Any]) -> dict[str, Any]:
    content = {operation.answer: {}} if isinstance(operation.answer, str) else _json(by_type[operation.answer])
    problem = {PROBLEM_TYPE: {"schema": by_type[Problem]}}
    described = {
        "operationId": operation.id,
        "summary": operation.summary,
        "description": inspect.getdoc(operation.handle) or operation.summary,
        "security": _security(operation),
        "parameters": [*_parameters(operation.path_type, "path"), *_parameters(operation.query_type, "query")],
        "responses": {"200": {"description": title_of(200), "content": content}}
        | {
            str(status): {"description": text, "headers": _headers(status), "content": problem}
            for status, text in operation.all_errors.items()
        },
    }
    if operation.body:
        described["requestBody"] = {
            "required": True,
            "description": f"At most {operation.max_body} bytes.",
            "content": {media: _body(one, by_type) for media, one in operation.body.items()},
        }
    return described


def _json(schema: Any) -> dict[str, Any]:
    return {JSON_TYPE: {"schema": schema}}


def _body(body_type: type[Struct] | None, by_type: dict[Any, Any]) -> dict[str, Any]:
    """Return the content of a body; bytes have no schema in OpenAPI 3.1."""
    return {} if body_type is None else {"schema": by_type[body_type]}


def _security(operation: Operation) -> list[dict[str, list[str]]]:
    """Return what a request needs: one of these. The empty one: a viewer without a password needs nothing."""
    session: dict[str, list[str]] = {"session": []} if operation.method == "GET" else {"session": [], "csrf": []}
    return [{"token": [operation.scope]}, session, {}]


def _parameters(parameters: type[Struct], place: str) -> list[dict[str, Any]]:
    """Return the parameters of a path or query from the fields of their Struct."""
    schema = msgspec.json.schema(parameters)["$defs"][parameters.__name__]
    required = schema.get("required", [])
    return [
        {
            "name": name,
            "in": place,
            "required": name in required,
            "description": field.get("description", name),
            "schema": {key: value for key, value in field.items() if key != "description"},
        }
        for name, field in schema["properties"].items()
    ]


def _headers(status: int) -> dict[str, Any]:
    """Return the headers that come with an error."""
    if status == 401:
        return {"WWW-Authenticate": {"schema": {"type": "string"}, "description": "Bearer, and what is wrong."}}
    if status == 429:
        return {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds to wait.", "required": True}}
    if status == 503:
        return {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds to wait."}}
    return {}


def _with_patterns_of_json_schema(value: Any) -> Any:
    r"""Return a JSON value in which patterns use ^ and $, for JSON Schema knows neither \A nor \Z."""
    if isinstance(value, dict):
        return {
            name: re.sub(r"\\A", "^", one).replace(r"\Z", "$")
            if name == "pattern" and isinstance(one, str)
            else _with_patterns_of_json_schema(one)
            for name, one in value.items()
        }
    return [_with_patterns_of_json_schema(one) for one in value] if isinstance(value, list) else value
