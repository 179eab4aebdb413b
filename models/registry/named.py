"""What `--models` names: nothing (the built-in model), a model's folder, or a registry with a current version.

A folder with card.json is a model, a place with current.json a registry, on this machine or behind a URL. A place that
is neither raises ModelUnusable, one that cannot be reached StoreFailed.
"""

from __future__ import annotations

from pathlib import Path

from models.classifier.card import CARD_NAME, DEFAULT_FOLDER, Card, read_card
from models.files import ModelUnusable
from models.registry.fetch import fetch
from models.registry.registry import CURRENT_NAME, Registry
from models.registry.store import Store, open_store


def named_models(named: str | None) -> Path | Registry:
    """Return the registry that was named, or the model's folder, fetched when it lies behind a URL."""
    if not named:
        return DEFAULT_FOLDER
    store = open_store(named)
    if (registry := Registry(store)).exists():
        return registry
    if not _has_card(store):
        raise ModelUnusable(
            f"{store.place} is no model folder and no registry: it holds neither {CARD_NAME} nor {CURRENT_NAME}; "
            f"`maskwatch models register RUN --models {store.place}` makes a registry"
        )
    return store.folder or fetch(store, "")


def model_folder(named: str | None) -> Path:
    """Return the folder of the model to use now: of a registry, its current version's."""
    found = named_models(named)
    return found.folder(found.pointer().version) if isinstance(found, Registry) else found


def model_card(named: str | None) -> Card:
    """Return the card of the model to use now, without its files."""
    found = named_models(named)
    return found.card(found.pointer().version) if isinstance(found, Registry) else read_card(found)


def _has_card(store: Store) -> bool:
    try:
        store.read(CARD_NAME)
    except FileNotFoundError:
        return False
    return True
