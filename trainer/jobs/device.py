"""Which GPU, or this machine's processors, a trainer has to itself.

A trainer holds a lock on a device as long as it and its work horse live: the kernel gives it back however they die. The
lock is a file for each device in a folder of this user, below TMPDIR; OSError is raised when that cannot be made.
"""

from __future__ import annotations

import fcntl
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

NVIDIA = re.compile(r"nvidia\d+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A GPU, or the processors. visible: what CUDA_VISIBLE_DEVICES must say for it; None for the processors."""

    name: str
    visible: str | None = None


CPU = Device(name="cpu")


def devices(visible: str | None, nodes: Path = Path("/dev")) -> list[Device]:
    """Return what there is to train on: the GPUs that may be used, or else the processors.

    Args:
        visible: CUDA_VISIBLE_DEVICES; None when it is not set, and then all GPUs may be used.
        nodes: where the GPUs' device nodes lie.
    """
    if visible is not None:
        named = [part.strip() for part in visible.split(",")]
        used = named[: named.index("-1")] if "-1" in named else named  # CUDA ignores what follows a number it lacks
        return [Device(name=f"gpu-{part}", visible=part) for part in used if part] or [CPU]
    found = sorted((path.name for path in nodes.glob("nvidia*") if NVIDIA.fullmatch(path.name)), key=_number)
    return [Device(name=f"gpu-{_number(name)}", visible=str(place)) for place, name in enumerate(found)] or [CPU]


class DeviceLock:
    """One of several devices, from when take() gives it until this process and those forked from it have ended."""

    def __init__(self, found: list[Device]) -> None:
        """Look for a free one among these."""
        self._devices = found
        self._taken: Device | None = None
        self.holders = ""

    def take(self) -> Device | None:
        """Return this process' device; None while others hold all of them, then `holders` says who."""
        if self._taken is None:
            holders = [f"{device.name}: process {holder}" for device in self._devices if (holder := self._lock(device))]
            self.holders = ", ".join(holders)
        return self._taken

    def _lock(self, device: Device) -> str | None:
        """Take a device, unless one is taken already; return who holds it, None when that is this process."""
        if self._taken is not None:
            return None
        lock = os.open(_folder() / f"{device.name}.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(lock, 20).decode(errors="replace")
            os.close(lock)
            return holder or "?"
        os.truncate(lock, 0)
        os.write(lock, str(os.getpid()).encode())  # and it stays open: closing it would unlock it
        self._taken = device
        return None


def _folder() -> Path:
    folder = Path(tempfile.gettempdir()) / f"maskwatch-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise OSError(f"{folder} belongs to somebody else: remove it, or set TMPDIR to a folder of your own")
    return folder


def _number(name: str) -> int:
    return int(name.removeprefix("nvidia"))
