"""Resolve the setting `--models`: nothing (the built-in models), a model's folder, or a registry with current versions.

A location with card.json is a model, one with current.json or versions of any kind a registry, on this machine or
behind a URL. Detectors and classifiers are given the same location: a model of the other kind means the built-in one. A
location that is neither raises ModelUnusable, one that cannot be reached StoreFailed.
"""

from __future__ import annotations

from pathlib import Path

from models.card import CARD_NAME, read_card_as, read_card_header
from models.files import ModelUnusable
from models.registry.fetch import fetch_model
from models.registry.kinds import AnyCard, ModelKind, kind_of
from models.registry.registry import CURRENT_NAME, Registry
from models.registry.store import has_file, open_store


def resolve_models(location: str | None, kind: ModelKind[AnyCard]) -> Path | Registry[AnyCard]:
    """Return the registry at a location, or a model's folder, downloaded when it is behind a URL."""
    if not location:
        return kind.built_in
    store = open_store(location)
    if (registry := Registry(store, kind)).exists():
        return registry
    if not has_file(store, CARD_NAME):
        raise ModelUnusable(
            f"{store.location} is neither a model folder nor a registry: it contains neither "
            f"{CARD_NAME} nor {CURRENT_NAME}; "
            f"`maskwatch models register RUN --models {store.location}` makes a registry"
        )
    folder = store.folder or fetch_model(store, "")
    return folder if kind_of(read_card_header(folder)) == kind else kind.built_in


def current_folder(location: str | None, kind: ModelKind[AnyCard]) -> Path:
    """Return the folder of the model to use now; in a registry, the current version's."""
    found = resolve_models(location, kind)
    return found.folder(found.current().version) if isinstance(found, Registry) else found


def current_card(location: str | None, kind: ModelKind[AnyCard]) -> AnyCard:
    """Return the card of the model to use now, without its files."""
    found = resolve_models(location, kind)
    if isinstance(found, Registry):
        return found.card(found.current().version)
    return read_card_as(kind.card_type, found)
