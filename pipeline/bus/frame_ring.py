"""Pass the pixels of frames between processes of one machine: an image in, a reference that others map out.

A producer owns a ring: anonymous memory of the kernel (memfd) with slots for its newest frames. It has no name, so it
is gone once no process has it open, however they ended. A reader of the same user opens it through /proc. Each slot has
a generation, which is odd while the slot is written and grows with every frame: a reader uses the pixels where they
are, and asks afterwards whether they were still those of its frame. docs/pixels.md has the states.

On systems without memfd there is no ring, and pixels go through Redis as JPEG.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import secrets
import struct
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.bus.messages import SharedPixels
from pipeline.vision.arrays import Image

NAME = "maskwatch-frames"
PAGE = mmap.PAGESIZE
# The header: magic number, token, slots, bytes of a slot; from GENERATIONS_AT on a generation for each slot.
HEADER = struct.Struct("<8s16sQQ")
MAGIC = b"mwframe1"
GENERATIONS_AT = 64
MAX_SLOTS = (PAGE - GENERATIONS_AT) // 8
SEALS = 0x1 | 0x2 | 0x4  # F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW: no size that a reader has checked can change
ADD_SEALS, GET_SEALS = 1033, 1034  # of fcntl; Python names them only from 3.12 on
READER_IDLE_S = 5.0  # after which a reader lets go of a ring, so that those of ended producers are gone


class FrameRing:
    """The ring of one producer, used by one thread.

    Args:
        slots: at most MAX_SLOTS frames are held.
        slot_bytes: of the largest image.

    Raises:
        OSError: there is no memfd, or no memory.
    """

    def __init__(self, slots: int, slot_bytes: int) -> None:
        if not 1 <= slots <= MAX_SLOTS or slot_bytes < 1:
            raise ValueError(f"a ring has 1 to {MAX_SLOTS} slots of at least a byte, not {slots} of {slot_bytes}")
        self._slot_bytes = -(-slot_bytes // PAGE) * PAGE
        self._fd = _create(PAGE + slots * self._slot_bytes)
        self._memory = mmap.mmap(self._fd, PAGE + slots * self._slot_bytes)
        token = secrets.token_bytes(16)
        HEADER.pack_into(self._memory, 0, MAGIC, token, slots, self._slot_bytes)
        self._token = token.hex()
        self._generations: NDArray[np.uint64] = np.frombuffer(self._memory, np.uint64, slots, GENERATIONS_AT)
        self._written_at = [0.0] * slots  # 0: empty
        self._held: set[int] = set()
        self._next = 0

    def put(self, image: Image, *, hold: bool = False) -> SharedPixels | None:
        """Write an image (uint8 H x W x 3) in the place of the oldest one that is not held.

        Args:
            hold: it stays until release() is called for it.

        Returns:
            where it is; None when it is larger than a slot, or all slots are held.
        """
        slot = self._free_slot()
        if slot is None or image.nbytes > self._slot_bytes:
            return None
        self._generations[slot] += 1  # odd: readers of the old frame see that it is gone
        target = np.frombuffer(self._memory, np.uint8, image.nbytes, PAGE + slot * self._slot_bytes)
        np.copyto(target.reshape(image.shape), image)
        self._generations[slot] += 1
        self._written_at[slot] = time.monotonic()
        self._next = (slot + 1) % len(self._written_at)
        if hold:
            self._held.add(slot)
        return SharedPixels(
            pid=os.getpid(), fd=self._fd, token=self._token, slot=slot, generation=int(self._generations[slot])
        )

    def image(self, pixels: SharedPixels, height: int, width: int) -> Image:
        """Return an image that was put and is held, uint8 H x W x 3, as a view."""
        return _image_in(self._memory, PAGE + pixels.slot * self._slot_bytes, height, width)

    def release(self, pixels: Iterable[SharedPixels]) -> None:
        """Let held images be overwritten."""
        self._held.difference_update(one.slot for one in pixels if one.token == self._token)

    def erase_older_than(self, seconds: float) -> None:
        """Erase images that are not held and were written longer ago than this."""
        oldest = time.monotonic() - seconds
        for slot, written_at in enumerate(self._written_at):
            if 0 < written_at < oldest and slot not in self._held:
                self._erase(slot)

    def close(self) -> None:
        """Erase everything and let the memory go; readers see that their frames are gone."""
        for slot, written_at in enumerate(self._written_at):
            if written_at > 0:
                self._erase(slot)
        os.close(self._fd)

    def _free_slot(self) -> int | None:
        count = len(self._written_at)
        slots = ((self._next + step) % count for step in range(count))
        return next((slot for slot in slots if slot not in self._held), None)

    def _erase(self, slot: int) -> None:
        self._generations[slot] += 2
        self._written_at[slot] = 0.0
        # Gives the pages back to the system; who reads them then reads zeros.
        self._memory.madvise(mmap.MADV_REMOVE, PAGE + slot * self._slot_bytes, self._slot_bytes)


@dataclass(slots=True)
class _Mapped:
    """A ring that was looked for. memory: None if it cannot be mapped, which is tried again after READER_IDLE_S."""

    memory: mmap.mmap | None = None
    slots: int = 0
    slot_bytes: int = 0
    used_at: float = field(default_factory=time.monotonic)


@dataclass(frozen=True, slots=True)
class MappedFrame:
    """The pixels of a frame where its producer may overwrite them; image: uint8 H x W x 3, read-only."""

    image: Image
    _generation: NDArray[np.uint64]
    _expected: int

    def is_intact(self) -> bool:
        """Return whether all that was read of the image until now was of its frame."""
        return int(self._generation[0]) == self._expected


class RingReader:
    """Map the rings of producers of this machine, in one thread."""

    def __init__(self) -> None:
        self._rings: dict[tuple[int, str], _Mapped] = {}

    def open(self, pixels: SharedPixels, height: int, width: int) -> MappedFrame | None:
        """Return a frame's pixels; None when this process cannot map its ring: another machine, container or user."""
        key = (pixels.pid, pixels.token)
        ring = self._rings.get(key) or _mapped(pixels)
        self._rings[key] = ring
        if ring.memory is None:
            return None
        ring.used_at = time.monotonic()
        if pixels.slot >= ring.slots or height * width * 3 > ring.slot_bytes:
            return None
        generation = np.frombuffer(ring.memory, np.uint64, 1, GENERATIONS_AT + 8 * pixels.slot)
        image = _image_in(ring.memory, PAGE + pixels.slot * ring.slot_bytes, height, width)
        return MappedFrame(image, generation, pixels.generation)

    def let_go(self) -> None:
        """Let go of rings that were not used for a while."""
        oldest = time.monotonic() - READER_IDLE_S
        for key in [key for key, ring in self._rings.items() if ring.used_at < oldest]:
            del self._rings[key]


def _create(size: int) -> int:
    if not hasattr(os, "memfd_create"):
        raise OSError("this system has no memfd")
    fd = os.memfd_create(NAME, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, size)
        fcntl.fcntl(fd, ADD_SEALS, SEALS)
    except OSError:
        os.close(fd)
        raise
    return fd


def _mapped(pixels: SharedPixels) -> _Mapped:
    """Map the ring that a reference names, if there is one of ours under this process and number."""
    path = f"/proc/{pixels.pid}/fd/{pixels.fd}"
    try:
        if not str(Path(path).readlink()).startswith(f"/memfd:{NAME} "):  # before: opening a device or pipe may block
            return _Mapped()
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return _Mapped()
    try:
        size = os.fstat(fd).st_size
        if fcntl.fcntl(fd, GET_SEALS) & SEALS != SEALS or size < PAGE:
            return _Mapped()
        memory = mmap.mmap(fd, size, prot=mmap.PROT_READ)
    except OSError:
        return _Mapped()
    finally:
        os.close(fd)
    magic, token, slots, slot_bytes = HEADER.unpack_from(memory)
    fits = slots <= MAX_SLOTS and PAGE + slots * slot_bytes <= size
    if magic != MAGIC or token.hex() != pixels.token or not fits:
        return _Mapped()
    return _Mapped(memory, slots, slot_bytes)


def _image_in(memory: mmap.mmap, at: int, height: int, width: int) -> Image:
    pixels: Image = np.frombuffer(memory, np.uint8, height * width * 3, at).reshape(height, width, 3)
    return pixels
