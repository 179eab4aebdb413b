"""Look at what a run was given before it begins, or is left to somebody else: settings in, nothing out.

What nothing can be trained with raises ValueError with one line: a data set that does not exist or has two roles, a
folder that holds a model already or cannot be written. No picture is decoded.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from models.classifier.card import CARD_NAME
from models.registry.store import open_store
from trainer.data.listing import has_sayable_name, shown
from trainer.data.sources import label_and_path, read_source
from trainer.fitting.run_folder import FolderInUse, locked
from trainer.settings import TrainSettings, recipe_of


def check_run(settings: TrainSettings) -> None:
    """Look whether a run can begin; whether its folder can be written is tried, and leaves nothing behind.

    Raises:
        ValueError: with these settings, data sets or this folder it cannot.
    """
    check_settings(settings)
    with suppress(FolderInUse), locked(Path(settings.out)):  # a job waits for a folder in use
        pass


def check_settings(settings: TrainSettings) -> None:
    """Look at all that a run was given but its registry, and write nothing.

    Raises:
        ValueError: it cannot be trained with.
    """
    check_is_new(settings)
    if settings.weights is not None:
        check_name("--weights", settings.weights)
    recipe_of(settings)
    check_data(settings)


def check_registry(models: str, out: str) -> None:
    """Look whether a registry, a folder or URL, may be the one that a run's model is added to.

    Raises:
        ValueError: its name cannot be written down, or it is the run's own folder.
    """
    check_name("--models", models)
    folder = open_store(models).folder
    if folder is not None and folder.resolve() == Path(out).resolve():
        raise ValueError(f"--out and --models are both {out}: a registry needs a folder of its own")


def check_name(option: str, path: str) -> None:
    """Look at a path's name; raise ValueError when it cannot be written down as UTF-8."""
    if not has_sayable_name(Path(path).absolute()):
        raise ValueError(f"{option} {shown(Path(path))} has a name that is not UTF-8: choose another")


def check_data(settings: TrainSettings) -> None:
    """Look at all data sets: each is there, and has one role and a name of its own.

    Raises:
        ValueError: one has not, or the folder to write lies in it.
    """
    roles: dict[Path, tuple[str, str]] = {}
    names: dict[str, Path] = {}
    reported = [(settings.validation, "validated on")] if settings.validation else []
    for text, role in (
        *((text, "trained on") for text in settings.datasets),
        *reported,
        *((text, "tested with") for text in settings.tests),
    ):
        label, path = label_of(text), path_of(text).resolve()
        name = read_source(text).name
        if path in roles:
            raise ValueError(_twice(text, path, roles[path], (label, role)))
        if Path(settings.out).resolve().is_relative_to(path):
            raise ValueError(f"--out {settings.out} lies in the data set {path}: choose a folder beside it")
        roles[path] = label, role
        if names.setdefault(name, path) != path:
            raise ValueError(f"{path} and {names[name]} are both called {name} in reports: rename one of them")


def check_is_new(settings: TrainSettings) -> None:
    """Look at the folder that is to be written.

    Raises:
        ValueError: it has no name, or none that can be written down, or holds a model already.
    """
    if not settings.out:
        raise ValueError("--out is empty: name the folder to write")
    check_name("--out", settings.out)
    if (Path(settings.out) / CARD_NAME).exists():
        raise ValueError(f"{settings.out} already holds a model: choose another folder with --out")


def path_of(dataset: str) -> Path:
    """Return where a data set lies that is named as PATH or LABEL=PATH."""
    return label_and_path(dataset)[1]


def label_of(dataset: str) -> str:
    """Return the label that all of a data set was given; empty when there is none."""
    return label_and_path(dataset)[0] or ""


def _twice(text: str, path: Path, before: tuple[str, str], now: tuple[str, str]) -> str:
    if before == now:
        return f"{text} is given twice: once is enough"
    if before[1] == now[1]:
        return f"{path} is given as {before[0] or 'a data set'} and as {now[0] or 'a data set'}: give it once"
    return f"{text} is both {before[1]} and {now[1]}"
