"""Build the body of EfficientNet-Lite0: pictures in, 1280 features per picture out.

Tan & Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", table 1, without squeeze and
excitation and with ReLU6, as its authors published it for 8-bit integer arithmetic. A file of ImageNet weights that is
missing or damaged raises ModelUnusable.
"""

from __future__ import annotations

from dataclasses import dataclass

import keras
import numpy as np
from keras import layers

from trainer.networks.imagenet_weights import read_imagenet_weights

# The scaling of pictures (0..255) with which the published weights were trained.
SCALE, OFFSET = 1 / 128, -127 / 128
FEATURES = 1280
STEM_CHANNELS = 32
NORM_EPSILON = 1e-3  # of the published weights
NORM_MOMENTUM = 0.9


@dataclass(frozen=True, slots=True)
class Stage:
    """Blocks with the same number of channels; the first one has the stride."""

    expand: int
    kernel: int
    stride: int
    channels: int
    blocks: int


STAGES = (
    Stage(expand=1, kernel=3, stride=1, channels=16, blocks=1),
    Stage(expand=6, kernel=3, stride=2, channels=24, blocks=2),
    Stage(expand=6, kernel=5, stride=2, channels=40, blocks=2),
    Stage(expand=6, kernel=3, stride=2, channels=80, blocks=3),
    Stage(expand=6, kernel=5, stride=1, channels=112, blocks=3),
    Stage(expand=6, kernel=5, stride=2, channels=192, blocks=4),
    Stage(expand=6, kernel=3, stride=1, channels=320, blocks=1),
)


def efficientnet_lite0(pictures: keras.KerasTensor) -> keras.KerasTensor:
    """Return the features (n x 1280) of pictures (n x S x S x 3 RGB, 0..255)."""
    x = layers.Rescaling(SCALE, offset=OFFSET)(pictures)
    x = _normed(layers.Conv2D(STEM_CHANNELS, 3, strides=2, padding="same", use_bias=False)(x))
    for stage in STAGES:
        for block in range(stage.blocks):
            x = _inverted_residual(x, stage, stride=stage.stride if block == 0 else 1, is_first=block == 0)
    x = _normed(layers.Conv2D(FEATURES, 1, use_bias=False)(x))
    return layers.GlobalAveragePooling2D()(x)


def load_imagenet_weights(network: keras.Model) -> None:
    """Load the weights trained on ImageNet into a network that starts with this body."""
    values = read_imagenet_weights()
    for layer in network.layers:
        if isinstance(layer, layers.Conv2D | layers.DepthwiseConv2D | layers.BatchNormalization):
            shapes = [weight.shape for weight in layer.weights]
            parts = np.split(values, np.cumsum([int(np.prod(shape)) for shape in shapes]))
            layer.set_weights([part.reshape(shape) for part, shape in zip(parts[:-1], shapes, strict=True)])
            values = parts[-1]


def _inverted_residual(x: keras.KerasTensor, stage: Stage, *, stride: int, is_first: bool) -> keras.KerasTensor:
    """Expand, convolve depthwise, project; from the second block of a stage on with a shortcut."""
    shortcut = x
    if stage.expand != 1:
        x = _normed(layers.Conv2D(stage.expand * x.shape[-1], 1, use_bias=False)(x))
    x = _normed(layers.DepthwiseConv2D(stage.kernel, strides=stride, padding="same", use_bias=False)(x))
    x = _norm(layers.Conv2D(stage.channels, 1, use_bias=False)(x))
    return x if is_first else layers.Add()([shortcut, x])


def _normed(x: keras.KerasTensor) -> keras.KerasTensor:
    return layers.ReLU(6.0)(_norm(x))


def _norm(x: keras.KerasTensor) -> keras.KerasTensor:
    return layers.BatchNormalization(momentum=NORM_MOMENTUM, epsilon=NORM_EPSILON)(x)
