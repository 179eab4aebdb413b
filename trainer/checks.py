"""Check a training run before it begins or is enqueued: settings in, a plan with the listed data sets out.

Settings that nothing can be trained with raise ValueError with one line: a data set that does not exist or has two
roles, a folder that already holds a model or cannot be written. No picture is decoded.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from models.card import CARD_NAME
from models.classifier.card import read_card
from models.registry.registry import registry_at
from models.registry.store import open_store
from trainer.data.annotations import DatasetUnusable
from trainer.data.class_names import ClassNames
from trainer.data.file_listing import is_utf8, printable
from trainer.data.hash_list import read_hashes
from trainer.data.manifest import MANIFEST_NAME, read_manifest
from trainer.data.sources import DatasetSource, is_clip, read_source
from trainer.fitting.run_folder import FolderInUse, locked_folder
from trainer.settings import IMAGENET, OWN_NETWORK, RANDOM, Recipe, TrainSettings, is_detector, recipe_of

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPlan:
    """A checked training run: its settings, the recipe that follows from them, and what its data sets hold.

    validation: None keeps a fifth of each data set that is trained on. left_out: hashes of pictures to leave out.
    held_back: hashes of pictures to keep for reporting in place of that fifth.
    trained_on: SHA-256 of the files that the weights to start from were trained on.
    """

    settings: TrainSettings
    recipe: Recipe
    training: tuple[DatasetSource, ...]
    validation: DatasetSource | None
    tests: tuple[DatasetSource, ...]
    left_out: frozenset[str]
    held_back: frozenset[str]
    trained_on: frozenset[str]

    @property
    def out(self) -> Path:
        """The folder to write."""
        return Path(self.settings.out)

    def absolute_settings(self) -> TrainSettings:
        """Return the settings with absolute paths, for a process with another working folder."""
        weights = self.settings.weights
        return msgspec.structs.replace(
            self.settings,
            datasets=tuple(source.dataset.absolute() for source in self.training),
            tests=tuple(source.dataset.absolute() for source in self.tests),
            validation=self.validation and self.validation.dataset.absolute(),
            teachers=tuple(str(Path(folder).absolute()) for folder in self.settings.teachers),
            weights=weights if weights in (None, IMAGENET, RANDOM) else str(Path(str(weights)).absolute()),
            out=str(self.out.absolute()),
            leave_out=self.settings.leave_out and str(Path(self.settings.leave_out).absolute()),
            hold_back=self.settings.hold_back and str(Path(self.settings.hold_back).absolute()),
        )


def plan_training(settings: TrainSettings) -> TrainingPlan:
    """Check settings and list their data sets.

    A run is checked here once in the process that trains. A job was checked before in the process that enqueued it: it
    is checked again because files may have changed while it was queued, before TensorFlow is loaded for nothing.

    Raises:
        ValueError: nothing can be trained with these settings.
        ModelUnusable: a teacher's folder holds no classifier.
    """
    check_is_new(settings)
    for option, path in (("--weights", settings.weights), *(("--teacher", folder) for folder in settings.teachers)):
        if path is not None:
            check_path_is_utf8(option, path)
    if settings.validation and settings.hold_back:
        raise ValueError("--validation and --hold-back both say what is reported on: give one of them")
    recipe = recipe_of(settings)
    recipe = msgspec.structs.replace(recipe, teachers=_teachers(settings.teachers, recipe.margin))
    names = ClassNames(settings.class_names)
    plan = TrainingPlan(
        settings=settings,
        recipe=recipe,
        training=tuple(read_source(dataset, names) for dataset in settings.datasets),
        validation=read_source(settings.validation, names) if settings.validation else None,
        tests=tuple(read_source(dataset, names) for dataset in settings.tests),
        left_out=_hashes("--leave-out", settings.leave_out),
        held_back=_hashes("--hold-back", settings.hold_back),
        trained_on=_trained_on(recipe.weights),
    )
    if is_detector(settings.arch):
        check_has_boxes([*plan.training, *plan.tests, *((plan.validation,) if plan.validation else ())])
        _check_not_clips_alone("train on", plan.training)
        if plan.validation:
            _check_not_clips_alone("validate on", [plan.validation])
    _check_roles(
        [
            *((source, "trained on") for source in plan.training),
            *((source, "validated on") for source in (plan.validation,) if source),
            *((source, "tested with") for source in plan.tests),
        ],
        plan.out,
    )
    return plan


def check_is_new(settings: TrainSettings) -> None:
    """Raise ValueError when the folder to write has no name, one that is not UTF-8, or holds a model."""
    if not settings.out:
        raise ValueError("--out is empty: name the folder to write")
    check_path_is_utf8("--out", settings.out)
    try:
        Path(settings.out).resolve()
    except RuntimeError as error:
        raise ValueError(f"--out {settings.out} is a link that leads to itself: choose another folder") from error
    if (Path(settings.out) / CARD_NAME).exists():
        raise ValueError(f"{settings.out} already holds a model: choose another folder with --out")


def check_can_be_written(folder: Path) -> None:
    """Raise ValueError when a folder cannot be written; nothing is left behind. A job waits for a folder in use."""
    try:
        with suppress(FolderInUse), locked_folder(folder):
            pass
    except OSError as error:  # now a user is there who can do something about it
        raise ValueError(str(error)) from error


def check_registry(models: str, out: str) -> None:
    """Check that a run's model can be added to a registry, hours before that happens.

    Args:
        models: the registry, a folder or URL; a small file is written there and removed again.
        out: the folder that the run writes.

    Raises:
        ValueError: the registry's name is not UTF-8, or it is the run's own folder.
        ModelUnusable: it cannot be reached or written.
    """
    check_path_is_utf8("--models", models)
    folder = open_store(models).folder
    if folder is not None and folder.resolve() == Path(out).resolve():
        raise ValueError(f"--out and --models are both {out}: a registry needs a folder of its own")
    registry_at(models).check_writable()


def check_path_is_utf8(option: str, path: str) -> None:
    """Raise ValueError when a path's name is not UTF-8."""
    if not is_utf8(Path(path).absolute()):
        raise ValueError(f"{option} {printable(Path(path))} has a name that is not UTF-8: choose another")


def check_has_boxes(sources: Sequence[DatasetSource]) -> None:
    """Raise DatasetUnusable if a data set has pictures without boxes; clips have none, and are searched."""
    for source in sources:
        if any(item.label is not None and not is_clip(item.path) for item in source.items):
            raise DatasetUnusable(
                f"{source.name} has no boxes to train a detector on: name folders with annotated photographs "
                "(Pascal VOC, COCO or YOLO), or clips"
            )


def _check_not_clips_alone(purpose: str, sources: Sequence[DatasetSource]) -> None:
    if all(item.label is not None for source in sources for item in source.items):
        named = ", ".join(source.name for source in sources)
        raise DatasetUnusable(f"{named}: clips alone have no boxes to {purpose}: name a data set with boxes, too")


def _teachers(folders: Sequence[str], margin: float) -> tuple[str, ...]:
    """Return the versions of teachers, by their cards alone: the process that checks loads no runtime.

    Raises:
        ValueError: one was trained on crops with another margin.
        ModelUnusable: a folder holds no classifier.
    """
    cards = [read_card(Path(folder)) for folder in folders]
    for folder, card in zip(folders, cards, strict=True):
        if card.margin != margin:
            raise ValueError(
                f"--teacher {folder} was trained on crops with a margin of {card.margin:g}, this network gets "
                f"{margin:g}: give --margin {card.margin:g}, or another teacher"
            )
    return tuple(card.version for card in cards)


def _trained_on(weights: str) -> frozenset[str]:
    """Return the SHA-256 of the files that our own network was trained on, by the manifest beside it."""
    if not weights.endswith(OWN_NETWORK):
        return frozenset()
    manifest = Path(weights).with_name(MANIFEST_NAME)
    try:
        rows = read_manifest(manifest)
    except FileNotFoundError:
        log.warning(
            "there is no %s: what the network was trained on is not known, so that some of it may be reported on",
            manifest,
        )
        return frozenset()
    except OSError as error:
        raise ValueError(f"{manifest} cannot be read ({error.strerror}): make it readable") from error
    return frozenset(row.sha256 for row in rows if row.split == "training")


def _hashes(option: str, path: str | None) -> frozenset[str]:
    if path is None:
        return frozenset()
    try:
        return read_hashes(Path(path))
    except OSError as error:
        raise ValueError(f"{option} {path} cannot be read ({error.strerror}): name a list of hashes") from error


def _check_roles(sources: Sequence[tuple[DatasetSource, str]], out: Path) -> None:
    """Check that each data set has one role and a name of its own, and that the folder to write is in none of them."""
    roles: dict[Path, tuple[str, str]] = {}
    names: dict[str, Path] = {}
    for source, role in sources:
        path = source.dataset.path.resolve()
        use = source.dataset.label or "a data set", role
        if path in roles:
            raise ValueError(_conflict(source, roles[path], use))
        if out.resolve().is_relative_to(path):
            raise ValueError(f"--out {out} is inside the data set {path}: choose a folder beside it")
        roles[path] = use
        if names.setdefault(source.name, path) != path:
            raise ValueError(
                f"{path} and {names[source.name]} are both called {source.name} in reports: rename one of them"
            )


def _conflict(source: DatasetSource, before: tuple[str, str], now: tuple[str, str]) -> str:
    if before == now:
        return f"{source.dataset} is given twice; give it once"
    if before[1] == now[1]:
        return f"{source.dataset.path.resolve()} is given as {before[0]} and as {now[0]}: give it once"
    return f"{source.dataset} is both {before[1]} and {now[1]}"
