"""Resolve the setting `--models`: nothing (the built-in model), a model's folder, or a registry with a current version.

A location with card.json is a model, one with current.json a registry, on this machine or behind a URL. A location that
is neither raises ModelUnusable, one that cannot be reached StoreFailed.
"""

from __future__ import annotations

from pathlib import Path

from models.classifier.card import CARD_NAME, DEFAULT_FOLDER, Card, read_card
from models.files import ModelUnusable
from models.registry.fetch import fetch_model
from models.registry.registry import CURRENT_NAME, Registry
from models.registry.store import has_file, open_store


def resolve_models(location: str | None) -> Path | Registry:
    """Return the registry at a location, or the model's folder, downloaded when it is behind a URL."""
    if not location:
        return DEFAULT_FOLDER
    store = open_store(location)
    if (registry := Registry(store)).exists():
        return registry
    if not has_file(store, CARD_NAME):
        raise ModelUnusable(
            f"{store.location} is neither a model folder nor a registry: it contains neither "
            f"{CARD_NAME} nor {CURRENT_NAME}; "
            f"`maskwatch models register RUN --models {store.location}` makes a registry"
        )
    return store.folder or fetch_model(store, "")


def current_folder(location: str | None) -> Path:
    """Return the folder of the model to use now; in a registry, the current version's."""
    found = resolve_models(location)
    return found.folder(found.current().version) if isinstance(found, Registry) else found


def current_card(location: str | None) -> Card:
    """Return the card of the model to use now, without its files."""
    found = resolve_models(location)
    return found.card(found.current().version) if isinstance(found, Registry) else read_card(found)
