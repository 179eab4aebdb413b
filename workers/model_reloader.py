"""Keep a worker at the current version of a registry: poll it, load a new version beside the old one.

A model's folder or a registry, and a function that loads a folder, in; a loaded model out, and another one whenever the
registry's current version changes. A version that does not load is rejected: `state` says why, and the model in use
stays. The version is tried again when its files change, and after a pause: the machine may have been short of memory.
A registry that cannot be reached is reported in the same way and polled again. If the first version does not load, the
process fails. If the polling thread ends by an error, its traceback is in the log, and `state` says so from then on.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from models.card import read_card_header
from models.files import ModelUnusable
from models.registry.registry import Registry
from models.registry.store import FileInfo, StoreFailed
from pipeline.runtime import metrics
from pipeline.runtime.worker_context import WorkerContext

Model = TypeVar("Model")

POLL_INTERVAL_S = 0.25  # of a registry in a local folder
URL_POLL_INTERVAL_S = 1.0  # of a registry at a URL; still, a rollback takes effect within two seconds
RETRY_INTERVAL_S = 30.0  # after which a rejected version is tried again although its files are the same
MAX_LOADED = 2  # the model in use and the one before, so that a rollback need not load anything
LOAD_TIMEOUT_S = 1.0  # how long the end of the process waits for a version that is being loaded
RUNNING = "running"
NOT_POLLED = "registry not polled any more: see the log, and restart this process"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel(Generic[Model]):
    """A model that is ready to use.

    name: the registry's for its version, or its folder if there is no registry. version: on its card.
    """

    name: str
    version: str
    model: Model


class ModelReloader(Generic[Model]):
    """Load the current version of the registry, and each version that replaces it.

    Attributes:
        first: the model to start with.
        state: for the heartbeat, "running" or what is wrong with the current version.
    """

    def __init__(
        self,
        models: Path | Registry[Any],
        load: Callable[[Path], Model],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Load the model to start with.

        Args:
            models: a registry, or the folder of the only model.
            load: loads a model's folder and makes it ready to use; raises ModelUnusable if that fails.
            clock: seconds, for the pauses before a rejected version is tried again.

        Raises:
            ModelUnusable: the model is damaged, missing, or cannot be reached.
        """
        self._models = models
        self._load_folder = load
        self._clock = clock
        if isinstance(models, Registry):
            name = models.current().version
            self.first = self._load(name, models.folder(name))
        else:
            self.first = self._load(str(models), models)
        self.state = RUNNING
        self._newest = self.first.name
        self._loaded = [self.first]
        self._next: deque[LoadedModel[Model]] = deque(maxlen=1)
        self._rejected: tuple[str, dict[str, FileInfo]] | None = None  # a version that does not load, with its files
        self._rejection = ""
        self._retry_at = 0.0

    def take(self) -> LoadedModel[Model] | None:
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

    def poll(self, registry: Registry[Any]) -> None:
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

    def _try(self, registry: Registry[Any], version: str) -> None:
        """Load a version or reject it; try a rejected one again if its files have changed, or after a pause."""
        files = registry.files(version)
        if self._rejected == (version, files) and self._clock() < self._retry_at:
            self.state = self._rejection  # a registry that was unreachable meanwhile had set another
            return
        try:
            self._load_next(registry, version)
            self.state = RUNNING
        except StoreFailed:
            raise
        except ModelUnusable as error:
            self._rejected, self._retry_at = (version, files), self._clock() + RETRY_INTERVAL_S
            self.state = self._rejection = f"refused {version}: {error}"

    def _load_next(self, registry: Registry[Any], version: str) -> None:
        loaded = next((one for one in self._loaded if one.name == version), None)
        model = loaded or self._load(version, registry.folder(version))
        self._loaded = [*(one for one in self._loaded if one is not model), model][-MAX_LOADED:]
        self._newest, self._rejected = version, None
        self._next.append(model)

    def _load(self, name: str, folder: Path) -> LoadedModel[Model]:
        model = self._load_folder(folder)
        return LoadedModel(name=name, version=read_card_header(folder).version, model=model)


def report_model(context: WorkerContext, version: str) -> None:
    """Report in heartbeat and metrics which version a worker uses."""
    context.model = version
    metrics.report_model(version)


def report_state(context: WorkerContext, state: str) -> None:
    """Report the reloader's state in heartbeat and metrics; log it when it changes in kind."""
    if state.partition(":")[0] != context.state.partition(":")[0]:
        level = logging.INFO if state == RUNNING else logging.WARNING
        log.log(level, "%s with %s: %s", context.id, context.model, state)
    context.state = state
    metrics.model_rejected.set(state != RUNNING)
