"""Stores of models: a folder, or an fsspec URL (s3://, gs://, sftp://, memory:// and so on).

Files are named by their path below the store's location, with slashes. Reading a file that does not exist raises
FileNotFoundError; every other failure (no network, no permission, a location that is gone) raises StoreFailed. Writes
are atomic: in a folder a new file is renamed over the old one, and object stores show only complete files. Only folders
can be locked: fsspec's drivers have no common lock.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from models import file_lock
from models.files import ModelUnusable, replace_file

LOCK_NAME = ".lock"
PROBE_NAME = ".probe"


class StoreFailed(ModelUnusable):
    """A store cannot be reached, read or written; the message is one line that says which, why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileInfo:
    """A file or folder. stamp changes when the file does. size_bytes: None when not known."""

    size_bytes: int | None
    stamp: str


def open_store(location: str) -> Store:
    """Return the store at a path or URL; it need not exist yet.

    Raises:
        StoreFailed: the URL is of no known kind, or its driver is not installed.
    """
    if location.startswith("file://"):
        return LocalStore(unquote(urlsplit(location).path))
    return UrlStore(location) if "://" in location else LocalStore(location)


class LocalStore:
    """A folder of this machine, or one that is mounted. location: for people. folder: the path."""

    def __init__(self, path: str) -> None:
        self.location = path
        self.folder = Path(path)

    def read(self, name: str) -> bytes:
        """Return a file's content."""
        with self._translated_errors(name, "read"):
            return (self.folder / name).read_bytes()

    def write(self, name: str, content: bytes) -> None:
        """Write a file, and the folders above it."""
        with self._translated_errors(name, "written"):
            replace_file(self.folder / name, content)

    def list_files(self, name: str) -> dict[str, FileInfo]:
        """Return the files and folders in a folder, by name; nothing when there is no such folder."""
        try:
            with self._translated_errors(name, "read"), os.scandir(self.folder / name) as entries:
                found = {one.name: _file_info(one) for one in entries if not one.name.startswith(".")}
        except FileNotFoundError:
            return {}
        return {name: info for name, info in found.items() if info}

    def check_writable(self) -> None:
        """Write an empty file and remove it, with the folders created for it; raise StoreFailed when that fails."""
        created: list[Path] = []
        probe = f"{PROBE_NAME}.{secrets.token_hex(4)}"
        try:
            with self._translated_errors(probe, "written"):
                created += [folder for folder in (self.folder, *self.folder.parents) if not folder.exists()]
                replace_file(self.folder / probe, b"")
                (self.folder / probe).unlink()
        finally:
            for folder in created:
                with suppress(OSError):  # another process uses it already
                    folder.rmdir()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder's lock while a block runs; the kernel releases it however its process dies."""
        with self._translated_errors(LOCK_NAME, "locked"):
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = file_lock.wait_for_lock(self.folder / LOCK_NAME)
        try:
            yield
        finally:
            os.close(lock)

    @contextmanager
    def _translated_errors(self, name: str, done: str) -> Iterator[None]:
        """Translate OSError into FileNotFoundError or StoreFailed. done: what failed, "read", "written" or "locked"."""
        try:
            yield
        except (FileNotFoundError, NotADirectoryError, FileExistsError) as error:  # the last: a file is in the way
            if done == "read":
                raise FileNotFoundError(f"{self.folder / name} does not exist") from error
            raise StoreFailed(f"{self.folder} cannot be made: choose another folder") from error
        except OSError as error:
            raise StoreFailed(f"{self.folder / name} cannot be {done}: {error.strerror}") from error


class UrlStore:
    """The files behind an fsspec URL. location: for people. folder: None, it is not on this machine."""

    def __init__(self, url: str) -> None:
        import fsspec.core  # here, because most processes need no URL

        self.location = _without_password(url)
        self.folder = None
        with self._translated_errors():
            self._files, root = fsspec.core.url_to_fs(url)
            self._root = root.rstrip("/")

    def read(self, name: str) -> bytes:
        """Return a file's content."""
        with self._translated_errors():
            content: bytes = self._files.cat_file(f"{self._root}/{name}")
            return content

    def write(self, name: str, content: bytes) -> None:
        """Write a file, and the folders above it."""
        path = f"{self._root}/{name}"
        try:
            with self._translated_errors():
                self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
                self._files.pipe_file(path, content)
        except FileNotFoundError as error:
            raise StoreFailed(f"{self.location} cannot be made: choose another location") from error

    def list_files(self, name: str) -> dict[str, FileInfo]:
        """Return the files and folders in a folder, by name; nothing when there is no such folder."""
        path = f"{self._root}/{name}"
        try:
            with self._translated_errors():
                self._files.invalidate_cache(path)
                found = self._files.ls(path, detail=True)
        except FileNotFoundError:
            return {}
        return {
            one["name"].rstrip("/").rpartition("/")[2]: FileInfo(
                size_bytes=one.get("size"), stamp=str(sorted(one.items()))
            )
            for one in found
            if one["name"].strip("/") != path.strip("/")
        }

    def check_writable(self) -> None:
        """Write an empty file and remove it; where removing is not permitted, it stays."""
        self.write(PROBE_NAME, b"")
        with suppress(StoreFailed, FileNotFoundError), self._translated_errors():
            self._files.rm_file(f"{self._root}/{PROBE_NAME}")

    def locked(self) -> AbstractContextManager[None]:
        """Do nothing: a URL cannot be locked."""
        return nullcontext()

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        """Translate a driver's errors into StoreFailed; FileNotFoundError stays."""
        try:
            yield
        except FileNotFoundError:
            raise
        except ImportError as error:
            raise StoreFailed(f"{self.location} needs a driver that is not installed: {_one_line(error)}") from error
        except Exception as error:  # each driver raises errors of its own, and none of them may stop a worker
            raise StoreFailed(f"{self.location} cannot be used: {_one_line(error)}") from error


Store = LocalStore | UrlStore


def has_file(store: Store, name: str) -> bool:
    """Return whether a store has a file."""
    try:
        store.read(name)
    except FileNotFoundError:
        return False
    return True


def _file_info(entry: os.DirEntry[str]) -> FileInfo | None:
    """Return None for an entry that is gone, or is a link to nothing."""
    try:
        found = entry.stat()
    except FileNotFoundError:
        return None
    return FileInfo(size_bytes=found.st_size, stamp=f"{found.st_mtime_ns} {found.st_size} {found.st_ino}")


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    if parts.password is None:
        return url
    return parts._replace(netloc=f"{parts.username or ''}:***@{parts.netloc.rpartition('@')[2]}").geturl()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
