"""Who may see what this viewer shows: one password, and sessions as signed cookies.

In: a password, or a cookie. Out: a session, None when there is none. Without a password everybody is let in, and the
viewer serves this machine alone: `check` refuses settings that would open it to others.

A session is the viewer's signature under an id and an end, so it holds on each viewer with the same key, and after a
restart. The password's hash is part of the key: a new password ends all sessions. Signing out ends a session here; its
cookie, had somebody copied it, would still hold on other viewers until its end. A device cookie, signed likewise, says
that its browser has signed in before; it opens nothing.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import math
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, cast
from urllib.parse import urlsplit

from itsdangerous import BadSignature, Signer
from msgspec import Struct
from werkzeug.security import check_password_hash, generate_password_hash

from pipeline.runtime.settings import BadSettings, Settings

DEVICE_S = 180 * 86_400.0  # so long a browser that has signed in is known; it opens nothing
SESSION_S = 12 * 3600.0  # a working day; then the password is asked for again
MAX_ENDED = 10_000  # sessions that were signed out of and are remembered; whoever makes more knows the password
MAX_PASSWORD = 1024  # characters
SESSION = "maskwatch.session"  # of a request's environment: its Session or None
HASH = re.compile(r"\Ascrypt:\d+:\d+:\d+\$[^$]+\$[0-9a-f]+\Z")
UNPROTECTED = (
    "--host {host} serves other machines, and no password is set: run `maskwatch password` and set "
    "MASKWATCH_PASSWORD_HASH to what it prints, or leave --host out to serve this machine alone"
)
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


class Session(Struct, frozen=True, kw_only=True):
    """Somebody who is signed in. ends_at: Unix seconds on this machine's clock."""

    id: str
    ends_at: float


ANYBODY = Session(id="", ends_at=math.inf)  # where there is no password


class Authenticator:
    """Passwords, sessions, and the names under which the viewer is known. Threads may share it.

    Raises:
        BadSettings: as `check`.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        check(settings)
        self.origins = origins_of(settings)
        self.hosts = LOOPBACK_NAMES | {settings.host.lower()} | {urlsplit(one).hostname for one in self.origins}
        self._clock = clock
        self._hash = plain_hash(settings.password_hash) if settings.password_hash else None
        key = settings.session_key or secrets.token_hex(32)
        self._cookies = Signer(key, salt=f"session {self._hash}", key_derivation="hmac")
        self._devices = Signer(key, salt=f"device {self._hash}", key_derivation="hmac")
        self._tokens = Signer(key, salt=f"form {self._hash}", key_derivation="hmac")
        self._ended: dict[str, float] = {}  # by id: when the session would have ended
        self._hashing = threading.Lock()
        self._ending = threading.Lock()

    @property
    def has_login(self) -> bool:
        """Return whether a password is asked for."""
        return self._hash is not None

    def check_address(self, address: str) -> None:
        """Make sure that the viewer may listen here.

        Raises:
            BadSettings: others than this machine would be served without a password.
        """
        if not self.has_login and reaches_others(address):
            raise BadSettings(UNPROTECTED.format(host=address))

    def is_password(self, password: str) -> bool:
        """Return whether this is the password. One at a time: each takes 32 MB."""
        if self._hash is None or len(password) > MAX_PASSWORD:
            return False
        with self._hashing:
            return check_password_hash(self._hash, password)

    def new_cookie(self) -> str:
        """Return the cookie of a new session."""
        return self._signed(self._cookies, SESSION_S)

    def new_device(self) -> str:
        """Return the cookie by which a browser that has signed in is known later; it opens nothing."""
        return self._signed(self._devices, DEVICE_S)

    def device(self, cookie: str | None) -> str | None:
        """Return the id of a browser that has signed in before; None for a stranger."""
        found = self._unsigned(self._devices, cookie)
        return found.id if found and self._clock() < found.ends_at else None

    def session(self, cookie: str | None) -> Session | None:
        """Return the session of a cookie; None when it is forged, has ended, or there is none."""
        if not self.has_login:
            return ANYBODY
        found = self._unsigned(self._cookies, cookie)
        return found if found and self.lasts(found) else None

    def lasts(self, session: Session) -> bool:
        """Return whether a session has not ended yet."""
        return self._clock() < session.ends_at and session.id not in self._ended

    def end(self, session: Session) -> None:
        """End a session before its time."""
        with self._ending:
            if len(self._ended) >= MAX_ENDED:
                del self._ended[next(iter(self._ended))]
            self._ended[session.id] = session.ends_at

    def token(self, of: str) -> str:
        """Return what a form must carry. of: the session's id, or the cookie that came with the form."""
        return self._tokens.get_signature(of).decode()

    def is_token(self, token: str, of: str) -> bool:
        """Return whether a form carries its token."""
        return secrets.compare_digest(token.encode(), self.token(of).encode())

    def _signed(self, by: Signer, lasts_s: float) -> str:
        return by.sign(f"{secrets.token_urlsafe(16)}:{self._clock() + lasts_s:.0f}").decode()

    def _unsigned(self, by: Signer, cookie: str | None) -> Session | None:
        """Return the id and the end that a cookie names; None when it is forged, or there is none."""
        try:
            id_, _, ends_at = by.unsign(cookie or "").decode().partition(":")
        except BadSignature:
            return None
        return Session(id=id_, ends_at=float(ends_at))


def session_of(environ: Mapping[str, Any]) -> Session | None:
    """Return the session of a request."""
    return cast(Session | None, environ.get(SESSION))


def password_hash(password: str) -> str:
    """Return what the setting of this name holds: a salted scrypt hash, in letters that no shell or file minds."""
    return base64.urlsafe_b64encode(generate_password_hash(password, "scrypt").encode()).decode()


def check(settings: Settings) -> None:
    """Make sure that nobody gets in who should not.

    Raises:
        BadSettings: others than this machine would be served without a password, or a setting is not what it should be.
    """
    origins_of(settings)
    if settings.password_hash:
        plain_hash(settings.password_hash)
    elif reaches_others(settings.host):
        raise BadSettings(UNPROTECTED.format(host=settings.host))


def plain_hash(encoded: str) -> str:
    """Return the scrypt hash that the setting holds.

    Raises:
        BadSettings: it holds none.
    """
    try:
        found = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()
        if HASH.match(found):
            check_password_hash(found, "")  # scrypt says here already whether it can do with the hash's parameters
            return found
    except (binascii.Error, ValueError):
        pass
    raise BadSettings("--password-hash: this is not what `maskwatch password` prints; run it again and set all of it")


def origins_of(settings: Settings) -> frozenset[str]:
    """Return the origins that are named in the settings.

    Raises:
        BadSettings: one of them is no origin.
    """
    origins = frozenset(one.strip().lower() for one in (settings.origins or "").split(",") if one.strip())
    for origin in origins:
        if not re.match(r"\Ahttps?://[^/?#@\s]+\Z", origin):
            raise BadSettings(f"--origins: {origin!r} is no origin; write it like https://cameras.example")
    return origins


def reaches_others(host: str) -> bool:
    """Return whether a process that listens on this host can be reached from other machines."""
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError:
        return False  # nobody can listen there, and listening will say why
    return not all(ipaddress.ip_address(str(one[4][0]).partition("%")[0]).is_loopback for one in found)
