"""Find copies of one photograph among many crops: pixels and names in, pairs of places out.

Copies are pictures that were scaled, encoded again, mirrored, recoloured or moved a little. Two steps: perceptual
hashes (64 bits of the discrete cosine transform, Zauner 2010) that are close name candidates, and the correlation of
their fine detail decides, since portraits of different people share their coarse light and shade. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
Floats = NDArray[np.float32]

HASH_PX = 32
HASH_COSINES = 8
# So many of 63 bits may differ between candidates.
CANDIDATE_BITS = 12

# Fine detail: what is left of a grey picture of this side after its soft light and shade were taken away.
DETAIL_PX = 48
FINE_SIGMA_PX, SOFT_SIGMA_PX = 0.7, 4.0
# Pictures are compared at every shift up to so many of these pixels.
SHIFT_PX = 5
# From this correlation on they are copies: among 18,000 faces of three data sets all pairs looked at above 0.85 were,
# and no pair with different labels lay above 0.80.
SAME_DETAIL = 0.80

# Pictures with less detail than this (standard deviation in grey levels) show nothing that could be told apart.
PLAIN = 0.5

# "Augmented_690_1742059.jpg" is a copy of picture 690, "0_0_0_copy_12.jpg" of "0_0_0.jpg".
_AUGMENTED = re.compile(r"^augmented_(\d+)_\d+$")
_COPY = re.compile(r"(?:[ _-]copy)+(?:[ _-]?\d+| ?\(\d+\))*$")
# "0_0_anhu_0083.jpg" is the 83rd picture of one person.
_PERSON = re.compile(r"^\d+_\d+_([a-z]+)_\d+$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprints:
    """What pictures look like: hash and mirrored hash uint64 n, detail float32 n x 48 x 48."""

    hashes: NDArray[np.uint64]
    mirrored: NDArray[np.uint64]
    details: Floats


def fingerprints(crops: Sequence[Picture]) -> Fingerprints:
    """Take the fingerprints of crops (uint8 RGB, any size; there may be none)."""
    greys = [cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY) for crop in crops]
    return Fingerprints(
        hashes=np.array([_hash(grey) for grey in greys], np.uint64),
        mirrored=np.array([_hash(grey[:, ::-1]) for grey in greys], np.uint64),
        details=np.stack([_detail(grey) for grey in greys])
        if greys
        else np.empty((0, DETAIL_PX, DETAIL_PX), np.float32),
    )


def joined(parts: Sequence[Fingerprints]) -> Fingerprints:
    """Put fingerprints behind each other."""
    return Fingerprints(
        hashes=np.concatenate([part.hashes for part in parts]),
        mirrored=np.concatenate([part.mirrored for part in parts]),
        details=np.concatenate([part.details for part in parts]),
    )


def near_copies(prints: Fingerprints) -> Iterator[tuple[int, int]]:
    """Yield each pair (place, later place) that shows the same photograph."""
    for place in range(len(prints.hashes)):
        for mirror, hashes in ((1, prints.hashes), (-1, prints.mirrored)):
            bits = np.bitwise_count(prints.hashes[place] ^ hashes[place + 1 :])
            for other in (np.flatnonzero(bits <= CANDIDATE_BITS) + place + 1).tolist():
                if _same_detail(prints.details[place], prints.details[other][:, ::mirror]):
                    yield place, other


def original_name(path: Path) -> str:
    """Name the photograph, or the person, that a file name says it is a copy of; else the name itself."""
    stem = path.stem.lower()
    if augmented := _AUGMENTED.match(stem):
        return f"original {augmented[1]}"
    if person := _PERSON.match(stem):
        return f"person {person[1]}"
    return _COPY.sub("", stem)


def is_marked(path: Path) -> bool:
    """Tell whether a file name says of which photograph, or person, it is a copy."""
    return original_name(path) != path.stem.lower()


def _hash(grey: Picture) -> int:
    small = cv2.resize(grey, (HASH_PX, HASH_PX), interpolation=cv2.INTER_AREA).astype(np.float32)
    cosines = cv2.dct(small)[:HASH_COSINES, :HASH_COSINES].ravel()[1:]  # the first is only brightness
    return int.from_bytes(np.packbits(cosines > np.median(cosines)).tobytes(), "big")


def _detail(grey: Picture) -> Floats:
    small = cv2.resize(grey, (DETAIL_PX, DETAIL_PX), interpolation=cv2.INTER_AREA).astype(np.float32)
    fine = cv2.GaussianBlur(small, (0, 0), FINE_SIGMA_PX)
    detail: Floats = fine - cv2.GaussianBlur(fine, (0, 0), SOFT_SIGMA_PX)
    return detail


def _same_detail(one: Floats, other: Floats) -> bool:
    if min(float(one.std()), float(other.std())) < PLAIN:
        return False
    inner = np.ascontiguousarray(other[SHIFT_PX:-SHIFT_PX, SHIFT_PX:-SHIFT_PX])
    return float(cv2.matchTemplate(one, inner, cv2.TM_CCOEFF_NORMED).max()) >= SAME_DETAIL
