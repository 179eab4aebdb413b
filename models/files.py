"""Read model files, checked against their SHA-256, and write files and JSON."""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path
from typing import TypeVar

import msgspec

Record = TypeVar("Record")


class ModelUnusable(Exception):
    """A model cannot be loaded; the message is one line that says which file, what is wrong and what to do."""


def read_checked(path: Path, sha256: str, *, remedy: str) -> bytes:
    """Return a file's bytes if their hash is the expected one.

    Args:
        remedy: what the user can do; the end of the error message.

    Raises:
        ModelUnusable: the file is missing, cannot be read, or has another hash.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise ModelUnusable(f"{path} is missing: {remedy}") from error
    except OSError as error:
        raise ModelUnusable(f"{path} cannot be read ({error.strerror}): {remedy}") from error
    return verify_sha256(content, sha256, str(path), remedy=remedy)


def verify_sha256(content: bytes, sha256: str, where: str, *, remedy: str) -> bytes:
    """Return `content` if its hash is the expected one; `where` names the file in the error."""
    found = sha256_of(content)
    if found != sha256:
        raise ModelUnusable(f"{where} is damaged (SHA-256 {found[:12]}…, expected {sha256[:12]}…): {remedy}")
    return content


def decode_json(content: bytes, record_type: type[Record], where: str, *, remedy: str) -> Record:
    """Return the record in the bytes of a JSON file; `where` names the file in the error.

    Raises:
        ModelUnusable: it is not JSON, or not such a record.
    """
    try:
        return msgspec.json.decode(content, type=record_type)
    except UnicodeDecodeError as error:
        raise ModelUnusable(f"{where} is not UTF-8: {remedy}") from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise ModelUnusable(f"{where} is damaged ({error}): {remedy}") from error


def indented_json(record: msgspec.Struct) -> bytes:
    """Return a record as indented JSON, as in card.json and current.json."""
    return msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n"


def sha256_of(content: bytes) -> str:
    """Return the SHA-256 of some bytes as 64 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def replace_file(path: Path, content: bytes) -> None:
    """Write a file under a temporary name and rename it: readers see the old content or the new one, never a part.

    Raises:
        OSError: it cannot be written; the old file is unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
