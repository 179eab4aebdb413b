"""Draw training batches: patches in; shuffled, varied batches (uint8 n x S x S x 3 RGB, float32 n x 1) out.

What is learned of a crop is its label, 0 or 1, or mostly what teachers say of the same crop in colour (teachers.py): of
a grey one they know less themselves.

Each data set and label gets a share of the draws that grows with the cube root of its number of faces, so that the few
bare faces of street photographs count beside thousands of portraits. All randomness comes from (seed, epoch, index of
the batch): a run that continues after an interruption gets the same batches.
"""

from __future__ import annotations

from collections import Counter

import keras
import numpy as np
from numpy.typing import NDArray

from trainer.data.augment import augmented_crops
from trainer.data.faces import FacePatches
from trainer.data.teachers import Teachers
from trainer.settings import TAUGHT_SHARE, Recipe

SHARE_POWER = 1 / 3


class Batches(keras.utils.PyDataset):
    """The batches of one epoch after the other; an epoch draws as many faces as there are."""

    def __init__(
        self,
        patches: FacePatches,
        recipe: Recipe,
        seed: int,
        first_epoch: int = 0,
        *,
        teachers: Teachers | None = None,
    ) -> None:
        """Draw batches of patches, starting with epoch `first_epoch` (from 0)."""
        super().__init__(workers=1, use_multiprocessing=False, max_queue_size=4)
        self._patches = patches
        self._recipe = recipe
        self._seed = seed
        self._epoch = first_epoch
        self._teachers = teachers
        self._shares = sampling_chances(patches)
        self._order = self._drawn()

    def __len__(self) -> int:
        return -(-len(self._patches) // self._recipe.batch)

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        batch = self._recipe.batch
        chosen = self._order[index * batch : (index + 1) * batch]
        rng = np.random.default_rng([self._seed, self._epoch, 1 + index])
        crops, coloured = augmented_crops(self._patches, chosen, self._recipe.size_px, self._recipe.margin, rng)
        targets = self._patches.has_mask[chosen].astype(np.float32)
        if self._teachers:
            targets += np.float32(TAUGHT_SHARE) * (self._teachers.mask_probability(coloured) - targets)
        return crops, targets[:, None]

    def on_epoch_end(self) -> None:
        """Draw the next epoch; Keras calls it."""
        self._epoch += 1
        self._order = self._drawn()

    def _drawn(self) -> NDArray[np.intp]:
        rng = np.random.default_rng([self._seed, self._epoch, 0])
        return rng.choice(len(self._patches), len(self._patches), p=self._shares)


def sampling_chances(patches: FacePatches, power: float = SHARE_POWER) -> NDArray[np.float64]:
    """Return the probability of each face to be drawn, float64 n; a data set and label with f faces gets f ** power."""
    strata = list(zip(patches.sources, patches.has_mask.tolist(), strict=True))
    sizes = Counter(strata)
    weights = np.array([sizes[stratum] ** (power - 1) for stratum in strata])
    chances: NDArray[np.float64] = weights / weights.sum()
    return chances
