"""The model registry: a folder or URL that holds versions of the classifier and says which of them is current.

    versions/<version>/card.json    beside the files it names; never changed once it is there
    current.json                    the current version, since when, by whom, and those that were current before it

Registering copies a run folder; only promotion.py changes which version is current. "built-in" is the model that the
program itself includes: it is current in a new registry. A registry that cannot be reached raises StoreFailed, a
damaged version ModelUnusable, an operation that is not allowed RegistryError.
"""

from __future__ import annotations

import shlex
from contextlib import AbstractContextManager
from pathlib import Path

import msgspec

from models.classifier import card as cards
from models.classifier.card import CARD_NAME, DEFAULT_FOLDER, INT8_NAME, KERAS_NAME, Card
from models.files import ModelUnusable, decode_json, indented_json, read_checked
from models.registry.current_version import CurrentVersion, Promotion, user_and_host, utc_now
from models.registry.fetch import fetch_model
from models.registry.store import FileInfo, Store, StoreFailed, has_file, open_store

CURRENT_NAME = "current.json"
VERSIONS = "versions"
REPORT = "report"
BUILT_IN = "built-in"
# The files of a run folder that a version has; the float ONNX file is not used for serving.
SERVED_FILES = (INT8_NAME, KERAS_NAME)
REWRITE = "`maskwatch models promote VERSION --force` writes it again"
# Cards that differ only in these fields describe the same model.
FIELDS_THAT_MAY_DIFFER = {"created", "job"}


class RegistryError(ValueError):
    """An operation is not allowed; the message is one line that says why and what to do."""


class Registry:
    """The registry in a store; nothing is read or written before it is used."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.location = store.location
        self.is_local = store.folder is not None

    def current(self) -> CurrentVersion:
        """Return which version is current."""
        where = f"{self.location}/{CURRENT_NAME}"
        try:
            content = self._store.read(CURRENT_NAME)
        except FileNotFoundError as error:
            raise ModelUnusable(f"{where} is missing: mount the registry, or {REWRITE}") from error
        return decode_json(content, CurrentVersion, where, remedy=REWRITE)

    def exists(self) -> bool:
        """Return whether the store holds a registry."""
        return has_file(self._store, CURRENT_NAME) or bool(self.versions())

    def versions(self) -> list[str]:
        """Return the versions that were registered, by name; the built-in one is not among them."""
        return sorted(self._store.list_files(VERSIONS))

    def known(self, version: str) -> str:
        """Return `version` if it exists; the built-in one does.

        Raises:
            RegistryError: it does not; lists those that do.
        """
        if version != BUILT_IN and version not in (versions := self.versions()):
            raise RegistryError(f"{self.location} has no version {version}: it has {', '.join([BUILT_IN, *versions])}")
        return version

    def files(self, version: str) -> dict[str, FileInfo]:
        """Return the files in a version's folder by name."""
        return self._store.list_files(f"{VERSIONS}/{version}")

    def card(self, version: str) -> Card:
        """Return a version's card."""
        if version == BUILT_IN:
            return cards.read_card(DEFAULT_FOLDER)
        name = f"{VERSIONS}/{version}/{CARD_NAME}"
        where = f"{self.location}/{name}"
        try:
            card = cards.parse_card(self._store.read(name), where)
        except FileNotFoundError as error:
            raise ModelUnusable(f"{where} is missing: register the version again") from error
        if card.version != version:
            raise ModelUnusable(f"{where} is the card of {card.version}: register the version again")
        return card

    def folder(self, version: str) -> Path:
        """Return a version's model folder on this machine; one behind a URL is downloaded into the cache."""
        self.card(version)
        if version == BUILT_IN:
            return DEFAULT_FOLDER
        if self._store.folder is not None:
            return self._store.folder / VERSIONS / version
        return fetch_model(self._store, f"{VERSIONS}/{version}")

    def locked(self) -> AbstractContextManager[None]:
        """Let no other process change which version is current while a block runs; a URL cannot be locked."""
        return self._store.locked()

    def check_writable(self) -> None:
        """Raise StoreFailed when versions cannot be added."""
        self.versions()
        self._store.check_writable()

    def set_current(self, version: str, by: str, history: list[Promotion]) -> None:
        """Make a version current, without any check."""
        current = CurrentVersion(version=version, since=utc_now(), by=by, history=history)
        self._store.write(CURRENT_NAME, indented_json(current))

    def add(self, card: Card, contents: dict[str, bytes]) -> None:
        """Write a version, its card last: a version without a card does not exist.

        In a new registry, the built-in version becomes current.
        """
        for name, content in contents.items():
            self._store.write(f"{VERSIONS}/{card.version}/{name}", content)
        self._store.write(f"{VERSIONS}/{card.version}/{CARD_NAME}", indented_json(card))
        with self.locked():
            if not has_file(self._store, CURRENT_NAME):
                self.set_current(BUILT_IN, user_and_host(), [])


def register(location: str, run: Path) -> Card:
    """Register a run folder of training and return the card of the version; it does not become current.

    When a version is registered again, damaged files are replaced and nothing else changes.

    Args:
        location: the registry, a folder or URL; it is created if it does not exist.
        run: a model folder with card and int8 file.

    Raises:
        ModelUnusable: the run folder is incomplete or damaged; StoreFailed when the registry cannot be written.
        RegistryError: another model is registered under this version.
    """
    registry, found = registry_at(location), cards.read_card(run)
    if INT8_NAME not in found.files:
        raise ModelUnusable(f"{run} has no {INT8_NAME}: train again, or take a run folder of training")
    card = msgspec.structs.replace(
        found, files={name: found.files[name] for name in SERVED_FILES if name in found.files}
    )
    contents = {name: read_checked(run / name, sha256, remedy="train again") for name, sha256 in card.files.items()}
    registered = _registered(registry, card)
    if registered is None:
        contents |= {
            str(path.relative_to(run)): path.read_bytes() for path in (run / REPORT).rglob("*") if path.is_file()
        }
    registry.add(registered or card, contents)
    return registered or card


def register_command(location: str, run: Path) -> str:
    """Return the command that registers a run folder."""
    return shlex.join(["maskwatch", "models", "register", str(run), "--models", location])


def registry_at(location: str) -> Registry:
    """Return the registry at a folder or URL; it need not exist yet."""
    return Registry(open_store(location))


def _registered(registry: Registry, card: Card) -> Card | None:
    """Return the card under which a model is registered already; None when there is none or it is damaged."""
    try:
        there = registry.card(card.version)
    except StoreFailed:
        raise
    except ModelUnusable:
        return None
    differ = [name for name in Card.__struct_fields__ if getattr(there, name) != getattr(card, name)]
    if set(differ) - FIELDS_THAT_MAY_DIFFER:
        raise RegistryError(
            f"{card.version} is registered at {registry.location} already and differs in {', '.join(differ)}: a "
            "version is never changed; remove its folder if nobody needs it"
        )
    return there
