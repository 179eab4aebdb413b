"""Networks take pictures as they are and answer with a probability."""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
from pathlib import Path

import keras
import msgspec
import numpy as np
import pytest

from models.files import ModelUnusable
from scripts.efficientnet_weights import body_weights
from trainer.networks import imagenet_weights
from trainer.networks.architectures import build_network
from trainer.networks.efficientnet import efficientnet_lite0, load_imagenet_weights
from trainer.settings import RECIPES, TrainSettings, recipe_of

# Saving asks NumPy 2 for a copy in a way that TensorFlow's arrays do not know yet.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

# The first features and the mean of all that the package efficientnet-lite-pytorch 0.1.0 computes with the published
# file in PyTorch 1.13, for the pattern of a test below.
PYTORCH_FEATURES = (0.1320, 0.0, 0.0, 0.0, 0.0, 0.0, 0.4301, 1.9736)
PYTORCH_MEAN = 0.31016


@pytest.mark.parametrize("arch", RECIPES)
def test_every_network_turns_uint8_pictures_into_probabilities(arch: str) -> None:
    model = build_network(arch, 32)
    pictures = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)

    probability = np.asarray(model(pictures, training=False))

    assert model.input.dtype == "uint8"
    assert probability.shape == (3, 1)
    assert probability.dtype == np.float32
    assert ((probability >= 0) & (probability <= 1)).all()


def test_the_small_networks_have_the_sizes_of_their_papers() -> None:
    lite, resnet18, half = build_network("lite"), build_network("resnet18"), build_network("resnet18-half")

    sizes = [sum(int(np.prod(weight.shape)) for weight in model.trainable_weights) for model in (lite, resnet18, half)]

    assert lite.input_shape == resnet18.input_shape == (None, 112, 112, 3)
    # Tan & Le's authors: 4.7 million, He et al.: 11.7, of which 1.3 and 0.5 tell ImageNet's 1000 classes apart.
    assert sizes == pytest.approx([3.4e6, 11.2e6, 2.8e6], rel=0.02)


def test_lite_computes_what_its_published_weights_compute_in_pytorch() -> None:
    pictures = keras.Input((112, 112, 3), dtype="uint8")
    body = keras.Model(pictures, efficientnet_lite0(pictures))
    load_imagenet_weights(body)
    y, x = np.mgrid[:112, :112]
    pattern = np.stack([(3 * x + y) % 256, (x * y // 7) % 256, (5 * y + 2 * x) % 256], axis=-1).astype(np.uint8)

    features = np.asarray(body(pattern[None], training=False))[0]

    np.testing.assert_allclose(features[:8], PYTORCH_FEATURES, atol=1e-3)
    assert features.mean() == pytest.approx(PYTORCH_MEAN, abs=1e-4)


def test_weights_that_set_up_has_not_put_there_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imagenet_weights, "WEIGHTS", tmp_path / "weights.f32")

    with pytest.raises(ModelUnusable, match=r"weights\.f32 is missing: run `make setup`, or train with --weights none"):
        build_network("lite", 32, weights="imagenet")


def test_resnet50_sees_what_its_imagenet_weights_were_trained_with() -> None:
    model = build_network("resnet50", 32)
    red = np.zeros((1, 32, 32, 3), np.uint8)
    red[..., 0] = 255

    body = next(place for place, layer in enumerate(model.layers) if isinstance(layer, keras.Model))
    prepared = keras.Model(model.input, model.layers[body - 1].output)
    seen = np.asarray(prepared(red))[0, 0, 0]

    np.testing.assert_allclose(seen, [-103.939, -116.779, 255 - 123.68], atol=1e-3)


@pytest.mark.parametrize("arch", ["lite", "resnet50"])
def test_a_saved_network_loads_in_safe_mode_and_answers_the_same(arch: str, tmp_path: Path) -> None:
    model = build_network(arch, 32)
    pictures = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    model.save(tmp_path / "network.keras")

    loaded = keras.saving.load_model(tmp_path / "network.keras", compile=False, safe_mode=True)

    np.testing.assert_allclose(loaded(pictures, training=False), model(pictures, training=False), atol=1e-6)


def test_an_unknown_architecture_is_rejected() -> None:
    with pytest.raises(
        ValueError, match="unknown architecture 'vgg': choose one of lite, resnet18, resnet18-half, resnet50"
    ):
        build_network("vgg")


def test_a_file_of_weights_cannot_run_anything() -> None:
    content = pickle.dumps(0) * 3 + pickle.dumps(Path, protocol=2)

    with pytest.raises(pickle.UnpicklingError, match=r"pathlib\.Path is not for files of weights"):
        body_weights(content)


@pytest.mark.parametrize(
    ("arch", "weights", "why"),
    [
        ("resnet18", "imagenet", "--weights imagenet: resnet18 starts from none, or the .keras file of another run"),
        ("lite", "my.h5", "--weights my.h5: lite starts from imagenet, none, or the .keras file of another run"),
    ],
)
def test_weights_that_a_network_cannot_start_from_are_rejected(arch: str, weights: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        build_network(arch, weights=weights)


def test_weights_of_a_body_without_its_top_are_taken_from_a_file(tmp_path: Path) -> None:
    body = keras.applications.ResNet50(include_top=False, input_shape=(32, 32, 3), pooling="avg", weights=None)
    path = tmp_path / "resnet50.weights.h5"
    body.save_weights(path)

    model = build_network("resnet50", 32, weights=str(path))

    loaded = next(layer for layer in model.layers if isinstance(layer, keras.Model))
    for ours, theirs in zip(loaded.get_weights(), body.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("arch", ["lite", "resnet50"])
def test_a_network_goes_on_from_one_of_ours_for_pictures_of_another_size(arch: str, tmp_path: Path) -> None:
    small = build_network(arch, 32)
    path = tmp_path / "classifier.keras"
    small.save(path)

    large = build_network(arch, 64, weights=str(path))

    assert large.input_shape == (None, 64, 64, 3)
    for ours, theirs in zip(large.get_weights(), small.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_network_of_another_architecture_is_rejected_as_a_start(tmp_path: Path) -> None:
    path = tmp_path / "classifier.keras"
    build_network("resnet18-half", 32).save(path)

    with pytest.raises(ValueError, match=r"classifier\.keras cannot be loaded .* give the \.keras file of a lite"):
        build_network("lite", 32, weights=str(path))


@pytest.mark.parametrize("harm", ["cut", "hole"])
def test_a_damaged_network_as_a_start_is_one_line(harm: str, tmp_path: Path) -> None:
    path = tmp_path / "classifier.keras"
    build_network("lite", 32, weights="none").save(path)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 1000] = bytes(1000)
    path.write_bytes(content[:middle] if harm == "cut" else content)

    with pytest.raises(ValueError, match=r"classifier\.keras cannot be loaded .* give the \.keras file of a lite"):
        build_network("lite", 32, weights=str(path))


def test_weights_that_cannot_be_loaded_say_what_to_give(tmp_path: Path) -> None:
    damaged = tmp_path / "resnet50.h5"
    damaged.write_bytes(b"nothing")

    with pytest.raises(ValueError, match=r"resnet50\.h5 cannot be loaded .* --weights FILE"):
        build_network("resnet50", 32, weights=str(damaged))


def test_a_download_of_weights_behind_a_silent_firewall_ends_with_one_line(tmp_path: Path) -> None:
    script = (
        "from trainer.networks import architectures; architectures.DOWNLOAD_TIMEOUT_S = 0.2\n"
        "try: architectures.build_network('resnet50', 32, weights='imagenet')\n"
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
        ("weights", "my.h5", "lite starts from imagenet, none, or the .keras file"),
    ],
)
def test_settings_that_nothing_can_be_trained_with_are_rejected(name: str, value: object, why: str) -> None:
    settings = msgspec.structs.replace(TrainSettings(datasets=("a",), out="run"), **{name: value})

    with pytest.raises(ValueError, match=why):
        recipe_of(settings)


def test_a_weights_file_that_is_missing_is_named() -> None:
    settings = TrainSettings(datasets=("a",), out="run", arch="resnet50", weights="nowhere.h5")

    with pytest.raises(ValueError, match=r"--weights nowhere\.h5: there is no such file"):
        recipe_of(settings)
