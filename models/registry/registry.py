"""The model registry: a folder or URL that holds versions of models and says which of them are current.

    versions/<version>/card.json    beside the files it names; never changed once it is there
    current.json                    the current version, since when, by whom, and those that were current before it
    detectors/                      the same two for detectors; those above are for classifiers

Registering copies a run folder; only promotion.py changes which version is current. "built-in" is the model that the
program itself includes: it is current in a new registry. A registry that cannot be reached raises StoreFailed, a
damaged version ModelUnusable, an operation that is not allowed RegistryError.
"""

from __future__ import annotations

import shlex
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from models.card import CARD_NAME, parse_card_as, read_card_as, read_card_header
from models.classifier.card import Card
from models.detector.card import DetectorCard
from models.files import ModelUnusable, decode_json, indented_json, read_checked
from models.registry.current_version import CurrentVersion, Promotion, user_and_host, utc_now
from models.registry.fetch import fetch_model
from models.registry.kinds import CLASSIFIER, KINDS, AnyCard, ModelKind, kind_of
from models.registry.store import FileInfo, Store, StoreFailed, has_file, open_store

CURRENT_NAME = "current.json"
VERSIONS = "versions"
REPORT = "report"
BUILT_IN = "built-in"
OtherCard = TypeVar("OtherCard", bound=Card | DetectorCard)
# Cards that differ only in these fields describe the same model.
FIELDS_THAT_MAY_DIFFER = {"created", "job"}


class RegistryError(ValueError):
    """An operation is not allowed; the message is one line that says why and what to do."""


class Registry(Generic[AnyCard]):
    """The versions of one kind in a store; nothing is read or written before it is used."""

    def __init__(self, store: Store, kind: ModelKind[AnyCard]) -> None:
        self._store = store
        self._current = f"{kind.subfolder}{CURRENT_NAME}"
        self._versions = f"{kind.subfolder}{VERSIONS}"
        self.kind = kind
        self.location = store.location
        self.is_local = store.folder is not None

    def of_kind(self, kind: ModelKind[OtherCard]) -> Registry[OtherCard]:
        """Return the versions of another kind in the same store."""
        return Registry(self._store, kind)

    def current(self) -> CurrentVersion:
        """Return which version is current."""
        where, rewrite = f"{self.location}/{self._current}", f"`{self.kind.promote} VERSION --force` writes it again"
        try:
            content = self._store.read(self._current)
        except FileNotFoundError as error:
            if self.of_kind(CLASSIFIER)._has_begun() and not self.versions():  # made before registries held this kind
                return CurrentVersion(version=BUILT_IN, since="", by="")
            raise ModelUnusable(f"{where} is missing: mount the registry, or {rewrite}") from error
        return decode_json(content, CurrentVersion, where, remedy=rewrite)

    def exists(self) -> bool:
        """Return whether the store holds a registry, of whatever kinds."""
        return any(self.of_kind(kind)._has_begun() for kind in KINDS)

    def versions(self) -> list[str]:
        """Return the versions that were registered, by name; the built-in one is not among them."""
        return sorted(self._store.list_files(self._versions))

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
        return self._store.list_files(f"{self._versions}/{version}")

    def card(self, version: str) -> AnyCard:
        """Return a version's card."""
        if version == BUILT_IN:
            return read_card_as(self.kind.card_type, self.kind.built_in)
        name = f"{self._versions}/{version}/{CARD_NAME}"
        where = f"{self.location}/{name}"
        try:
            card = parse_card_as(self.kind.card_type, self._store.read(name), where)
        except FileNotFoundError as error:
            raise ModelUnusable(f"{where} is missing: register the version again") from error
        if card.version != version:
            raise ModelUnusable(f"{where} is the card of {card.version}: register the version again")
        return card

    def folder(self, version: str) -> Path:
        """Return a version's model folder on this machine; one behind a URL is downloaded into the cache."""
        self.card(version)
        if version == BUILT_IN:
            return self.kind.built_in
        if self._store.folder is not None:
            return self._store.folder / self._versions / version
        return fetch_model(self._store, f"{self._versions}/{version}")

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
        self._store.write(self._current, indented_json(current))

    def add(self, card: AnyCard, contents: dict[str, bytes]) -> None:
        """Write a version, its card last: a version without a card does not exist.

        In a new registry, the built-in versions become current before: workers may poll it already.
        """
        with self.locked():
            for kind in KINDS:
                self.of_kind(kind)._begin()
        for name, content in contents.items():
            self._store.write(f"{self._versions}/{card.version}/{name}", content)
        self._store.write(f"{self._versions}/{card.version}/{CARD_NAME}", indented_json(card))

    def _has_begun(self) -> bool:
        """Return whether the store has had a version of this kind, even if which one is current is lost."""
        return has_file(self._store, self._current) or bool(self.versions())

    def _begin(self) -> None:
        """Make the built-in version current if there has been no version of this kind."""
        if not self._has_begun():
            self.set_current(BUILT_IN, user_and_host(), [])


def register(location: str, run: Path) -> Card | DetectorCard:
    """Register a run folder of training and return the card of the version; it does not become current.

    When a version is registered again, damaged files are replaced and nothing else changes.

    Args:
        location: the registry, a folder or URL; it is created if it does not exist.
        run: a model folder of a classifier or detector; the file that its card names says which.

    Raises:
        ModelUnusable: the run folder is incomplete or damaged; StoreFailed when the registry cannot be written.
        RegistryError: another model is registered under this version, or the location is a model's own folder.
    """
    if has_file(open_store(location), CARD_NAME):  # workers that use it would use the registry's built-in model instead
        raise RegistryError(f"{location} is a model's folder: name a registry with --models, another folder or a URL")
    kind = kind_of(read_card_header(run))
    registry: Registry[Any] = registry_at(location).of_kind(kind)
    found: Card | DetectorCard = read_card_as(kind.card_type, run)
    if kind.network not in found.files:
        raise ModelUnusable(f"{run} has no {kind.network}: train again, or take a run folder of training")
    card = msgspec.structs.replace(found, files={name: found.files[name] for name in kind.files if name in found.files})
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


def registry_at(location: str) -> Registry[Card]:
    """Return the classifiers' registry at a folder or URL; it need not exist yet."""
    return Registry(open_store(location), CLASSIFIER)


def registry_with(version: str, registry: Registry[Card]) -> Registry[Any]:
    """Return the registry of the kind that has a version; of the built-in ones, the classifiers'.

    Raises:
        RegistryError: none has it; lists the versions of all.
    """
    if version == BUILT_IN:
        return registry
    known = [BUILT_IN]
    for kind in KINDS:
        one: Registry[Any] = registry.of_kind(kind)
        if version in (versions := one.versions()):
            return one
        known += versions
    raise RegistryError(f"{registry.location} has no version {version}: it has {', '.join(known)}")


def _registered(registry: Registry[AnyCard], card: AnyCard) -> AnyCard | None:
    """Return the card under which a model is registered already; None when there is none or it is damaged."""
    try:
        there = registry.card(card.version)
    except StoreFailed:
        raise
    except ModelUnusable:
        return None
    differ = [name for name in card.__struct_fields__ if getattr(there, name) != getattr(card, name)]
    if set(differ) - FIELDS_THAT_MAY_DIFFER:
        raise RegistryError(
            f"{card.version} is registered at {registry.location} already and differs in {', '.join(differ)}: a "
            "version is never changed; remove its folder if nobody needs it"
        )
    return there
