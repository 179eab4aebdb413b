"""Networks take pictures as they are and answer with a probability."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from trainer.networks import ARCHITECTURES, build

# Saving asks NumPy 2 for a copy in a way that TensorFlow's arrays do not know yet.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_network_turns_uint8_pictures_into_probabilities(arch: str) -> None:
    model = build(arch, 32)
    pictures = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)

    probability = np.asarray(model(pictures, training=False))

    assert model.input.dtype == "uint8"
    assert probability.shape == (3, 1)
    assert probability.dtype == np.float32
    assert ((probability >= 0) & (probability <= 1)).all()


def test_the_lite_network_is_a_resnet18_at_half_width() -> None:
    lite, full = build("lite"), build("resnet18")

    sizes = [sum(int(np.prod(weight.shape)) for weight in model.trainable_weights) for model in (lite, full)]

    assert lite.input_shape == (None, 112, 112, 3)
    assert sizes[0] == pytest.approx(2.8e6, rel=0.02)
    assert sizes[1] == pytest.approx(
        11.2e6, rel=0.02
    )  # He et al.: 11.7 million, of which 0.5 in ImageNet's 1000 classes


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


def test_weights_that_cannot_be_loaded_say_what_to_give(tmp_path: Path) -> None:
    damaged = tmp_path / "resnet50.h5"
    damaged.write_bytes(b"nothing")

    with pytest.raises(ValueError, match=r"cannot be loaded .* --weights FILE"):
        build("resnet50", 32, weights=damaged)
