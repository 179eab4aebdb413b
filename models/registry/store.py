"""Where models lie: a folder, or what an fsspec URL names (s3://, gs://, sftp://, memory:// and so on).

Files are named by their path below the place, with slashes. One that is to be read and is not there raises
FileNotFoundError; whatever else goes wrong (no network, no rights, a place that is gone) raises StoreFailed. A write is
whole or not at all: in a folder a new file takes the old one's place, and object stores show a file once it is there.
Only folders can be locked: what lies behind a URL has no lock that all its drivers know.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from models import file_lock
from models.files import ModelUnusable

LOCK_NAME = ".lock"
PROBE_NAME = ".probe"


class StoreFailed(ModelUnusable):
    """A place cannot be reached, read or written; the message is one line that says which, why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """What a listing tells of a file or folder. stamp changes when a file does. size_bytes: None when not known."""

    size_bytes: int | None
    stamp: str


class Store(Protocol):
    """A place with files; `place` names it for people."""

    place: str

    @property
    def folder(self) -> Path | None:
        """Its path on this machine; None for a URL."""

    def read(self, name: str) -> bytes:
        """Return what a file holds."""

    def write(self, name: str, content: bytes) -> None:
        """Write a file, and the folders above it."""

    def listing(self, name: str) -> dict[str, Listed]:
        """Return what lies in a folder, by name; nothing when there is no such folder."""

    def try_to_write(self) -> None:
        """Write a small file and remove it again; raise StoreFailed when it cannot be written."""

    def locked(self) -> AbstractContextManager[None]:
        """Keep everybody else who asks for the lock out while a block runs; where there are no locks, do nothing."""


def open_store(named: str) -> Store:
    """Return the place that a path or URL names; nothing needs to be there yet.

    Raises:
        StoreFailed: the URL is of no known kind, or its driver is not installed.
    """
    if named.startswith("file://"):
        return LocalStore(unquote(urlsplit(named).path))
    return UrlStore(named) if "://" in named else LocalStore(named)


class LocalStore:
    """A folder of this machine, or one that is mounted."""

    def __init__(self, path: str) -> None:
        """Name the folder; see open_store()."""
        self.place = path
        self.folder: Path = Path(path)

    def read(self, name: str) -> bytes:
        """Return what a file holds."""
        with self._told(name, "read"):
            return (self.folder / name).read_bytes()

    def write(self, name: str, content: bytes) -> None:
        """Write a file, and the folders above it."""
        with self._told(name, "written"):
            replace_file(self.folder / name, content)

    def listing(self, name: str) -> dict[str, Listed]:
        """Return what lies in a folder, by name; nothing when there is no such folder."""
        try:
            with self._told(name, "read"), os.scandir(self.folder / name) as entries:
                return {one.name: _listed(one.stat()) for one in entries if not one.name.startswith(".")}
        except FileNotFoundError:
            return {}

    def try_to_write(self) -> None:
        """Write a small file and remove it again, with the folders that were made for it."""
        made: list[Path] = []
        probe = f"{PROBE_NAME}.{secrets.token_hex(4)}"
        try:
            with self._told(probe, "written"):
                made += [folder for folder in (self.folder, *self.folder.parents) if not folder.exists()]
                replace_file(self.folder / probe, b"")
                (self.folder / probe).unlink()
        finally:
            for folder in made:
                with suppress(OSError):  # somebody else uses it already
                    folder.rmdir()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder's lock while a block runs; the kernel releases it however its process dies."""
        with self._told(LOCK_NAME, "locked"):
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = file_lock.wait_for(self.folder / LOCK_NAME)
        try:
            yield
        finally:
            os.close(lock)

    @contextmanager
    def _told(self, name: str, done: str) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, NotADirectoryError) as error:
            if done == "read":
                raise FileNotFoundError(f"{self.folder / name} does not exist") from error
            raise StoreFailed(f"{self.folder} cannot be made: choose another folder") from error
        except OSError as error:
            raise StoreFailed(f"{self.folder / name} cannot be {done}: {error.strerror}") from error


class UrlStore:
    """What an fsspec URL names."""

    def __init__(self, url: str) -> None:
        """Open the URL's driver; see open_store()."""
        import fsspec.core  # only who names a URL pays for it

        self.place = _without_password(url)
        self.folder = None
        with self._told():
            self._files, root = fsspec.core.url_to_fs(url)
            self._root = root.rstrip("/")

    def read(self, name: str) -> bytes:
        """Return what a file holds."""
        with self._told():
            content: bytes = self._files.cat_file(f"{self._root}/{name}")
            return content

    def write(self, name: str, content: bytes) -> None:
        """Write a file, and the folders above it."""
        path = f"{self._root}/{name}"
        try:
            with self._told():
                self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
                self._files.pipe_file(path, content)
        except FileNotFoundError as error:
            raise StoreFailed(f"{self.place} cannot be made: choose another place") from error

    def listing(self, name: str) -> dict[str, Listed]:
        """Return what lies in a folder, by name; nothing when there is no such folder."""
        path = f"{self._root}/{name}"
        try:
            with self._told():
                self._files.invalidate_cache(path)
                found = self._files.ls(path, detail=True)
        except FileNotFoundError:
            return {}
        names = {
            one["name"].rstrip("/").rpartition("/")[2]: one
            for one in found
            if one["name"].strip("/") != path.strip("/")
        }
        return {name: Listed(size_bytes=one.get("size"), stamp=str(sorted(one.items()))) for name, one in names.items()}

    def try_to_write(self) -> None:
        """Write a small file and remove it again; where nothing may be removed, it stays."""
        self.write(PROBE_NAME, b"")
        with suppress(StoreFailed, FileNotFoundError), self._told():
            self._files.rm_file(f"{self._root}/{PROBE_NAME}")

    def locked(self) -> AbstractContextManager[None]:
        """Do nothing: see above."""
        return nullcontext()

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except ImportError as error:
            raise StoreFailed(f"{self.place} needs a driver that is not installed: {_line(error)}") from error
        except Exception as error:  # each driver has errors of its own, and none of them may stop a worker
            raise StoreFailed(f"{self.place} cannot be used: {_line(error)}") from error


def replace_file(path: Path, content: bytes) -> None:
    """Write a file under another name beside its own and rename it: readers see the old one or the new one, whole.

    Raises:
        OSError: it cannot be written; the old one stands.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with beside.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise


def _listed(found: os.stat_result) -> Listed:
    return Listed(size_bytes=found.st_size, stamp=f"{found.st_mtime_ns} {found.st_size} {found.st_ino}")


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    if parts.password is None:
        return url
    return parts._replace(netloc=f"{parts.username or ''}:***@{parts.netloc.rpartition('@')[2]}").geturl()


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
