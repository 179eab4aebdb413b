"""Count the cores that this process may use: its CPU affinity, and the CPU quota of its control groups.

A container's limit (`--cpus`, `limits.cpu`) is a quota: the container sees all cores of the machine, but is stopped in
each period once it has used its share. Both versions of control groups are read; what cannot be read sets no limit.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

PROC = Path("/proc/self")


def available_cores(proc: Path = PROC) -> int:
    """Return how many cores this process may use, at least 1. proc: the folder of the process in /proc."""
    quotas = [quota for folder in _cpu_folders(proc) if (quota := cpu_quota(folder)) is not None]
    return max(1, math.ceil(min([len(os.sched_getaffinity(0)), *quotas])))


def cpu_quota(folder: Path) -> float | None:
    """Return the quota of a control group in cores; None for no limit. folder: of the group, in either version."""
    words = _words(folder / "cpu.max") or _words(folder / "cpu.cfs_quota_us") + _words(folder / "cpu.cfs_period_us")
    if len(words) != 2 or not all(word.isdecimal() and int(word) > 0 for word in words):
        return None  # "max" in version 2, -1 in version 1
    return int(words[0]) / int(words[1])  # both in microseconds


def group_folders(groups: str, mounts: str) -> list[tuple[Path, Path]]:
    """Return the folders of a process' CPU control groups, each with the folder at which its hierarchy is mounted.

    Args:
        groups: the content of /proc/self/cgroup; a line is `hierarchy:controllers:path`, without controllers in
            version 2.
        mounts: the content of /proc/self/mountinfo; proc(5) describes its fields.
    """
    paths: dict[str, PurePosixPath] = {}  # by file system
    for line in groups.splitlines():
        _, controllers, group = line.split(":", 2)
        if not controllers:
            paths["cgroup2"] = PurePosixPath(group)
        elif "cpu" in controllers.split(","):
            paths["cgroup"] = PurePosixPath(group)
    found = []
    for line in mounts.splitlines():
        mount, _, rest = line.partition(" - ")
        root, top = mount.split()[3:5]
        system, *_, options = rest.split()
        if system == "cgroup2" or (system == "cgroup" and "cpu" in options.split(",")):
            path = paths.get(system, PurePosixPath(root))
            # a container may see only its own group, mounted where the hierarchy usually is
            below = path.relative_to(root) if path.is_relative_to(root) else PurePosixPath()
            found.append((Path(top) / below, Path(top)))
    return found


def _cpu_folders(proc: Path) -> Iterator[Path]:
    """Yield the folders of the control groups of the process and of those around them."""
    try:
        folders = group_folders((proc / "cgroup").read_text(), (proc / "mountinfo").read_text())
    except OSError:
        return
    for folder, top in folders:
        yield folder
        yield from (parent for parent in folder.parents if parent.is_relative_to(top))


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []
