"""What a training run is made with: a user's settings in, the recipe of its architecture with their changes out.

Nothing here imports Keras, so that a command line or a queue can check settings in no time. Settings travel as JSON.
What cannot be trained with raises ValueError, one line that says what to give instead.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

SMALLEST_PX, LARGEST_PX = 32, 512
LARGEST_SEED = 2**32 - 1  # NumPy's
# How files of weights begin: HDF5 (.h5) and ZIP (.keras).
WEIGHTS_START = (b"\x89HDF\r\n\x1a\n", b"PK\x03\x04")
# The two starting weights that are no file.
RANDOM, IMAGENET = "none", "imagenet"


class TrainSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to train, on what, and how. None means what the architecture's recipe says.

    datasets: to train on; each a folder, or LABEL=FOLDER such as no_mask=clips. out: the model folder to write.
    validation: is only reported on; None keeps a fifth of each data set. tests: measured once at the end.
    leave_out_copies: leave out copies of pictures that are measured; else they are an error.
    size_px: side S of the square crops. margin: what crops show around a face's box at each side, as a share of it.
    weights: to start from: imagenet, none (random), or for resnet50 a file. batch: crops a step.
    threads: None means all processors. Another number gives slightly other weights.
    """

    datasets: tuple[str, ...]
    out: str
    validation: str | None = None
    tests: tuple[str, ...] = ()
    leave_out_copies: bool = False
    arch: str = "lite"
    size_px: int | None = None
    margin: float | None = None
    weights: str | None = None
    epochs: int | None = None
    batch: int | None = None
    learning_rate: float | None = None
    seed: int = 0
    threads: int | None = None


class Recipe(Struct, frozen=True, kw_only=True):
    """How an architecture is trained.

    weights: of the body to start from. weight_decay: of AdamW. label_smoothing: 0..1.
    warmup_share: of all steps, for which the learning rate rises; it then falls along a half cosine to zero. None keeps
    it as it is.
    ema_decay: of the moving average of weights that is evaluated and kept; None keeps the weights themselves.
    """

    about: str
    size_px: int
    margin: float
    weights: str
    epochs: int
    batch: int
    optimizer: Literal["adam", "adamw"]
    learning_rate: float
    warmup_share: float | None
    weight_decay: float
    label_smoothing: float
    ema_decay: float | None


# The margin is small: the masked faces of public data sets come with more surroundings than the bare ones, and with a
# wide margin surroundings mean "mask".
_LITE = Recipe(
    about="EfficientNet-Lite0 that knows ImageNet, for CPUs",
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
    "resnet50": Recipe(
        about="ResNet50 that knows ImageNet, with a dense head of its own",
        size_px=224,
        margin=0.05,
        weights=IMAGENET,
        epochs=10,
        batch=32,
        optimizer="adam",
        learning_rate=1e-4,
        warmup_share=None,
        weight_decay=0.0,
        label_smoothing=0.0,
        ema_decay=None,
    ),
}


def recipe_of(settings: TrainSettings) -> Recipe:
    """Return the recipe of an architecture with what the settings change.

    Raises:
        ValueError: an unknown architecture, or a number that nothing can be trained with.
    """
    if settings.arch not in RECIPES:
        raise ValueError(f"unknown architecture {settings.arch!r}: choose one of {', '.join(RECIPES)}")
    named = ("size_px", "margin", "weights", "epochs", "batch", "learning_rate")
    changes = {name: value for name in named if (value := getattr(settings, name)) is not None}
    recipe = msgspec.structs.replace(RECIPES[settings.arch], **changes)
    _check_numbers(settings, recipe)
    check_start(settings.arch, recipe.weights)
    if recipe.weights not in (RANDOM, IMAGENET):
        _check_weights(Path(recipe.weights))
    return recipe


def check_start(arch: str, weights: str) -> None:
    """Raise ValueError when an architecture cannot start from such weights."""
    if weights == RANDOM or arch == "resnet50":
        return
    if RECIPES[arch].weights == RANDOM:
        raise ValueError(f"{arch} starts from random weights only: --weights is for lite and resnet50")
    if weights != IMAGENET:
        raise ValueError(f"--weights {weights}: {arch} starts from {IMAGENET} or {RANDOM}; files are for resnet50")


def _check_weights(path: Path) -> None:
    """Look at how a file begins; whether its weights fit, Keras says when it loads them."""
    if not path.is_file():
        raise ValueError(f"--weights {path}: there is no such file; give one, or imagenet, or none")
    try:
        with path.open("rb") as file:
            start = file.read(max(map(len, WEIGHTS_START)))
    except OSError as error:
        raise ValueError(f"--weights {path} cannot be read ({error.strerror}): give another file") from error
    if not start.startswith(WEIGHTS_START):
        raise ValueError(f"--weights {path} holds no weights: give a .h5 file of ResNet50 without its top")


def _check_numbers(settings: TrainSettings, recipe: Recipe) -> None:
    for wrong, what in (
        (not settings.datasets, "a data set to train on"),
        (recipe.epochs < 1, "at least 1 epoch"),
        (recipe.batch < 2, "at least 2 crops a batch"),
        (not SMALLEST_PX <= recipe.size_px <= LARGEST_PX, f"crops of {SMALLEST_PX} to {LARGEST_PX} px"),
        (not 0 <= recipe.margin <= 1, "a margin of 0 to 1"),
        (not 0 < recipe.learning_rate < 1, "a learning rate above 0 and below 1"),
        (not 0 <= settings.seed <= LARGEST_SEED, f"a seed of 0 to {LARGEST_SEED}"),
        (settings.threads is not None and settings.threads < 1, "at least 1 thread"),
    ):
        if wrong:
            raise ValueError(f"training needs {what}")
