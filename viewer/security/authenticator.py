"""Who may use the viewer: one password, and sessions in signed cookies.

In: a password or a cookie. Out: a session, or None. Without a password every request has a session, and the viewer
serves this machine alone: `check_access_settings` rejects settings that would open it to others.

A session is an id and an end, signed by the viewer, so it is valid on each viewer with the same key, also after a
restart. The hash of the password is part of the key: a new password ends all sessions. Signing out ends a session at
once on this viewer, and within a second on others of the same Redis (sign_outs.py). A device cookie, signed likewise,
marks a browser that has signed in before; it grants no access.
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

DEVICE_RETENTION_S = 180 * 86_400.0  # how long a browser that has signed in is known
SESSION_DURATION_S = 12 * 3600.0  # a working day
MAX_ENDED = 10_000  # ended sessions that are remembered; each of them took a sign-in with the password
MAX_PASSWORD = 1024  # characters
SESSION = "maskwatch.session"  # key in a request's environment: its Session or None
HASH = re.compile(r"\Ascrypt:\d+:\d+:\d+\$[^$]+\$[0-9a-f]+\Z")
UNPROTECTED = (
    "--host {host} serves other machines, and no password is set: run `maskwatch password` and set "
    "MASKWATCH_PASSWORD_HASH to what it prints, or leave --host out to serve this machine alone"
)
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


class Session(Struct, frozen=True, kw_only=True):
    """A signed-in browser. ends_at: Unix seconds on this machine's clock."""

    id: str
    ends_at: float


WITHOUT_LOGIN = Session(id="", ends_at=math.inf)  # of every request when there is no password


class Authenticator:
    """The password, the sessions, and the hosts and origins of the viewer. Threads may share it.

    Raises:
        BadSettings: see `check`.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        check_access_settings(settings)
        self.origins = origins_of(settings)
        self.hosts = LOOPBACK_NAMES | {settings.host.lower()} | {urlsplit(one).hostname for one in self.origins}
        self._clock = clock
        self._hash = decode_hash(settings.password_hash) if settings.password_hash else None
        key = settings.session_key or secrets.token_hex(32)
        self._cookies = Signer(key, salt=f"session {self._hash}", key_derivation="hmac")
        self._devices = Signer(key, salt=f"device {self._hash}", key_derivation="hmac")
        self._tokens = Signer(key, salt=f"form {self._hash}", key_derivation="hmac")
        self._ended: dict[str, float] = {}  # by id: the end that the session had before
        self._hashing = threading.Lock()
        self._ending = threading.Lock()

    @property
    def has_login(self) -> bool:
        """Return whether a password is required."""
        return self._hash is not None

    def check_address(self, address: str) -> None:
        """Check that the viewer may listen on an address.

        Raises:
            BadSettings: other machines would be served without a password.
        """
        if not self.has_login and reaches_others(address):
            raise BadSettings(UNPROTECTED.format(host=address))

    def is_password(self, password: str) -> bool:
        """Return whether this is the password. One thread at a time: hashing takes 32 MB."""
        if self._hash is None or len(password) > MAX_PASSWORD:
            return False
        with self._hashing:
            return check_password_hash(self._hash, password)

    def new_cookie(self) -> str:
        """Return the cookie of a new session."""
        return self._signed(self._cookies, SESSION_DURATION_S)

    def new_device(self) -> str:
        """Return the cookie that marks a browser as one that has signed in."""
        return self._signed(self._devices, DEVICE_RETENTION_S)

    def device(self, cookie: str | None) -> str | None:
        """Return the id of a browser that has signed in before, None for an unknown one."""
        found = self._unsigned(self._devices, cookie)
        return found.id if found and self._clock() < found.ends_at else None

    def session(self, cookie: str | None) -> Session | None:
        """Return the session of a cookie; None when there is no cookie, or it is forged or has ended."""
        if not self.has_login:
            return WITHOUT_LOGIN
        found = self._unsigned(self._cookies, cookie)
        return found if found and self.is_valid(found) else None

    def is_valid(self, session: Session) -> bool:
        """Return whether a session has not ended yet."""
        return self._clock() < session.ends_at and session.id not in self._ended

    def end(self, session: Session) -> None:
        """End a session before its time."""
        with self._ending:
            if len(self._ended) >= MAX_ENDED:
                del self._ended[next(iter(self._ended))]
            self._ended[session.id] = session.ends_at

    def ended(self) -> dict[str, float]:
        """Return the sessions that have ended before their time: by their IDs, when they would have ended."""
        with self._ending:
            return dict(self._ended)

    def note_ended(self, sessions: Mapping[str, float]) -> None:
        """Learn of sessions that have ended with another viewer, as ended() returns them."""
        for id_, ends_at in sessions.items():
            if id_ not in self._ended:
                self.end(Session(id=id_, ends_at=ends_at))

    def token(self, of: str) -> str:
        """Return the token that a form must contain. of: the id of the session, or the cookie sent with the form."""
        return self._tokens.get_signature(of).decode()

    def is_token(self, token: str, of: str) -> bool:
        """Return whether a form contains its token."""
        return secrets.compare_digest(token.encode(), self.token(of).encode())

    def _signed(self, by: Signer, lasts_s: float) -> str:
        return by.sign(f"{secrets.token_urlsafe(16)}:{self._clock() + lasts_s:.0f}").decode()

    def _unsigned(self, by: Signer, cookie: str | None) -> Session | None:
        """Return the id and the end in a cookie; None when there is no cookie, or it is forged."""
        try:
            id_, _, ends_at = by.unsign(cookie or "").decode().partition(":")
        except BadSignature:
            return None
        return Session(id=id_, ends_at=float(ends_at))


def session_of(environ: Mapping[str, Any]) -> Session | None:
    """Return the session of a request."""
    return cast(Session | None, environ.get(SESSION))


def password_hash(password: str) -> str:
    """Return the value of the setting password_hash: a salted scrypt hash in base64, which shells need not quote."""
    return base64.urlsafe_b64encode(generate_password_hash(password, "scrypt").encode()).decode()


def check_access_settings(settings: Settings) -> None:
    """Check the settings that control access.

    Raises:
        BadSettings: other machines would be served without a password, or a setting is malformed.
    """
    origins_of(settings)
    if settings.password_hash:
        decode_hash(settings.password_hash)
    elif reaches_others(settings.host):
        raise BadSettings(UNPROTECTED.format(host=settings.host))


def decode_hash(encoded: str) -> str:
    """Return the scrypt hash in the setting.

    Raises:
        BadSettings: there is none.
    """
    try:
        found = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()
        if HASH.match(found):
            check_password_hash(found, "")  # raises now if scrypt does not accept the parameters of the hash
            return found
    except (binascii.Error, ValueError):
        pass
    raise BadSettings("--password-hash: this is not what `maskwatch password` prints; run it again and set all of it")


def origins_of(settings: Settings) -> frozenset[str]:
    """Return the origins in the settings.

    Raises:
        BadSettings: one of them is not an origin.
    """
    origins = frozenset(one.strip().lower() for one in (settings.origins or "").split(",") if one.strip())
    for origin in origins:
        if not re.match(r"\Ahttps?://[^/?#@\s]+\Z", origin):
            raise BadSettings(f"--origins: {origin!r} is not an origin; write it like https://cameras.example")
    return origins


def reaches_others(host: str) -> bool:
    """Return whether a process that listens on this host can be reached from other machines."""
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError:
        return False  # listening on it will fail, and report why
    return not all(ipaddress.ip_address(str(one[4][0]).partition("%")[0]).is_loopback for one in found)
