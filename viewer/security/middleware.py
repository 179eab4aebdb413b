"""WSGI middleware that checks every request, for pages and WebSockets alike, before the application handles it.

In: a request. Out: a denial, or the application's answer, both with the security headers. Denials are logged; a denied
request costs no connection of the limiter and no call to Redis. Below /api/v1 a token does instead of a session, and
denials are problem objects.
"""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec
from werkzeug.sansio.http import parse_cookie
from werkzeug.utils import redirect
from werkzeug.wrappers import Response

from viewer.api.problems import API, is_api, problem_response
from viewer.security.api_tokens import TokenStore
from viewer.security.authenticator import SESSION, Authenticator
from viewer.security.callers import CALLER_SCOPES, Denial, identify_caller
from viewer.security.rejection_log import RejectionLog
from viewer.security.wanted_page import LOGIN, is_page, sign_in_address

if TYPE_CHECKING:
    from _typeshed import OptExcInfo
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

# Paths that need no session. /metrics requires a token of its own.
PUBLIC = frozenset({LOGIN, "/healthz", "/metrics", "/static/style.css", "/static/icon.svg"})
STATIC = "/static/"
MAX_BODY = 4096  # bytes; the longest body is a password
MAX_PICTURE = 20_000_000  # bytes of a request with a picture to be labelled
MAX_RULES = 262_144  # bytes of a request with rules
LABEL = f"{API}/label"
LIMITS = {LABEL: MAX_PICTURE, f"{API}/rules": MAX_RULES}  # of bodies on other paths than MAX_BODY is for
CHUNK_BYTES = 65_536
MAX_DISCARDS = 8  # bodies of callers without a token that are read at a time; each one holds a thread
# Prefixes of cookie names. Browsers accept __Host- for the path / only.
HTTP_PREFIX, HTTPS_PREFIX, HTTPS_PATH_PREFIX = "maskwatch-", "__Host-maskwatch-", "__Secure-maskwatch-"
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # with no-referrer, browsers send no origin with forms
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
}


NOT_SIGNED_IN = Denial(status=HTTPStatus.UNAUTHORIZED, text="not signed in: open the page in a browser and sign in")


class SecurityMiddleware:
    """WSGI middleware; it leaves the request's Session, or None, in the environment."""

    def __init__(
        self, app: WSGIApplication, authenticator: Authenticator, tokens: TokenStore, rejections: RejectionLog
    ) -> None:
        self._app = app
        self._authenticator = authenticator
        self._tokens = tokens
        self._rejections = rejections
        self._discards = threading.BoundedSemaphore(MAX_DISCARDS)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request."""
        answer = self._answer(environ, start_response)
        if environ["PATH_INFO"] in LIMITS:
            self._discard_body(environ)
        return answer

    def _discard_body(self, environ: WSGIEnvironment) -> None:
        """Read what is left of a body; of callers without a token only a few at a time, because each holds a thread."""
        if CALLER_SCOPES in environ:
            _discard_body(environ)
        elif self._discards.acquire(blocking=False):
            try:
                _discard_body(environ)
            finally:
                self._discards.release()

    def _answer(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start = _with_headers(environ, start_response)
        session = environ[SESSION] = self._authenticator.session(cookie_value(environ, "session"))
        denial = self._denial(environ)
        if denial is None and is_api(environ["PATH_INFO"]):
            denial = identify_caller(environ, self._authenticator, self._tokens)
        elif denial is None and session is None and environ["PATH_INFO"] not in PUBLIC:
            denial = NOT_SIGNED_IN
        if denial is None:
            return self._app(environ, start)
        if denial is NOT_SIGNED_IN and is_page(environ["PATH_INFO"]):
            address = environ["SCRIPT_NAME"] + sign_in_address(environ["PATH_INFO"], environ["QUERY_STRING"])
            return redirect(address, HTTPStatus.SEE_OTHER)(environ, start)
        self._rejections.log(environ, denial.text)
        return _response(environ, denial)(environ, start)

    def _denial(self, environ: WSGIEnvironment) -> Denial | None:
        """Return what is wrong with a request apart from its session."""
        host = environ.get("HTTP_HOST", "")
        if not self._authenticator.has_login and not self._is_own_host(host):
            return Denial(status=HTTPStatus.MISDIRECTED_REQUEST, text=f"Host header {host!a:.80} is not accepted")
        if self._is_cross_site(environ):
            return Denial(status=HTTPStatus.FORBIDDEN, text="sent by another site; --origins allows more origins")
        if environ.get("HTTP_TRANSFER_ENCODING"):
            return Denial(status=HTTPStatus.LENGTH_REQUIRED, text="Content-Length is required")
        limit = LIMITS.get(environ["PATH_INFO"], MAX_BODY)
        if _length(environ) > limit:
            return Denial(status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE, text=f"a body of more than {limit} bytes")
        return None

    def _is_own_host(self, host: str) -> bool:
        """Return whether a Host header names this viewer.

        This prevents DNS rebinding, where another site's name resolves to 127.0.0.1. With a login it is not needed:
        browsers keep cookies by name, so the session is not sent.
        """
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        return name in self._authenticator.hosts or _is_loopback(name)

    def _is_cross_site(self, environ: WSGIEnvironment) -> bool:
        """Return whether a page of another site sent the request; following a link from there is allowed."""
        origin = environ.get("HTTP_ORIGIN", "").lower()
        if origin in self._authenticator.origins:
            return False
        if origin:
            scheme, _, host = origin.partition("://")
            schemes = {"https"} if is_https(environ) else {"http", "https"}  # a proxy need not report https
            return scheme not in schemes or host != environ.get("HTTP_HOST", "").lower()
        followed = environ["REQUEST_METHOD"] == "GET" and environ.get("HTTP_SEC_FETCH_DEST") == "document"
        return environ.get("HTTP_SEC_FETCH_SITE") == "cross-site" and not followed


def cookie_name(environ: WSGIEnvironment, purpose: str) -> str:
    """Return a cookie's name; over https its prefix restricts it to https, and without a base path to this host."""
    return (https_prefix(environ) if is_https(environ) else HTTP_PREFIX) + purpose


def https_prefix(environ: WSGIEnvironment) -> str:
    """Return the prefix of the names of cookies that are set over https."""
    return HTTPS_PATH_PREFIX if environ["SCRIPT_NAME"] else HTTPS_PREFIX


def cookie_value(environ: WSGIEnvironment, purpose: str) -> str | None:
    """Return the value of a cookie. One set over https counts even if the proxy does not report https every time."""
    # the parser in werkzeug.http raises where the header is not UTF-8
    found = parse_cookie(environ.get("HTTP_COOKIE"))
    return found.get(https_prefix(environ) + purpose) or found.get(cookie_name(environ, purpose))


def is_https(environ: WSGIEnvironment) -> bool:
    """Return whether the browser uses https, to the viewer or to a proxy.

    The header needs no trusted sender: it only makes the checks stricter, and only for the client that sends it.
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
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else MAX_PICTURE + 1


def _discard_body(environ: WSGIEnvironment) -> None:
    """Read what is left of a body that is not accepted: clients send all of it before they read the answer.

    gunicorn would close the connection instead, and accept no others while it waits for the client to do so, too.
    """
    if _length(environ) <= MAX_PICTURE and not environ.get("HTTP_TRANSFER_ENCODING"):
        while environ["wsgi.input"].read(CHUNK_BYTES):
            pass


def _with_headers(environ: WSGIEnvironment, start_response: StartResponse) -> StartResponse:
    """Return start_response with the security headers added to every answer."""
    added = dict(HEADERS)
    if not environ["PATH_INFO"].startswith(STATIC):
        added["Cache-Control"] = "no-store"

    def start(
        status: str, headers: list[tuple[str, str]], exc_info: OptExcInfo | None = None, /
    ) -> Callable[[bytes], object]:
        kept = [(name, value) for name, value in headers if name not in added]
        return start_response(status, [*kept, *added.items()], exc_info)

    return start


def _response(environ: WSGIEnvironment, denial: Denial) -> Response:
    """Return the answer with the reason: one line, or JSON below /api/."""
    if is_api(environ["PATH_INFO"]):
        headers = {"WWW-Authenticate": denial.challenge} if denial.challenge else {}
        return problem_response(denial.status, denial.text, headers)
    if environ["PATH_INFO"].startswith("/api/"):
        return Response(msgspec.json.encode({"error": denial.text}), denial.status, mimetype="application/json")
    return Response(f"{denial.text}\n", denial.status)
