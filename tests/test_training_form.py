"""Tests of the form in which networks are trained: the same network, faster."""

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from bench.train_step import main
from trainer.fitting.repeatable import make_repeatable
from trainer.fitting.training_form import FusedBatchNormalization, training_form
from trainer.networks.architectures import HEAD, build_network
from trainer.settings import RECIPES

SIDE = 32


def crops(number: int) -> NDArray[np.uint8]:
    return np.random.default_rng(number).integers(0, 256, (number, SIDE, SIDE, 3), np.uint8)


def small_network() -> keras.Model:
    """Return a network with two batch normalizations, whose gradients do not vanish."""
    pictures = keras.Input((SIDE, SIDE, 3), dtype="uint8")
    x = keras.layers.Rescaling(1 / 255)(pictures)
    for channels in (8, 16):
        x = keras.layers.Conv2D(channels, 5, strides=4, padding="same", use_bias=False)(x)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.8)(x))
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(pictures, keras.layers.Dense(1, activation="sigmoid", name=HEAD)(x))


def every_layer(network: keras.Model) -> list[keras.layers.Layer]:
    return [
        layer
        for outer in network.layers
        for layer in (every_layer(outer) if isinstance(outer, keras.Model) else [outer])
    ]


@pytest.mark.parametrize("arch", RECIPES)
def test_the_form_of_each_architecture_answers_as_the_network(arch: str) -> None:
    make_repeatable(0, None)
    network = build_network(arch, SIDE, weights="none")

    form = training_form(network, mixed_precision=False)

    norms = [layer for layer in every_layer(form) if isinstance(layer, keras.layers.BatchNormalization)]
    assert norms
    assert all(isinstance(norm, FusedBatchNormalization) for norm in norms)
    assert [weight.path for weight in form.weights] == [weight.path for weight in network.weights]
    np.testing.assert_allclose(form.predict(crops(3), verbose=0), network.predict(crops(3), verbose=0), atol=1e-6)


@pytest.mark.parametrize("arch", RECIPES)
def test_each_architecture_can_be_trained_in_mixed_precision(arch: str) -> None:
    make_repeatable(0, None)
    network = build_network(arch, SIDE, weights="none")
    form = training_form(network, mixed_precision=True)
    form.compile(optimizer=keras.optimizers.SGD(0.01), loss="binary_crossentropy", jit_compile=False)

    np.testing.assert_allclose(form.predict(crops(3), verbose=0), network.predict(crops(3), verbose=0), atol=0.05)
    loss = form.train_on_batch(crops(4), np.array([[0], [1], [0], [1]]))

    assert np.isfinite(loss)
    assert {weight.dtype for weight in form.weights} == {"float32"}
    network.set_weights(form.get_weights())


def test_a_step_changes_the_form_as_it_changes_the_network() -> None:
    make_repeatable(0, None)
    network = small_network()
    form = training_form(network, mixed_precision=False)
    labels = np.arange(16)[:, None] % 2
    for each in (network, form):
        each.compile(optimizer=keras.optimizers.SGD(0.5), loss="binary_crossentropy", jit_compile=False)
        for _ in range(3):
            each.train_on_batch(crops(16), labels)

    for mine, its in zip(form.get_weights(), network.get_weights(), strict=True):
        # A batch has at least 16 x 2 x 2 values of each channel: their variance, without bias, is 1/63 larger.
        np.testing.assert_allclose(mine, its, rtol=0.02, atol=1e-3)


def test_mixed_precision_keeps_weights_and_the_head_in_float32() -> None:
    make_repeatable(0, None)
    network = small_network()

    form = training_form(network, mixed_precision=True)

    assert {weight.dtype for weight in form.weights} == {"float32"}
    assert form.get_layer(HEAD).compute_dtype == "float32"
    computing = {layer.compute_dtype for layer in form.layers if layer.weights and layer.name != HEAD}
    assert computing == {"bfloat16"}
    answers = form.predict(crops(8), verbose=0), network.predict(crops(8), verbose=0)
    assert answers[0].dtype == np.float32
    np.testing.assert_allclose(*answers, atol=0.02)


def test_mixed_precision_learns_and_repeats() -> None:
    pictures = crops(16)
    labels = np.arange(16)[:, None] % 2
    pictures[1::2, SIDE // 2 :] //= 3
    ends = []
    for _ in range(2):
        make_repeatable(0, None)
        form = training_form(small_network(), mixed_precision=True)
        form.compile(optimizer=keras.optimizers.Adam(0.01), loss="binary_crossentropy", jit_compile=False)
        losses = [float(form.train_on_batch(pictures, labels)) for _ in range(30)]
        ends.append(form.get_weights())

    assert losses[-1] < losses[0] / 2
    assert all(np.array_equal(first, second) for first, second in zip(*ends, strict=True))


def test_the_cost_of_a_step_is_printed_for_each_form() -> None:
    result = CliRunner().invoke(main, ["--arch", "resnet18-half", "--size-px", "32", "--batch", "4"])

    arch, plain, *forms = result.stdout.splitlines()[1].replace("(x", "").replace(")", "").split()
    assert (result.exit_code, arch, len(forms)) == (0, "resnet18-half", 4)
    for ms, times in (forms[:2], forms[2:]):
        assert float(ms) > 0
        assert float(plain) / float(ms) == pytest.approx(float(times), rel=0.1, abs=0.05)
