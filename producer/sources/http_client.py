"""Get a camera's pictures over HTTP: a URL in, an answer whose bytes are read piece by piece out.

It answers basic and digest challenges, follows redirects, and keeps the connection as long as the server does. Each
failure is a SourceFailed in words, without the password. Certificates are not checked, as FFmpeg does not: cameras sign
their own.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from dataclasses import dataclass
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit

from producer.sources import timeouts
from producer.sources.http_auth import Authorize, authorizer
from producer.sources.network_errors import open_reason, status_reason
from producer.sources.source import SourceFailed

MAX_REQUESTS = 6  # for one answer: redirects and challenges
CHUNK_BYTES = 1_000_000
REDIRECTS = (301, 302, 303, 307, 308)
UNRESERVED = "/%:@!$&'()*+,;=~?"  # what a path and its query may hold unquoted


class NotHttp(Exception):
    """The server's answer is no HTTP."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The answer to a GET.

    content_type: in lower case, without parameters; empty when the server names none.
    """

    content_type: str
    response: http.client.HTTPResponse
    connection: socket.socket

    def read(self, within_s: float) -> bytes:
        """Return the next bytes; none at its end.

        Raises:
            TimeoutError: none came within this time.
            OSError, http.client.HTTPException: the connection broke.
        """
        self.connection.settimeout(max(0.001, within_s))  # 0 would mean: do not wait
        return self.response.read1(CHUNK_BYTES)


class HttpClient:
    """A client of one URL. Only one answer is read at a time."""

    def __init__(self, url: str, name: str) -> None:
        self._url = urlsplit(url)
        self._user, self._password = unquote(self._url.username or ""), unquote(self._url.password or "")
        self._name = name
        self._authorize: Authorize | None = None
        self._connection: http.client.HTTPConnection | None = None
        self._connected_to = _origin(self._url)

    def get(self) -> Answer:
        """Return the answer of the URL, or of the one it redirects to.

        Raises:
            SourceFailed: it cannot be reached, or answers with an error; says why.
            NotHttp: it speaks another protocol.
        """
        url, asked = self._url, False
        for _ in range(MAX_REQUESTS):
            response, connection = self._ask(url)
            if response.status == 200:
                kind = response.headers.get_content_type() if response.headers["Content-Type"] else ""
                return Answer(content_type=kind, response=response, connection=connection)
            response.close()
            self.close()
            if response.status == 401 and not asked and self._can_authorize(response):
                asked = True
            elif response.status in REDIRECTS and response.headers["Location"]:
                url = self._redirected(url, response.headers["Location"])
            else:
                raise SourceFailed(f"{self._name} cannot be opened: {status_reason(response.status, self._url)}")
        raise SourceFailed(f"{self._name} cannot be opened: it redirects without end")

    def close(self) -> None:
        """Close the connection."""
        if self._connection:
            self._connection.close()
        self._connection = None

    def _can_authorize(self, response: http.client.HTTPResponse) -> bool:
        """Prepare the answer to a challenge; return whether there is one."""
        challenges = response.headers.get_all("WWW-Authenticate", [])
        self._authorize = authorizer(challenges, self._user, self._password) if self._user else None
        return self._authorize is not None

    def _redirected(self, url: SplitResult, location: str) -> SplitResult:
        try:
            target = urlsplit(urljoin(url.geturl(), location))
            is_valid = target.scheme.lower() in ("http", "https") and target.hostname and target.port != 0
        except ValueError:  # a port or address that is none
            is_valid = False
        if not is_valid:
            raise SourceFailed(f"{self._name} cannot be opened: it redirects to an address that is no web page")
        return target

    def _ask(self, url: SplitResult) -> tuple[http.client.HTTPResponse, socket.socket]:
        kept, began = self._connection is not None, time.monotonic()
        try:
            return self._ask_once(url)
        except (OSError, UnicodeError, http.client.HTTPException) as error:
            self.close()
            if kept and isinstance(error, ConnectionError):  # the server had closed the connection meanwhile
                return self._ask(url)
            if isinstance(error, http.client.BadStatusLine) and not isinstance(error, ConnectionError):
                raise NotHttp from error
            why = open_reason(error, url, took_s=time.monotonic() - began)
            raise SourceFailed(f"{self._name} cannot be opened: {why}") from error

    def _ask_once(self, url: SplitResult) -> tuple[http.client.HTTPResponse, socket.socket]:
        if self._connected_to != _origin(url):  # after a redirect: another host would get the path and the password
            self.close()
        if self._connection is None:
            self._connection, self._connected_to = _connection(url), _origin(url)
            self._connection.connect()
        self._connection.sock.settimeout(timeouts.OPEN_TIMEOUT_S)
        sock, target = self._connection.sock, _target(url)
        headers = {"User-Agent": "maskwatch", "Accept": "*/*"}
        if self._authorize and may_have_password(url, self._url):
            headers["Authorization"] = self._authorize("GET", target)
        self._connection.request("GET", target, headers=headers)
        response = self._connection.getresponse()
        if self._connection.sock is None:  # the server closes it after this answer
            self._connection = None
        return response, sock


def _connection(url: SplitResult) -> http.client.HTTPConnection:
    host, timeout = url.hostname or "", timeouts.OPEN_TIMEOUT_S
    if url.scheme.lower() != "https":
        return http.client.HTTPConnection(host, url.port, timeout=timeout)
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return http.client.HTTPSConnection(host, url.port, timeout=timeout, context=context)


def _target(url: SplitResult) -> str:
    path = quote(url.path or "/", safe=UNRESERVED)
    return f"{path}?{quote(url.query, safe=UNRESERVED)}" if url.query else path


def may_have_password(url: SplitResult, asked: SplitResult) -> bool:
    """Return whether a URL is of the server that the user named, maybe by its encrypted port instead of the other."""
    if (url.hostname, url.scheme.lower(), asked.scheme.lower()) == (asked.hostname, "https", "http"):
        return (url.port or 443, asked.port or 80) == (443, 80)
    return _origin(url) == _origin(asked)


def _origin(url: SplitResult) -> tuple[str, str | None, int | None]:
    return url.scheme.lower(), url.hostname, url.port
