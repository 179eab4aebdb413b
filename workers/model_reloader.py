"""Keep a classifier at the current version of a registry: poll it, load and warm up a new version beside the old one.

`--models` in; a loaded model out, and another one whenever the registry's current version changes. A version that does
not load is rejected: `state` says why, the model in use stays, and the version is tried again when its files change. A
registry that cannot be reached is reported in the same way and polled again. If the first version does not load, the
process fails. If the polling thread ends by an error, its traceback is in the log, and `state` says so from then on.
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

from models.classifier.card import RESTORE
from models.classifier.mask_classifier import ClassifierFailed, MaskClassifier
from models.classifier.self_test import load_with_self_test
from models.files import ModelUnusable
from models.registry.registry import Registry
from models.registry.resolve import resolve_models
from models.registry.store import FileInfo, StoreFailed
from pipeline.runtime.settings import Settings
from workers.batcher import Batcher

POLL_INTERVAL_S = 0.25  # of a registry in a local folder
URL_POLL_INTERVAL_S = 1.0  # of a registry at a URL; still, a rollback takes effect within two seconds
MAX_LOADED = 2  # the model in use and the one before, so that a rollback need not load anything
LOAD_TIMEOUT_S = 1.0  # how long the end of the process waits for a version that is being loaded
WARM_UP_CROPS = (1, 8, 8)
RUNNING = "running"
NOT_POLLED = "registry not polled any more: see the log, and restart this process"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A classifier that is warmed up, and a batcher that knows its speed.

    version: the registry's name for it, or its folder if there is no registry.
    """

    version: str
    classifier: MaskClassifier
    batcher: Batcher


class ModelReloader:
    """Load the current version of the registry, and each version that replaces it.

    Attributes:
        first: the model to start with.
        state: for the heartbeat, "running" or what is wrong with the current version.
    """

    def __init__(self, settings: Settings) -> None:
        """Load the model that the settings name.

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
        self._newest = self.first.version
        self._loaded = [self.first]
        self._next: deque[LoadedModel] = deque(maxlen=1)
        self._rejected: tuple[str, dict[str, FileInfo]] | None = None  # a version that does not load, with its files
        self._rejection = ""

    def take(self) -> LoadedModel | None:
        """Return the model to use from now on; None if it has not changed since the last call."""
        return self._next.popleft() if self._next else None

    @contextmanager
    def polling(self) -> Iterator[None]:
        """Poll the registry in a thread while the block runs; without a registry do nothing."""
        registry, ended = self._models, threading.Event()
        if not isinstance(registry, Registry):
            yield
            return
        interval_s = POLL_INTERVAL_S if registry.is_local else URL_POLL_INTERVAL_S

        def poll_until_ended() -> None:
            try:
                while not ended.wait(interval_s):
                    self.poll(registry)
            finally:
                if not ended.is_set():  # an error ends the thread
                    self.state = NOT_POLLED

        thread = threading.Thread(target=poll_until_ended, name="model-reloader", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join(LOAD_TIMEOUT_S)

    def poll(self, registry: Registry) -> None:
        """Check the registry once: load its current version if it is new, or set `state` to what is wrong."""
        try:
            version = registry.current().version
            if version == self._newest:
                self._rejected = None
                self.state = RUNNING
            else:
                self._try(registry, version)
        except StoreFailed as error:
            self.state = f"registry unreachable: {error}"
        except ModelUnusable as error:
            self.state = f"no current version: {error}"

    def _try(self, registry: Registry, version: str) -> None:
        """Load a version or reject it; try a rejected version again only if its files have changed."""
        files = registry.files(version)
        if self._rejected == (version, files):
            self.state = self._rejection  # a registry that was unreachable meanwhile had set another
            return
        try:
            self._load_next(registry, version)
            self.state = RUNNING
        except StoreFailed:
            raise
        except ModelUnusable as error:
            self._rejected = version, files
            self.state = self._rejection = f"refused {version}: {error}"

    def _load_next(self, registry: Registry, version: str) -> None:
        loaded = next((one for one in self._loaded if one.version == version), None)
        model = loaded or self._load(version, registry.folder(version))
        self._loaded = [*(one for one in self._loaded if one is not model), model][-MAX_LOADED:]
        self._newest, self._rejected = version, None
        self._next.append(model)

    def _load(self, version: str, folder: Path) -> LoadedModel:
        settings = self._settings
        classifier = load_with_self_test(folder, settings.runtime, settings.threads)
        batcher = Batcher(settings.max_batch, settings.max_wait_ms / 1000)
        try:
            warm_up(classifier, batcher)
        except ClassifierFailed as error:  # a batch larger than those of the self-test
            raise ModelUnusable(f"{folder} holds no classifier that runs ({error}): {RESTORE}") from error
        return LoadedModel(version=version, classifier=classifier, batcher=batcher)


def warm_up(classifier: MaskClassifier, batcher: Batcher) -> None:
    """Run the model before the first real crop, and measure its speed."""
    size = classifier.card.size_px
    for count in WARM_UP_CROPS:
        before = time.monotonic()
        classifier.mask_probability(np.zeros((count, size, size, 3), np.uint8))
    batcher.learn_call(WARM_UP_CROPS[-1], time.monotonic() - before)
