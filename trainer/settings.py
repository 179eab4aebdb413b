"""Training settings: a user's settings in, the recipe of the architecture with these changes out.

Nothing here imports Keras, so that settings are checked fast. Settings travel as JSON. Settings that nothing can be
trained with raise ValueError, with one line that says what to give instead.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

MIN_SIZE_PX, MAX_SIZE_PX = 32, 512
MAX_SEED = 2**32 - 1  # of NumPy
# The first bytes of files of weights: HDF5 (.h5) and ZIP (.keras).
WEIGHTS_SIGNATURES = (b"\x89HDF\r\n\x1a\n", b"PK\x03\x04")
# The starting weights that are not a file.
RANDOM, IMAGENET, PUBLISHED = "none", "imagenet", "published"
# The ending of a file that is: the classifier.keras of a run folder, for a network of the same architecture.
OWN_NETWORK = ".keras"
# The side of a detector's canvases is a multiple of YuNet's largest stride.
CANVAS_MULTIPLE_PX, MAX_CANVAS_PX = 32, 1280


class TrainSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to train on, and how. None means the value of the architecture's recipe.

    datasets: to train on; each a folder, or LABEL=FOLDER such as no_mask=clips. out: the model folder to write.
    validation: only reported on; None keeps a fifth of each data set. tests: measured once at the end.
    leave_out_copies: leave out copies of pictures that are measured; otherwise they are an error.
    class_names: what class names of the data sets mean beside the usual ones: NAME=mask, NAME=no_mask or NAME=ignore.
    leave_out: a file with hashes of pictures to leave out with their copies, such as a model's held_back.txt.
    hold_back: such a file with those that are only reported on, instead of a fifth of each data set.
    size_px: side S of the square crops, or of a detector's canvases. margin: added to a face's box at each side, as a
    share of its side. weights: to start from: imagenet, none (random), a network of our own (OWN_NETWORK), or for
    resnet50 a .h5 file. batch: crops or canvases per step.
    teachers: model folders of classifiers to learn from beside the labels, or none.
    mixed_precision: compute in bfloat16; weights stay float32.
    threads: None means all processors. Another number gives slightly different weights.
    """

    datasets: tuple[str, ...]
    out: str
    validation: str | None = None
    tests: tuple[str, ...] = ()
    leave_out_copies: bool = False
    leave_out: str | None = None
    hold_back: str | None = None
    class_names: tuple[str, ...] = ()
    arch: str = "lite"
    size_px: int | None = None
    margin: float | None = None
    weights: str | None = None
    teachers: tuple[str, ...] = ()
    epochs: int | None = None
    batch: int | None = None
    learning_rate: float | None = None
    mixed_precision: bool = False
    seed: int = 0
    threads: int | None = None


class Recipe(Struct, frozen=True, kw_only=True):
    """How an architecture is trained.

    weights: of the body to start from. weight_decay: of AdamW. label_smoothing: 0..1.
    warmup_share: share of all steps during which the learning rate rises; it then falls along a half cosine to zero.
    None keeps the learning rate constant.
    ema_decay: of the moving average of weights that is evaluated and kept; None keeps the weights themselves.
    teachers: the versions of the classifiers that it learns from. mixed_precision: whether layers compute in bfloat16.
    """

    about: str
    size_px: int
    margin: float
    weights: str
    epochs: int
    batch: int
    optimizer: Literal["adam", "adamw"]
    learning_rate: float
    warmup_share: float | None = None
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    ema_decay: float | None = None
    teachers: tuple[str, ...] = ()
    mixed_precision: bool = False


# How much of what a taught network learns is the teachers' answer; the rest is the label, which is right more often.
TAUGHT_SHARE = 0.7
# The margin is small: the masked faces of public data sets show more surroundings than the bare ones, and with a wide
# margin a network learns to take surroundings for a mask.
_LITE = Recipe(
    about="EfficientNet-Lite0 pretrained on ImageNet, for CPUs",
    size_px=112,
    margin=0.05,
    weights=IMAGENET,
    epochs=10,
    batch=64,
    optimizer="adamw",
    learning_rate=1e-3,
    warmup_share=0.05,
    weight_decay=0.05,
    label_smoothing=0.03,
    ema_decay=0.998,
)
RECIPES = {
    "lite": _LITE,
    "resnet18": msgspec.structs.replace(_LITE, about="ResNet18", weights=RANDOM, epochs=56),
    "resnet18-half": msgspec.structs.replace(
        _LITE, about="ResNet18 with half as many channels, for CPUs", weights=RANDOM, epochs=56
    ),
    "resnet50": Recipe(
        about="ResNet50 pretrained on ImageNet, with a dense head of its own",
        size_px=224,
        margin=0.05,
        weights=IMAGENET,
        epochs=10,
        batch=32,
        optimizer="adam",
        learning_rate=1e-4,
    ),
}


# YuNet's own training uses SGD; with batch normalization merged into the weights, AdamW needs no other tuning.
DETECTOR_RECIPES = {
    "yunet": Recipe(
        about="YuNet, trained on from its published weights",
        size_px=640,
        margin=0.0,
        weights=PUBLISHED,
        epochs=15,
        batch=8,
        optimizer="adamw",
        learning_rate=1e-3,
        warmup_share=0.03,
        weight_decay=1e-3,
        ema_decay=0.998,
    ),
}


def is_detector(arch: str) -> bool:
    """Return whether an architecture finds faces, instead of labelling them."""
    return arch in DETECTOR_RECIPES


def recipe_of(settings: TrainSettings) -> Recipe:
    """Return an architecture's recipe with the settings' changes; raise ValueError if nothing can be trained so."""
    recipes = RECIPES | DETECTOR_RECIPES
    check_arch(settings.arch, recipes)
    named = ("size_px", "margin", "weights", "epochs", "batch", "learning_rate")
    changes = {name: value for name in named if (value := getattr(settings, name)) is not None}
    recipe = msgspec.structs.replace(recipes[settings.arch], **changes, mixed_precision=settings.mixed_precision)
    if settings.teachers:  # which say themselves how sure a label is
        recipe = msgspec.structs.replace(recipe, label_smoothing=0.0)
    _check_numbers(settings, recipe)
    if is_detector(settings.arch):
        _check_detector(settings, recipe)
        return recipe
    check_start(settings.arch, recipe.weights)
    if recipe.weights not in (RANDOM, IMAGENET):
        _check_weights(Path(recipe.weights))
    return recipe


def check_arch(arch: str, known: Collection[str] = tuple(RECIPES)) -> None:
    """Raise ValueError for an unknown architecture."""
    if arch not in known:
        raise ValueError(f"unknown architecture {arch!r}: choose one of {', '.join(known)}")


def check_start(arch: str, weights: str) -> None:
    """Raise ValueError when an architecture cannot start from these weights."""
    if weights == RANDOM or weights.endswith(OWN_NETWORK) or arch == "resnet50":
        return
    known = RANDOM if RECIPES[arch].weights == RANDOM else f"{IMAGENET}, {RANDOM}"
    if weights not in known.split(", "):
        raise ValueError(f"--weights {weights}: {arch} starts from {known}, or the {OWN_NETWORK} file of another run")


def _check_detector(settings: TrainSettings, recipe: Recipe) -> None:
    if settings.teachers:
        raise ValueError(f"{settings.arch} learns from boxes: --teacher is for classifiers")
    if settings.margin is not None:
        raise ValueError(f"{settings.arch} cuts no crops: --margin is for classifiers")
    if settings.mixed_precision:
        raise ValueError(f"{settings.arch} is trained in float32: --mixed-precision is for classifiers")
    if recipe.weights != PUBLISHED:
        raise ValueError(f"--weights {recipe.weights}: {settings.arch} starts from its {PUBLISHED} weights only")
    if recipe.size_px % CANVAS_MULTIPLE_PX:
        raise ValueError(f"training {settings.arch} needs canvases of a multiple of {CANVAS_MULTIPLE_PX} px")


def _check_weights(path: Path) -> None:
    """Check a file's first bytes; Keras checks when it loads the weights whether they fit."""
    if not path.is_file():
        raise ValueError(f"--weights {path}: there is no such file; give one, or imagenet, or none")
    try:
        with path.open("rb") as file:
            start = file.read(max(map(len, WEIGHTS_SIGNATURES)))
    except OSError as error:
        raise ValueError(f"--weights {path} cannot be read ({error.strerror}): give another file") from error
    if not start.startswith(WEIGHTS_SIGNATURES):
        raise ValueError(
            f"--weights {path} holds no weights: give the {OWN_NETWORK} file of a run, "
            "or a .h5 file of ResNet50 without its top"
        )


def _check_numbers(settings: TrainSettings, recipe: Recipe) -> None:
    max_px = MAX_CANVAS_PX if is_detector(settings.arch) else MAX_SIZE_PX
    for wrong, what in (
        (not settings.datasets, "a data set to train on"),
        (recipe.epochs < 1, "at least 1 epoch"),
        (recipe.batch < 2, "at least 2 crops a batch"),
        (not MIN_SIZE_PX <= recipe.size_px <= max_px, f"crops of {MIN_SIZE_PX} to {max_px} px"),
        (not 0 <= recipe.margin <= 1, "a margin of 0 to 1"),
        (not 0 < recipe.learning_rate < 1, "a learning rate above 0 and below 1"),
        (not 0 <= settings.seed <= MAX_SEED, f"a seed of 0 to {MAX_SEED}"),
        (settings.threads is not None and settings.threads < 1, "at least 1 thread"),
    ):
        if wrong:
            raise ValueError(f"training needs {what}")
