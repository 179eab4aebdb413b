"""Save and restore a training run: its variables and record in, one file in the run folder out, and back.

The file is written under another name and then renamed, so that there is a complete one at any moment. A checkpoint
that cannot be read, or belongs to other settings, raises ValueError with a remedy.
"""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from trainer.fitting.run_folder import CHECKPOINT_NAME, PART_NAME
from trainer.settings import Recipe

_RECORD = "record"
EpochT = TypeVar("EpochT")  # the figures of one epoch, a record


class RunOrigin(Struct, frozen=True, kw_only=True):
    """What must be equal for a run to continue. data: digest of the manifest of faces."""

    arch: str
    recipe: Recipe
    seed: int
    data: str


class CheckpointRecord(Struct, frozen=True, kw_only=True):
    """A run and its finished epochs, whose figures depend on what is trained."""

    origin: RunOrigin
    epochs: tuple[dict[str, Any], ...]


class Checkpoint(Generic[EpochT]):
    """The checkpoint of a run folder."""

    def __init__(self, folder: Path, epoch_type: type[EpochT]) -> None:
        """Read the record of a folder's checkpoint; `record` is None when there is none."""
        self._epoch_type = epoch_type
        self._path = folder / CHECKPOINT_NAME
        self._part = folder / PART_NAME
        self.record = self._read_record() if self._path.exists() else None

    def epochs_of(self, origin: RunOrigin) -> tuple[EpochT, ...]:
        """Return a run's finished epochs, none without a checkpoint; raise ValueError if it is another run's."""
        if self.record is None:
            return ()
        if differences := _differences(self.record.origin, origin):
            raise ValueError(
                f"{self._path.parent} holds an unfinished run that was begun differently ({'; '.join(differences)}): "
                "give the same settings and data to continue it, or choose another folder with --out"
            )
        try:
            return msgspec.convert(self.record.epochs, tuple[self._epoch_type, ...])  # type: ignore[name-defined]
        except msgspec.ValidationError as error:
            raise self._damaged(error) from error

    def save(self, variables: Sequence[Any], origin: RunOrigin, epochs: tuple[EpochT, ...]) -> None:
        """Write a run's state, which replaces the older one once it is completely on disk; OSError keeps that one."""
        record = CheckpointRecord(origin=origin, epochs=msgspec.to_builtins(epochs))
        arrays = {str(index): np.asarray(variable.value) for index, variable in enumerate(variables)}
        arrays[_RECORD] = np.frombuffer(msgspec.json.encode(record), np.uint8)
        try:
            with self._part.open("wb") as file:
                np.savez(file, allow_pickle=False, **arrays)
                file.flush()
                os.fsync(file.fileno())
            self._part.replace(self._path)
        except OSError as error:
            raise OSError(
                f"{self._path} cannot be written ({error.strerror}): once it can, the same training continues after "
                f"epoch {len(self.record.epochs) if self.record else 0}"
            ) from error
        finally:
            with suppress(OSError):  # it exists only after a failure
                self._part.unlink()
        self.record = record

    def restore(self, variables: Sequence[Any]) -> None:
        """Assign the saved values to Keras variables in the order in which they were saved."""
        arrays = self._read([str(index) for index in range(len(variables))])
        shapes = [tuple(variable.shape) for variable in variables]
        if [array.shape for array in arrays] != shapes:
            raise self._damaged("its variables are not those of the network")
        for variable, array in zip(variables, arrays, strict=True):
            variable.assign(array)

    def remove(self) -> None:
        """Remove it, after the run is finished."""
        self._path.unlink(missing_ok=True)
        self._part.unlink(missing_ok=True)

    def _read_record(self) -> CheckpointRecord:
        (content,) = self._read([_RECORD])
        try:
            return msgspec.json.decode(content.tobytes(), type=CheckpointRecord)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise self._damaged(error) from error

    def _read(self, names: Sequence[str]) -> list[NDArray[Any]]:
        try:
            # From memory, because np.load does not close a file that it cannot read.
            with np.load(io.BytesIO(self._path.read_bytes()), allow_pickle=False) as arrays:
                return [arrays[name] for name in names]
        except (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile) as error:
            raise self._damaged(error) from error

    def _damaged(self, why: object) -> ValueError:
        return ValueError(f"{self._path} is damaged ({why}): remove it to begin the run again")


def _differences(before: RunOrigin, now: RunOrigin) -> list[str]:
    """Return the differences, as text."""
    old, new = (msgspec.to_builtins(origin) for origin in (before, now))
    old_recipe, new_recipe = old.pop("recipe"), new.pop("recipe")
    differences = [f"{name} {old[name]}, now {new[name]}" for name in ("arch", "seed") if old[name] != new[name]]
    differences += [
        f"{name} {old_recipe[name]}, now {new_recipe[name]}"
        for name in new_recipe  # including `about`: it changes when a version changes the network
        if old_recipe[name] != new_recipe[name]
    ]
    return differences + (["other pictures"] if old["data"] != new["data"] else [])
