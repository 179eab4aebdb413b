"""The one gate that every request passes, pages and sockets alike, before anything else looks at it.

In: a request. Out: a refusal, or the answer of what lies behind, always with the headers that keep other sites out.
What is refused is logged, and takes neither a seat nor a look at Redis.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct
from werkzeug.sansio.http import parse_cookie

from viewer.security.authenticator import SESSION, Authenticator
from viewer.security.rejection_log import RejectionLog

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

LOGIN = "/login"
# What strangers are answered. /metrics asks for a token of its own.
OPEN = frozenset({LOGIN, "/healthz", "/metrics", "/static/style.css", "/static/icon.svg"})
STATIC = "/static/"
MAX_BODY = 4096  # bytes; the longest thing that anybody sends is a password
PLAIN, SECURE = "maskwatch-", "__Host-maskwatch-"  # what cookies' names begin with
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # under no-referrer browsers name no origin for a form either
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
}


class Denial(Struct, frozen=True, kw_only=True):
    """Why a request is refused."""

    status: HTTPStatus
    text: str


NOT_SIGNED_IN = Denial(status=HTTPStatus.UNAUTHORIZED, text="not signed in; a browser signs in at /login")


class SecurityMiddleware:
    """WSGI: lets those in who may come in; a request's Session is in its environment behind the gate."""

    def __init__(self, app: WSGIApplication, access: Authenticator, refusals: RejectionLog) -> None:
        self._app = app
        self._access = access
        self._refusals = refusals

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request."""
        start = _with_headers(environ, start_response)
        session = environ[SESSION] = self._access.session(cookie(environ, "session"))
        refusal = self._refusal(environ)
        if refusal is None and session is None and environ["PATH_INFO"] not in OPEN:
            refusal = NOT_SIGNED_IN
        if refusal is None:
            return self._app(environ, start)
        if refusal is NOT_SIGNED_IN and environ["PATH_INFO"] == "/":
            start("303 See Other", [("Location", LOGIN), ("Content-Length", "0")])
            return []
        self._refusals.tell(environ, refusal.text)
        return _told(environ, start, refusal)

    def _refusal(self, environ: WSGIEnvironment) -> Denial | None:
        """Return what is wrong with a request, whoever it comes from."""
        host = environ.get("HTTP_HOST", "")
        if not self._access.has_login and not self._is_ours(host):
            return Denial(status=HTTPStatus.MISDIRECTED_REQUEST, text=f"{host!a:.80} is no name of this viewer")
        if self._is_foreign(environ):
            return Denial(status=HTTPStatus.FORBIDDEN, text="asked for by another site; --origins names more origins")
        if environ.get("HTTP_TRANSFER_ENCODING"):
            return Denial(status=HTTPStatus.LENGTH_REQUIRED, text="a body without its length")
        if _length(environ) > MAX_BODY:
            return Denial(status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE, text=f"a body of more than {MAX_BODY} bytes")
        return None

    def _is_ours(self, host: str) -> bool:
        """Return whether a Host header names this viewer.

        Any site may let its own name point to 127.0.0.1, and its pages would pass as ours; not so where a session is
        asked for, since browsers keep cookies by name.
        """
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        return name in self._access.hosts or _is_loopback(name)

    def _is_foreign(self, environ: WSGIEnvironment) -> bool:
        """Return whether another site's page lets a browser ask; following a link to ours is fine."""
        origin = environ.get("HTTP_ORIGIN", "").lower()
        if origin in self._access.origins:
            return False
        if origin:
            scheme, _, host = origin.partition("://")
            schemes = {"https"} if is_https(environ) else {"http", "https"}  # what a proxy does need not show
            return scheme not in schemes or host != environ.get("HTTP_HOST", "").lower()
        followed = environ["REQUEST_METHOD"] == "GET" and environ.get("HTTP_SEC_FETCH_DEST") == "document"
        return environ.get("HTTP_SEC_FETCH_SITE") == "cross-site" and not followed


def cookie_name(environ: WSGIEnvironment, purpose: str) -> str:
    """Return a cookie's name; over https its prefix binds it to https and to this very host."""
    return (SECURE if is_https(environ) else PLAIN) + purpose


def cookie(environ: WSGIEnvironment, purpose: str) -> str | None:
    """Return a cookie of ours. One that was set over https counts even if a proxy does not tell of https each time."""
    # werkzeug.http's fails where the header is not UTF-8; what is no ASCII is no cookie of ours
    found = parse_cookie(environ.get("HTTP_COOKIE"))
    return found.get(SECURE + purpose) or found.get(cookie_name(environ, purpose))


def is_https(environ: WSGIEnvironment) -> bool:
    """Return whether the browser speaks https, to us or to a proxy.

    The header is believed whoever sends it: all that comes of it is stricter, and only for the one who sent it.
    """
    proto = environ.get("HTTP_X_FORWARDED_PROTO", "").partition(",")[0].strip()
    return environ.get("wsgi.url_scheme") == "https" or proto == "https"


def _is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _length(environ: WSGIEnvironment) -> int:
    text = environ.get("CONTENT_LENGTH") or "0"
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else MAX_BODY + 1


def _with_headers(environ: WSGIEnvironment, start_response: StartResponse) -> StartResponse:
    """Return start_response so that it adds what every answer carries."""
    ours = dict(HEADERS)
    if not environ["PATH_INFO"].startswith(STATIC):
        ours["Cache-Control"] = "no-store"

    def start(status: str, headers: list[tuple[str, str]], *rest: object) -> object:
        kept = [(name, value) for name, value in headers if name not in ours]
        return start_response(status, [*kept, *ours.items()], *rest)  # type: ignore[arg-type]  # exc_info, if there is

    return start  # type: ignore[return-value]  # the same signature, with what may follow gathered in one


def _told(environ: WSGIEnvironment, start: StartResponse, refusal: Denial) -> list[bytes]:
    """Answer a refusal: one line, or JSON for programs."""
    is_api = environ["PATH_INFO"].startswith("/api/")
    body = msgspec.json.encode({"error": refusal.text}) if is_api else f"{refusal.text}\n".encode()
    kind = "application/json" if is_api else "text/plain; charset=utf-8"
    headers = [("Content-Type", kind), ("Content-Length", str(len(body)))]
    start(f"{refusal.status.value} {refusal.status.phrase}", headers)
    return [body]
