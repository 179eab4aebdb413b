"""Say in words why a network camera cannot be reached or read: an error in, a reason and what to do out.

The texts contain no URL, since it may hold a password.
"""

from __future__ import annotations

import errno
import socket
import ssl
from urllib.parse import SplitResult

import av.error

from producer.sources import timeouts

IS_IT_ON = "check the address, and that the camera is on"
_STATUSES = {
    401: "it rejects the user or the password (401); check both",
    403: "it denies this user the stream (403); give the user the right to watch in the camera's settings",
    404: "it has nothing at this path (404); check the path, which the camera's manual names",
    453: "it has no bandwidth for another viewer (453); close other programs that watch it",
    503: "it is too busy (503); close other programs that watch it",
}
_NEEDS_PASSWORD = "it needs a user and a password (401); write them as ://USER:PASSWORD@ in front of the host"  # noqa: S105 -- a hint
_CLASSES: dict[type[Exception], int] = {
    av.error.HTTPUnauthorizedError: 401,
    av.error.HTTPForbiddenError: 403,
    av.error.HTTPNotFoundError: 404,
}
_OTHER_CLIENT = "it rejects the request; is another program watching it, or is the path wrong?"
_SERVER = "it has a fault of its own (5xx); close other programs that watch it, or start the camera again"
_NUMBERS = {
    errno.ECONNREFUSED: f"nothing listens there (connection refused); {IS_IT_ON}, and the port",
    errno.EHOSTUNREACH: f"no way leads to this host; {IS_IT_ON}",
    errno.ENETUNREACH: f"no way leads to this network; {IS_IT_ON}",
    errno.EPROTONOSUPPORT: "it offers no transport that is asked for (461); use --rtsp-transport auto",
}
_NO_HOST = "no host has this name; check the address"


def status_reason(status: int, url: SplitResult) -> str:
    """Return what a status of HTTP or RTSP other than success means."""
    if status == 401 and not url.username:
        return _NEEDS_PASSWORD
    return _STATUSES.get(status, f"it answers with status {status}")


def open_reason(error: Exception, url: SplitResult, *, took_s: float) -> str:
    """Return why a camera cannot be opened. took_s: how long it was tried."""
    if (status := _CLASSES.get(type(error))) is not None:
        return status_reason(status, url)
    if isinstance(error, av.error.HTTPServerError):
        return _SERVER
    if isinstance(error, av.error.HTTPClientError):
        return _OTHER_CLIENT
    if isinstance(error, TimeoutError) or took_s >= timeouts.OPEN_TIMEOUT_S:
        # FFmpeg has no error of its own for a time-out: each protocol reports missing data in its own way
        return f"no answer within {timeouts.OPEN_TIMEOUT_S:g} s; {IS_IT_ON}"
    number = getattr(error, "errno", None)
    is_unknown = number == errno.EIO and not _is_known(url.hostname or "")
    if is_unknown or isinstance(error, (socket.gaierror, UnicodeError)):
        return _NO_HOST
    if isinstance(error, ssl.SSLError):
        return f"no encrypted connection is possible ({error.reason}); is the scheme right?"
    return _NUMBERS.get(number or 0, f"{reason(error)}; {IS_IT_ON}")


def reason(error: Exception) -> str:
    """Return a library's reason without its number, and without the URL, which may hold a password."""
    return getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__


def is_timeout(error: Exception) -> bool:
    """Return whether FFmpeg gave up because no data came."""
    return isinstance(error, (av.error.ExitError, av.error.TimeoutError))


def _is_known(host: str) -> bool:
    try:
        return bool(socket.getaddrinfo(host, None))
    except (OSError, UnicodeError):
        return False
