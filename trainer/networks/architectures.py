"""Build the classifier networks: uint8 pictures in, the probability of a mask out.

In: a name from RECIPES (settings.py). Out: an uncompiled Keras model whose input is uint8 n x S x S x 3 RGB 0..255 (the
scaling is part of the model, so training and serving cannot differ) and whose output is float32 n x 1, 0..1. Everything
is Keras 3, for any backend.
An unknown name, or pretrained weights that cannot be loaded, raise ValueError (for lite ModelUnusable) with a remedy.
"""

from __future__ import annotations

import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from zipfile import BadZipFile

import keras
from keras import layers, ops

from trainer.networks.efficientnet import efficientnet_lite0, load_imagenet_weights
from trainer.settings import IMAGENET, OWN_NETWORK, RANDOM, RECIPES, check_arch, check_start

# He et al., "Deep Residual Learning for Image Recognition", table 1: two blocks in each of four stages.
BLOCKS_PER_STAGE = 2
STAGE_WIDTHS = {"resnet18": (64, 128, 256, 512), "resnet18-half": (32, 64, 128, 256)}

# The channel means (B, G, R) with which the ImageNet weights of ResNet50 were trained.
IMAGENET_MEAN_BGR = (103.939, 116.779, 123.68)
BODY_DROPOUT = 0.2
HEAD_UNITS = 128
HEAD_DROPOUT = 0.5

# The last layer; export.py folds the temperature into its kernel and bias.
HEAD = "mask_probability"
DOWNLOAD_TIMEOUT_S = 10.0  # without any data


def build_network(arch: str, size_px: int | None = None, *, weights: str = RANDOM) -> keras.Model:
    """Build a network by name.

    Args:
        arch: a key of RECIPES.
        size_px: side of the square input; None means the architecture's own.
        weights: of the body to start from: "none" means random, the only choice of the ResNet18s; "imagenet" is
            installed by set-up for lite, and downloaded once by Keras for resnet50, which also accepts a .weights.h5 or
            .h5 file without the top. A .keras file has a whole network of the same arch, for pictures of any size.

    Raises:
        ValueError: an unknown arch, or weights that do not fit or cannot be loaded.
        ModelUnusable: the weights of lite are missing or damaged.
    """
    check_arch(arch)
    check_start(arch, weights)
    side = size_px or RECIPES[arch].size_px
    if weights.endswith(OWN_NETWORK):
        return _continued(build_network(arch, side), weights)
    if arch == "resnet50":
        return _resnet50(side, weights)
    return _lite(side, weights) if arch == "lite" else _resnet18(side, arch)


def _continued(network: keras.Model, weights: str) -> keras.Model:
    """Give a network the weights of a .keras file; nothing else is read from it, so that it cannot run anything."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # Keras warns of a layer that it finds no weights for
            network.load_weights(weights)
    except (UserWarning, ValueError, KeyError, OSError, BadZipFile) as error:
        raise ValueError(
            f"the weights {weights} cannot be loaded ({error}): give the {OWN_NETWORK} file of a {network.name}"
        ) from error
    return network


def _lite(size_px: int, weights: str) -> keras.Model:
    picture = keras.Input((size_px, size_px, 3), dtype="uint8", name="crops")
    x = layers.Dropout(BODY_DROPOUT)(efficientnet_lite0(picture))
    network = keras.Model(picture, _mask_probability(x), name="lite")
    if weights == IMAGENET:
        load_imagenet_weights(network)
    return network


def _resnet18(size_px: int, arch: str) -> keras.Model:
    widths = STAGE_WIDTHS[arch]
    picture = keras.Input((size_px, size_px, 3), dtype="uint8", name="crops")
    x = layers.Rescaling(1 / 127.5, offset=-1.0)(picture)
    x = _conv_norm(x, widths[0], kernel=7, stride=2)
    x = layers.ReLU()(x)
    x = layers.MaxPooling2D(3, strides=2, padding="same")(x)
    for stage, channels in enumerate(widths):
        for block in range(BLOCKS_PER_STAGE):
            x = _residual(x, channels, stride=2 if stage > 0 and block == 0 else 1)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dropout(BODY_DROPOUT)(x)
    return keras.Model(picture, _mask_probability(x), name=arch)


def _residual(x: keras.KerasTensor, channels: int, stride: int) -> keras.KerasTensor:
    shortcut = x
    if stride > 1 or x.shape[-1] != channels:
        shortcut = _conv_norm(x, channels, kernel=1, stride=stride)
    x = layers.ReLU()(_conv_norm(x, channels, kernel=3, stride=stride))
    x = _conv_norm(x, channels, kernel=3, stride=1)
    return layers.ReLU()(layers.Add()([x, shortcut]))


def _conv_norm(x: keras.KerasTensor, channels: int, kernel: int, stride: int) -> keras.KerasTensor:
    options = {"padding": "same", "use_bias": False, "kernel_initializer": "he_normal"}
    x = layers.Conv2D(channels, kernel, strides=stride, **options)(x)
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)


def _resnet50(size_px: int, weights: str) -> keras.Model:
    picture = keras.Input((size_px, size_px, 3), dtype="uint8", name="crops")
    x = ops.flip(ops.cast(picture, "float32"), axis=-1)
    x = layers.Rescaling(1.0, offset=[-mean for mean in IMAGENET_MEAN_BGR])(x)
    try:
        with _download_timeout():
            body = keras.applications.ResNet50(
                include_top=False,
                input_shape=(size_px, size_px, 3),
                pooling="avg",
                weights=None if weights == RANDOM else weights,
            )
    except Exception as error:  # Keras raises a bare Exception when its download fails
        what = "the ImageNet weights of ResNet50" if weights == IMAGENET else f"the weights {weights}"
        raise ValueError(
            f"{what} cannot be loaded ({error}): give --weights FILE, a .h5 file of ResNet50 without its top, "
            "or --weights none to start at random"
        ) from error
    x = layers.Dense(HEAD_UNITS, activation="relu")(body(x))
    x = layers.Dropout(HEAD_DROPOUT)(x)
    return keras.Model(picture, _mask_probability(x), name="resnet50")


def _mask_probability(x: keras.KerasTensor) -> keras.KerasTensor:
    return layers.Dense(1, activation="sigmoid", dtype="float32", name=HEAD)(x)


@contextmanager
def _download_timeout() -> Iterator[None]:
    """Set a timeout for sockets: Keras sets none, so its download would hang for minutes behind a firewall."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
