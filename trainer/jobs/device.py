"""Reserve a GPU, or the CPU where there is none, for one trainer on this machine.

A trainer holds a lock on its device as long as it or its work horse lives. There is a lock file for each device in a
folder of this user below TMPDIR; OSError is raised when the folder cannot be created.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from models import file_lock

NVIDIA = re.compile(r"nvidia(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A GPU or the CPU. visible: its value for CUDA_VISIBLE_DEVICES; None for the CPU."""

    name: str
    visible: str | None = None


CPU = Device(name="cpu")


def devices(visible: str | None, nodes: Path = Path("/dev")) -> list[Device]:
    """Return the GPUs that may be used, or else the CPU.

    Args:
        visible: CUDA_VISIBLE_DEVICES; None when it is not set, and then all GPUs may be used.
        nodes: the folder of the GPUs' device nodes.
    """
    if visible is not None:
        named = [part.strip() for part in visible.split(",")]
        used = named[: named.index("-1")] if "-1" in named else named  # CUDA ignores what follows a number it lacks
        return [Device(name=f"gpu-{part}", visible=part) for part in used if part] or [CPU]
    numbers = sorted(int(node[1]) for path in nodes.glob("nvidia*") if (node := NVIDIA.fullmatch(path.name)))
    return [Device(name=f"gpu-{number}", visible=str(index)) for index, number in enumerate(numbers)] or [CPU]


class DeviceLock:
    """One of several devices: from when acquire() returns it until this process and its forks have ended."""

    def __init__(self, found: list[Device]) -> None:
        """Choose among these devices."""
        self._devices = found
        self._acquired: Device | None = None
        self.holders = ""

    def acquire(self) -> Device | None:
        """Return this process's device; None while others hold all of them, then `holders` names them."""
        if self._acquired is None:
            holders = []
            for device in self._devices:
                try:
                    file_lock.lock_file(_folder() / _lock_name(device))  # stays open: closing it would release it
                except file_lock.LockHeld as error:
                    holders.append(f"{device.name}: process {error.holder}")
                else:
                    self._acquired = device
                    break
            self.holders = ", ".join(holders)
        return self._acquired


def _lock_name(device: Device) -> str:
    return f"{device.name.replace('/', '-')}.lock"  # older names of parts of a GPU (MIG) have slashes


def _folder() -> Path:
    folder = Path(tempfile.gettempdir()) / f"maskwatch-{os.getuid()}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    if folder.is_symlink() or not folder.is_dir() or folder.stat().st_uid != os.getuid():
        raise OSError(f"{folder} is no folder of this user: remove it, or set TMPDIR to a folder of your own")
    return folder
