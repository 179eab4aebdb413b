"""The model registry: a folder or URL that holds versions of the classifier and says which of them is current.

    versions/<version>/card.json    beside the files it names; never changed once it is there
    current.json                    the current version, since when, by whom, and those that were current before it

Registering copies a run folder; it never changes which version is current (promotion.py does). "built-in" is
the version that the program itself carries: it is current in a new registry, and one can go back to it. What cannot be
reached raises StoreFailed, a damaged version ModelUnusable, a step that the registry does not take RegistryError.
"""

from __future__ import annotations

import shlex
from contextlib import AbstractContextManager
from pathlib import Path

import msgspec

from models.classifier.card import (
    CARD_NAME,
    DEFAULT_FOLDER,
    INT8_NAME,
    KERAS_NAME,
    Card,
    card_text,
    parse_card,
    read_card,
)
from models.files import ModelUnusable, read_checked
from models.registry.fetch import fetch
from models.registry.pointer import Pointer, Promotion, now, pointer_text, who
from models.registry.store import Listed, Store, StoreFailed, open_store

CURRENT_NAME = "current.json"
VERSIONS = "versions"
REPORT = "report"
BUILT_IN = "built-in"
# What of a run folder serves; the float ONNX file is for looking at.
SERVED = (INT8_NAME, KERAS_NAME)
ANEW = "`maskwatch models promote VERSION --force` writes it anew"
# Cards that differ in these alone describe the same model.
TOLD_APART_BY = {"created", "job"}


class RegistryError(ValueError):
    """A registry does not take a step; the message is one line that says why and what to do."""


class Registry:
    """A registry at a place; opening it touches nothing."""

    def __init__(self, store: Store) -> None:
        """Take the place; see registry_at()."""
        self._store = store
        self.place = store.place
        self.is_local = store.folder is not None

    def pointer(self) -> Pointer:
        """Return which version is current.

        Raises:
            ModelUnusable: current.json is missing or damaged; StoreFailed when the registry cannot be reached.
        """
        try:
            return msgspec.json.decode(self._store.read(CURRENT_NAME), type=Pointer)
        except FileNotFoundError as error:
            raise ModelUnusable(f"{self.place}/{CURRENT_NAME} is missing: mount the registry, or {ANEW}") from error
        except msgspec.DecodeError as error:
            raise ModelUnusable(f"{self.place}/{CURRENT_NAME} is damaged ({error}): {ANEW}") from error

    def exists(self) -> bool:
        """Return whether there is a registry at the place."""
        return self._has_pointer() or bool(self.versions())

    def versions(self) -> list[str]:
        """Return the versions that were registered, by name; the built-in one is not among them."""
        return sorted(self._store.listing(VERSIONS))

    def known(self, version: str) -> str:
        """Return a version that is there, the built-in one included.

        Raises:
            RegistryError: it is not; says which are.
        """
        if version != BUILT_IN and version not in (there := self.versions()):
            raise RegistryError(f"{self.place} has no version {version}: it has {', '.join([BUILT_IN, *there])}")
        return version

    def files(self, version: str) -> dict[str, Listed]:
        """Return what lies in a version's folder, with what changes when a file does."""
        return self._store.listing(f"{VERSIONS}/{version}")

    def card(self, version: str) -> Card:
        """Return a version's card.

        Raises:
            ModelUnusable: there is none, or it is damaged; StoreFailed when the registry cannot be reached.
        """
        if version == BUILT_IN:
            return read_card(DEFAULT_FOLDER)
        name = f"{VERSIONS}/{version}/{CARD_NAME}"
        where = f"{self.place}/{name}"
        try:
            card = parse_card(self._store.read(name), where)
        except FileNotFoundError as error:
            raise ModelUnusable(f"{where} is missing: register the version again") from error
        if card.version != version:
            raise ModelUnusable(f"{where} is the card of {card.version}: register the version again")
        return card

    def folder(self, version: str) -> Path:
        """Return a version's model folder on this machine; one that lies elsewhere is fetched into the cache.

        Raises:
            ModelUnusable: it has no card of its own, or was fetched and is damaged; StoreFailed when the registry
                cannot be reached.
        """
        self.card(version)
        if version == BUILT_IN:
            return DEFAULT_FOLDER
        if self._store.folder is not None:
            return self._store.folder / VERSIONS / version
        return fetch(self._store, f"{VERSIONS}/{version}")

    def changing(self) -> AbstractContextManager[None]:
        """Be the only one who changes which version is current while a block runs; behind a URL that is not sure."""
        return self._store.locked()

    def try_to_write(self) -> None:
        """Make sure that versions can be added; raise StoreFailed when they cannot."""
        self.versions()
        self._store.try_to_write()

    def point(self, version: str, by: str, history: list[Promotion]) -> None:
        """Make a version current, without any check."""
        self._store.write(CURRENT_NAME, pointer_text(Pointer(version=version, since=now(), by=by, history=history)))

    def add(self, card: Card, contents: dict[str, bytes]) -> None:
        """Write a version; its card comes last, so that it is there whole or not at all.

        A registry that is new gets its current.json then, with the built-in version.
        """
        for name, content in contents.items():
            self._store.write(f"{VERSIONS}/{card.version}/{name}", content)
        self._store.write(f"{VERSIONS}/{card.version}/{CARD_NAME}", card_text(card))
        with self.changing():
            if not self._has_pointer():
                self.point(BUILT_IN, who(), [])

    def _has_pointer(self) -> bool:
        try:
            self._store.read(CURRENT_NAME)
        except FileNotFoundError:
            return False
        return True


def register(place: str, run: Path) -> Card:
    """Register a run folder of training; return the card of the version, which is not current by that.

    The same version may be registered again: what was damaged is mended, nothing else changes.

    Args:
        place: the registry, a folder or URL; one that is not there yet is made.
        run: a model folder with card and int8 file.

    Raises:
        ModelUnusable: the run folder is incomplete or damaged; StoreFailed when the registry cannot be written.
        RegistryError: a different model is registered under this version.
    """
    registry, found = registry_at(place), read_card(run)
    if INT8_NAME not in found.files:
        raise ModelUnusable(f"{run} has no {INT8_NAME}: train again, or take a run folder of training")
    card = msgspec.structs.replace(found, files={name: found.files[name] for name in SERVED if name in found.files})
    contents = {name: read_checked(run / name, sha256, remedy="train again") for name, sha256 in card.files.items()}
    there = _registered(registry, card)
    if there is None:
        contents |= {str(path.relative_to(run)): path.read_bytes() for path in _files_below(run / REPORT)}
    registry.add(there or card, contents)
    return there or card


def register_line(place: str, run: Path) -> str:
    """Return the command that registers a run folder."""
    return shlex.join(["maskwatch", "models", "register", str(run), "--models", place])


def registry_at(place: str) -> Registry:
    """Return the registry at a folder or URL, whether it is there yet or not."""
    return Registry(open_store(place))


def _registered(registry: Registry, card: Card) -> Card | None:
    """Return the card under which a model is registered already, None when it is not or its card is damaged."""
    try:
        there = registry.card(card.version)
    except StoreFailed:
        raise
    except ModelUnusable:
        return None
    differ = [name for name in Card.__struct_fields__ if getattr(there, name) != getattr(card, name)]
    if set(differ) - TOLD_APART_BY:
        raise RegistryError(
            f"{card.version} is registered at {registry.place} already and differs in {', '.join(differ)}: a version "
            "is never changed; remove its folder if nobody needs it"
        )
    return there


def _files_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())
