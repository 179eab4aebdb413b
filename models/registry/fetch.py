"""Download a model to this machine: a store and a folder in it in, a local model folder out.

Files are kept in the user's cache folder and checked against the card's hashes; only missing or damaged files are
downloaded. Several processes may fetch the same model at once. A file with another hash raises ModelUnusable and is not
kept.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from models.card import CARD_NAME, RESTORE, CardHeader, parse_card_as
from models.files import ModelUnusable, read_checked, replace_file, verify_sha256
from models.registry.store import Store, StoreFailed


def fetch_model(store: Store, folder: str) -> Path:
    """Return a local folder with a model's card and files. folder: in the store; "" for the store itself."""
    where = f"{store.location}/{folder}".rstrip("/")
    try:
        card = store.read(f"{folder}/{CARD_NAME}".lstrip("/"))
    except FileNotFoundError as error:
        raise ModelUnusable(f"{where} has no {CARD_NAME}: it is not a model") from error
    here = cache_folder() / hashlib.sha256(where.encode()).hexdigest()[:16]
    for name, sha256 in parse_card_as(CardHeader, card, f"{where}/{CARD_NAME}").files.items():
        try:
            read_checked(here / name, sha256, remedy=RESTORE)
        except ModelUnusable:  # it is missing or damaged
            _write(here / name, _read(store, f"{folder}/{name}".lstrip("/"), sha256, f"{where}/{name}"))
    _write(here / CARD_NAME, card)
    return here


def cache_folder() -> Path:
    """Return the folder of downloaded models: below $XDG_CACHE_HOME, or ~/.cache."""
    home = os.environ.get("HOME") or tempfile.gettempdir()
    return Path(os.environ.get("XDG_CACHE_HOME") or f"{home}/.cache", "maskwatch", "models")


def _read(store: Store, name: str, sha256: str, where: str) -> bytes:
    try:
        content = store.read(name)
    except FileNotFoundError as error:
        raise ModelUnusable(f"{where} is missing: {RESTORE}") from error
    return verify_sha256(content, sha256, where, remedy=RESTORE)


def _write(path: Path, content: bytes) -> None:
    try:
        replace_file(path, content)
    except OSError as error:
        reason = f"{path} cannot be written ({error.strerror})"
        raise StoreFailed(f"{reason}: set XDG_CACHE_HOME to a folder that can") from error
