"""Who sends a request to the API: a program with a token, or a browser with a session; and what it may do.

In: the request's headers and session. Out: its scopes, or the reason why it is denied. A token counts before a session.
A session alone may only read: another site's page could make a browser send it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from http import HTTPStatus
from typing import Any, cast

from msgspec import Struct

from viewer.security.api_tokens import SCOPES, Scope, TokenStore
from viewer.security.authenticator import Authenticator, session_of

# Keys in a request's environment: what its sender may do, and the name of the token that it has sent, if any.
CALLER_SCOPES, CALLER_TOKEN = "maskwatch.scopes", "maskwatch.token"
READING = frozenset({"GET", "HEAD"})
BEARER = "bearer"


class Denial(Struct, frozen=True, kw_only=True):
    """The reason why a request is denied, and the status of the answer. challenge: its WWW-Authenticate, if any."""

    status: HTTPStatus
    text: str
    challenge: str = ""


NO_TOKEN = Denial(
    status=HTTPStatus.UNAUTHORIZED,
    text="no token: send one that `maskwatch tokens create` printed as Authorization: Bearer TOKEN",
    challenge="Bearer",
)
UNKNOWN_TOKEN = Denial(
    status=HTTPStatus.UNAUTHORIZED,
    text="this token is unknown or was revoked: `maskwatch tokens create` prints a new one",
    challenge='Bearer error="invalid_token"',
)
NO_CSRF_TOKEN = Denial(
    status=HTTPStatus.FORBIDDEN,
    text="a session may not do this without its CSRF token: send it as X-CSRF-Token, or use a token of a program",
)


def identify_caller(environ: dict[str, Any], authenticator: Authenticator, tokens: TokenStore) -> Denial | None:
    """Leave the scopes of a request's sender in its environment, or return why it is denied."""
    scheme, _, token = str(environ.get("HTTP_AUTHORIZATION", "")).partition(" ")
    if scheme.lower() == BEARER:
        found = tokens.find(token.strip())
        if found is None:
            return UNKNOWN_TOKEN
        environ[CALLER_SCOPES] = found.scopes
        environ[CALLER_TOKEN] = found.name
        return None
    session = session_of(environ)
    if session is None:
        return NO_TOKEN
    needs_csrf_token = authenticator.has_login and environ["REQUEST_METHOD"] not in READING
    if needs_csrf_token and not authenticator.is_token(str(environ.get("HTTP_X_CSRF_TOKEN", "")), session.id):
        return NO_CSRF_TOKEN
    environ[CALLER_SCOPES] = SCOPES
    return None


def scopes_of(environ: Mapping[str, Any]) -> Collection[Scope]:
    """Return what the sender of a request may do."""
    return cast(Collection[Scope], environ.get(CALLER_SCOPES, ()))
