"""Tokens of programs that use the API: a file with their names, scopes and hashes; a token in, its scopes out.

A token is 256 random bits, so a plain SHA-256 of it cannot be guessed back, and none is slow to check. The file is read
again when it has changed: a token that is created or revoked counts at once, in every viewer that reads the file. A
file that cannot be read, or that others may write, admits nobody; the log says so once.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import re
import secrets
import stat
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal, get_args

import msgspec
from msgspec import Meta, Struct

from pipeline.runtime.settings import Settings

log = logging.getLogger(__name__)

Scope = Literal["read", "label", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
PREFIX = "mw_"  # so that scanners for secrets, and people, recognize a token
TOKEN_BYTES = 32
MAX_TOKEN = 128  # characters; a longer text is not hashed
MAX_FILE_BYTES = 1_000_000
NAME = re.compile(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")


class TokensError(Exception):
    """The file of tokens cannot be used, or holds another token of this name, or none; says what to do."""


class ApiToken(Struct, frozen=True, kw_only=True):
    """One token without its secret. sha256: hash of the token, hexadecimal. created_at: Unix seconds."""

    name: str
    scopes: tuple[Scope, ...]
    sha256: Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
    created_at: float


class _File(Struct, frozen=True, kw_only=True):
    tokens: list[ApiToken] = []


def tokens_path(settings: Settings) -> Path:
    """Return the file of the tokens that the settings name, or the default one."""
    if settings.tokens:
        return Path(settings.tokens)
    folder = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(folder).expanduser() / "maskwatch" / "tokens.json"


def hash_of(token: str) -> str:
    """Return the hash by which a token is stored."""
    return hashlib.sha256(token.encode()).hexdigest()


def read_tokens(path: Path) -> list[ApiToken]:
    """Return the tokens in a file; none if there is no file.

    Raises:
        TokensError: it cannot be read, is damaged, or others may write it.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise TokensError(f"{path}: other users may write this file; run `chmod 600 {path}`")
            return msgspec.json.decode(file.read(MAX_FILE_BYTES), type=_File).tokens
    except FileNotFoundError:
        return []
    except OSError as error:
        raise TokensError(f"{path}: cannot be read: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise TokensError(f"{path}: not a file of tokens ({error}); remove it and create the tokens again") from error


def create_token(path: Path, name: str, scopes: Sequence[Scope]) -> str:
    """Add a token to a file and return it. It cannot be shown again.

    Raises:
        TokensError: the name is taken or invalid, or the file cannot be read or written.
    """
    if not NAME.match(name):
        raise TokensError(f"{name!r} cannot name a token: take 1 to 64 letters, digits, dots, hyphens and underscores")
    token = PREFIX + secrets.token_urlsafe(TOKEN_BYTES)
    ordered = tuple(scope for scope in SCOPES if scope in scopes)
    with _changing(path) as tokens:
        if any(one.name == name for one in tokens):
            raise TokensError(f"there is a token {name} already: revoke it first, or choose another name")
        tokens.append(ApiToken(name=name, scopes=ordered, sha256=hash_of(token), created_at=round(time.time())))
    return token


def revoke_token(path: Path, name: str) -> None:
    """Remove a token from a file.

    Raises:
        TokensError: there is no such token, or the file cannot be read or written.
    """
    with _changing(path) as tokens:
        left = [one for one in tokens if one.name != name]
        if len(left) == len(tokens):
            raise TokensError(f"there is no token {name!r}: `maskwatch tokens list` lists them")
        tokens[:] = left


class TokenStore:
    """The tokens in a file, read again when it has changed. Threads may share it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._state: tuple[int, ...] | None = None
        self._by_hash: dict[str, ApiToken] = {}
        self._lock = threading.Lock()

    def find(self, token: str) -> ApiToken | None:
        """Return what is known of a token, None for one that does not count."""
        if len(token) > MAX_TOKEN:
            return None
        with self._lock:
            self._refresh()
            return self._by_hash.get(hash_of(token))

    def _refresh(self) -> None:
        try:
            found = self._path.stat()
            state: tuple[int, ...] = (found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino)
        except OSError:
            state = ()
        if state == self._state:
            return
        self._state = state
        try:
            self._by_hash = {one.sha256: one for one in read_tokens(self._path)}
        except TokensError as error:
            log.error("no token is accepted: %s", error)
            self._by_hash = {}


@contextlib.contextmanager
def _changing(path: Path) -> Iterator[list[ApiToken]]:
    """Yield the tokens in a file, to be changed; one process at a time, and a reader sees all or nothing of it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with path.with_name(f"{path.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            tokens = read_tokens(path)
            yield tokens
            _write(path, msgspec.json.format(msgspec.json.encode(_File(tokens=tokens))))
    except OSError as error:
        raise TokensError(f"{path}: cannot be written: {error.strerror}") from error


def _write(path: Path, content: bytes) -> None:
    """Replace a file at once by one with mode 0600."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name, delete=False) as file:
        file.write(content + b"\n")
    Path(file.name).replace(path)
