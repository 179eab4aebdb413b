"""Follow the current version of a registry: load it beside the one in use, warm it up, hand it over between batches.

`--models` in, a classifier that is ready to serve out, and another one each time the registry's current version
changes. A version that is broken is refused: `state` says why, the one in use stays, and it is tried again when the
registry or one of its files changes. A registry that cannot be reached is told likewise and looked at again. Only the
first version must load: there is none to stay with.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.classifier.mask_classifier import MaskClassifier
from models.classifier.verified_load import load_verified
from models.files import ModelUnusable
from models.registry.registry import Registry
from models.registry.resolve import resolve_models
from models.registry.store import FileInfo, StoreFailed
from pipeline.runtime.settings import Settings
from workers.batcher import Batcher

POLL_INTERVAL_S = 0.25  # how often a folder is asked which version is current
URL_POLL_INTERVAL_S = 1.0  # ... and a URL: a version that was in use before is back within two seconds all the same
KEPT = 2  # loaded at most: the one in use and the one before it, so that going back waits for nothing
JOIN_S = 1.0  # how long the end of the process waits for a version that is being loaded
WARM_UP_CROPS = (1, 8, 8)
RUNNING = "running"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A classifier that has answered its first batches, and a batcher that knows how long it takes.

    version: the registry's name for it; its folder where there is no registry.
    """

    version: str
    classifier: MaskClassifier
    batcher: Batcher


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedVersion:
    """A version that does not load, its files as they were then, and why."""

    version: str
    files: dict[str, FileInfo]
    reason: str


class ModelReloader:
    """Hand out the classifier to use, and the next one when there is one.

    first: the one to begin with. state: for the heartbeat, "running" or what is wrong with the current version.
    """

    def __init__(self, settings: Settings) -> None:
        """Load what the settings name.

        Raises:
            ModelUnusable: it is damaged, missing, or cannot be reached.
        """
        self._settings = settings
        self._models = resolve_models(settings.models)
        if isinstance(self._models, Registry):
            version = self._models.current().version
            self.first = self._load(version, self._models.folder(version))
        else:
            self.first = self._load(str(self._models), self._models)
        self.state = RUNNING
        self._latest = self.first.version
        self._kept = [self.first]
        self._offered: deque[LoadedModel] = deque(maxlen=1)
        self._refused: RejectedVersion | None = None

    def take(self) -> LoadedModel | None:
        """Return the classifier to use from now on; None when it is the same as before."""
        return self._offered.popleft() if self._offered else None

    @contextmanager
    def following(self) -> Iterator[None]:
        """Look at the registry in a thread while the block runs; a model that is no registry's stays as it is."""
        registry, ended = self._models, threading.Event()
        if not isinstance(registry, Registry):
            yield
            return
        pause_s = POLL_INTERVAL_S if registry.is_local else URL_POLL_INTERVAL_S

        def follow() -> None:
            while not ended.wait(pause_s):
                self.look(registry)

        thread = threading.Thread(target=follow, name="swap", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join(JOIN_S)

    def look(self, registry: Registry) -> None:
        """Look at a registry once: offer its current version if it is new, or note what is wrong with it."""
        try:
            version = registry.current().version
            if version == self._latest:
                self._refused = None
                self.state = RUNNING
            else:
                self._try(registry, version)
        except StoreFailed as error:
            self.state = f"registry unreachable: {error}"
        except ModelUnusable as error:
            self.state = f"no current version: {error}"

    def _try(self, registry: Registry, version: str) -> None:
        """Offer a version, or refuse it; one that was refused is tried again only when its files have changed."""
        files = registry.files(version)
        if self._refused is None or (self._refused.version, self._refused.files) != (version, files):
            try:
                self._offer(registry, version)
            except StoreFailed:
                raise
            except ModelUnusable as error:
                self._refused = RejectedVersion(version=version, files=files, reason=str(error))
        self.state = f"refused {version}: {self._refused.reason}" if self._refused else RUNNING

    def _offer(self, registry: Registry, version: str) -> None:
        kept = next((one for one in self._kept if one.version == version), None)
        ready = kept or self._load(version, registry.folder(version))
        self._kept = [*(one for one in self._kept if one is not ready), ready][-KEPT:]
        self._latest, self._refused = version, None
        self._offered.append(ready)

    def _load(self, version: str, folder: Path) -> LoadedModel:
        settings = self._settings
        classifier = load_verified(folder, settings.runtime, settings.threads)
        batcher = Batcher(settings.max_batch, settings.max_wait_ms / 1000)
        warm_up(classifier, batcher)
        return LoadedModel(version=version, classifier=classifier, batcher=batcher)


def warm_up(classifier: MaskClassifier, batcher: Batcher) -> None:
    """Run the model before the first real crop, and learn how long it takes."""
    size = classifier.card.size_px
    for count in WARM_UP_CROPS:
        before = time.monotonic()
        classifier.mask_probability(np.zeros((count, size, size, 3), np.uint8))
    batcher.learn_call(WARM_UP_CROPS[-1], time.monotonic() - before)
