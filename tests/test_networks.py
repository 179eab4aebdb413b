"""Networks take pictures as they are and answer with a probability."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import keras
import msgspec
import numpy as np
import pytest

from trainer.networks import build, of_any_size
from trainer.settings import RECIPES, TrainSettings, recipe_of

# Saving asks NumPy 2 for a copy in a way that TensorFlow's arrays do not know yet.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.mark.parametrize("arch", RECIPES)
def test_every_network_turns_uint8_pictures_into_probabilities(arch: str) -> None:
    model = build(arch, 32)
    pictures = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)

    probability = np.asarray(model(pictures, training=False))

    assert model.input.dtype == "uint8"
    assert probability.shape == (3, 1)
    assert probability.dtype == np.float32
    assert ((probability >= 0) & (probability <= 1)).all()


def test_the_lite_network_is_a_resnet18_at_five_eighths_of_its_width() -> None:
    lite, full = build("lite"), build("resnet18")

    sizes = [sum(int(np.prod(weight.shape)) for weight in model.trainable_weights) for model in (lite, full)]

    assert lite.input_shape == (None, 112, 112, 3)
    assert sizes[0] == pytest.approx(4.4e6, rel=0.02)
    assert sizes[1] == pytest.approx(
        11.2e6, rel=0.02
    )  # He et al.: 11.7 million, of which 0.5 in ImageNet's 1000 classes


def test_a_network_of_any_size_answers_as_the_one_it_is_made_from() -> None:
    fixed = build("lite", 32)
    pictures = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)

    free = of_any_size(fixed)

    np.testing.assert_allclose(free(pictures, training=False), fixed(pictures, training=False), atol=1e-6)
    assert free(pictures[:, :23, :23], training=False).shape == (2, 1)


def test_resnet50_sees_what_its_imagenet_weights_were_trained_with() -> None:
    model = build("resnet50", 32)
    red = np.zeros((1, 32, 32, 3), np.uint8)
    red[..., 0] = 255

    body = next(place for place, layer in enumerate(model.layers) if isinstance(layer, keras.Model))
    prepared = keras.Model(model.input, model.layers[body - 1].output)
    seen = np.asarray(prepared(red))[0, 0, 0]

    np.testing.assert_allclose(seen, [-103.939, -116.779, 255 - 123.68], atol=1e-3)


@pytest.mark.parametrize("arch", ["lite", "resnet50"])
def test_a_saved_network_loads_in_safe_mode_and_answers_the_same(arch: str, tmp_path: Path) -> None:
    model = build(arch, 32)
    pictures = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    model.save(tmp_path / "network.keras")

    loaded = keras.saving.load_model(tmp_path / "network.keras", compile=False, safe_mode=True)

    np.testing.assert_allclose(loaded(pictures, training=False), model(pictures, training=False), atol=1e-6)


def test_an_unknown_architecture_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown architecture 'vgg': choose one of lite, resnet18, resnet50"):
        build("vgg")


def test_weights_are_for_resnet50_only() -> None:
    with pytest.raises(ValueError, match="lite starts from random weights"):
        build("lite", weights="imagenet")


def test_weights_of_a_body_without_its_top_are_taken_from_a_file(tmp_path: Path) -> None:
    body = keras.applications.ResNet50(include_top=False, input_shape=(32, 32, 3), pooling="avg", weights=None)
    path = tmp_path / "resnet50.weights.h5"
    body.save_weights(path)

    model = build("resnet50", 32, weights=str(path))

    loaded = next(layer for layer in model.layers if isinstance(layer, keras.Model))
    for ours, theirs in zip(loaded.get_weights(), body.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_weights_that_cannot_be_loaded_say_what_to_give(tmp_path: Path) -> None:
    damaged = tmp_path / "resnet50.h5"
    damaged.write_bytes(b"nothing")

    with pytest.raises(ValueError, match=r"resnet50\.h5 cannot be loaded .* --weights FILE"):
        build("resnet50", 32, weights=str(damaged))


def test_a_download_of_weights_behind_a_silent_firewall_ends_with_one_line(tmp_path: Path) -> None:
    script = (
        "from trainer import networks; networks.SILENCE_S = 0.2\n"
        "try: networks.build('resnet50', 32, weights='imagenet')\n"
        "except ValueError as error: print(repr(str(error)))"
    )
    with socket.create_server(("127.0.0.1", 0)) as firewall:  # takes connections and never answers
        proxy = f"http://127.0.0.1:{firewall.getsockname()[1]}"
        environment = {**os.environ, "KERAS_HOME": str(tmp_path), "https_proxy": proxy, "HTTPS_PROXY": proxy}
        run = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, env=environment, text=True, check=True
        )

    said = run.stdout.splitlines()[-1]
    assert "the ImageNet weights of ResNet50 cannot be loaded" in said
    assert "give --weights FILE, a .h5 file of ResNet50 without its top" in said


def test_resnet50_starts_from_imagenet_and_trains_with_adam_for_ten_epochs() -> None:
    recipe = recipe_of(TrainSettings(datasets=("faces",), out="run", arch="resnet50"))

    assert (recipe.weights, recipe.size_px, recipe.epochs) == ("imagenet", 224, 10)
    assert (recipe.optimizer, recipe.learning_rate, recipe.warmup_share) == ("adam", 1e-4, None)
    assert (recipe.label_smoothing, recipe.ema_decay) == (0.0, None)


def test_settings_travel_as_json_and_change_the_recipe() -> None:
    settings = TrainSettings(datasets=("a", "no_mask=b"), out="run", tests=("c",), epochs=3, margin=0.2)

    arrived = msgspec.json.decode(msgspec.json.encode(settings), type=TrainSettings)
    recipe = recipe_of(arrived)

    assert arrived == settings
    assert recipe == msgspec.structs.replace(RECIPES["lite"], epochs=3, margin=0.2)
    with pytest.raises(msgspec.ValidationError, match="unknown field `epoch`"):
        msgspec.convert({"datasets": ["a"], "out": "run", "epoch": 3}, TrainSettings)


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("datasets", (), "needs a data set to train on"),
        ("epochs", 0, "needs at least 1 epoch"),
        ("batch", 1, "needs at least 2 crops a batch"),
        ("size_px", 31, "needs crops of 32 to 512 px"),
        ("margin", -0.1, "needs a margin of 0 to 1"),
        ("learning_rate", float("nan"), "needs a learning rate above 0 and below 1"),
        ("seed", -1, "needs a seed of 0 to 4294967295"),
        ("threads", 0, "needs at least 1 thread"),
        ("arch", "vgg", "unknown architecture 'vgg'"),
        ("weights", "imagenet", "lite starts from random weights"),
    ],
)
def test_settings_that_nothing_can_be_trained_with_are_refused(name: str, value: object, why: str) -> None:
    settings = msgspec.structs.replace(TrainSettings(datasets=("a",), out="run"), **{name: value})

    with pytest.raises(ValueError, match=why):
        recipe_of(settings)


def test_a_weights_file_that_is_missing_is_named() -> None:
    settings = TrainSettings(datasets=("a",), out="run", arch="resnet50", weights="nowhere.h5")

    with pytest.raises(ValueError, match=r"--weights nowhere\.h5: there is no such file"):
        recipe_of(settings)
