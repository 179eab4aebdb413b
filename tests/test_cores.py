"""How many cores a process may use: its affinity, and the quotas of its control groups, as files of both versions."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from commands.label import MAX_WORKERS, worker_count
from pipeline.runtime import cores
from pipeline.runtime.cores import available_cores

Write = Callable[[str, str, Mapping[str, str]], Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write the files of control groups, of a process that may run on 64 cores; return its folder in /proc."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(64)))

    def write(groups: str, mounts: str, quotas: Mapping[str, str]) -> Path:
        for name, content in quotas.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(content)
        (tmp_path / "cgroup").write_text(groups)
        (tmp_path / "mountinfo").write_text(mounts.replace("FOLDER", str(tmp_path)))
        return tmp_path

    return write


V2 = (
    "29 1 0:26 / /proc rw,nosuid shared:5 - proc proc rw\n"
    "31 30 0:27 / FOLDER/v2 rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
)
V1 = (
    "31 30 0:27 /docker/abc FOLDER/v1 rw,nosuid master:11 - cgroup cgroup rw,cpu,cpuacct\n"
    "32 30 0:28 /docker/abc FOLDER/memory rw,nosuid master:12 - cgroup cgroup rw,memory\n"
)


@pytest.mark.parametrize(
    ("groups", "mounts", "quotas", "expected"),
    [
        ("0::/\n", V2, {"v2/cpu.max": "200000 100000\n"}, 2),
        ("0::/\n", V2, {"v2/cpu.max": "150000 100000\n"}, 2),
        ("0::/\n", V2, {"v2/cpu.max": "10000 100000\n"}, 1),
        ("0::/\n", V2, {"v2/cpu.max": "max 100000\n"}, 64),
        ("0::/\n", V2, {"v2/cpu.max": "9900000 100000\n"}, 64),
        ("0::/\n", V2, {}, 64),
        ("0::/\n", "", {}, 64),
        ("0::/pod/main\n", V2, {"v2/pod/main/cpu.max": "max 100000\n", "v2/pod/cpu.max": "300000 100000\n"}, 3),
        ("0::/pod/main\n", V2, {"v2/pod/main/cpu.max": "100000 50000\n", "v2/pod/cpu.max": "300000 100000\n"}, 2),
        (
            "5:cpu,cpuacct:/docker/abc\n",
            V1,
            {"v1/cpu.cfs_quota_us": "250000\n", "v1/cpu.cfs_period_us": "100000\n"},
            3,
        ),
        ("5:cpu,cpuacct:/docker/abc\n", V1, {"v1/cpu.cfs_quota_us": "-1\n", "v1/cpu.cfs_period_us": "100000\n"}, 64),
        (
            "5:cpuacct,cpu:/docker/abc/job\n0::/\n",
            V1 + V2,
            {"v1/job/cpu.cfs_quota_us": "400000\n", "v1/job/cpu.cfs_period_us": "100000\n"},
            4,
        ),
        (
            "5:cpu:/elsewhere\n6:memory:/docker/abc\n",
            V1,
            {"v1/cpu.cfs_quota_us": "500000\n", "v1/cpu.cfs_period_us": "100000\n"},
            5,
        ),
    ],
)
def test_the_smallest_quota_around_a_process_counts_rounded_up(
    write: Write, groups: str, mounts: str, quotas: Mapping[str, str], expected: int
) -> None:
    proc = write(groups, mounts, quotas)

    assert available_cores(proc) == expected


def test_a_system_without_control_groups_sets_no_quota(tmp_path: Path) -> None:
    assert available_cores(tmp_path / "nothing-here") == len(os.sched_getaffinity(0))


def test_a_process_may_use_the_cores_that_it_is_bound_to() -> None:
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
    code += f"from {cores.__name__} import available_cores; print(available_cores())"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "1\n"


@pytest.mark.parametrize(
    ("available", "frames", "expected"),
    [
        (1, None, 1),
        (2, None, 2),
        (4, 1000, 4),
        (64, None, MAX_WORKERS),
        (64, 1, 1),
        (4, 3, 3),
    ],
)
def test_a_source_gets_as_many_workers_as_there_are_cores_and_frames_and_one_sender_can_feed(
    available: int, frames: int | None, expected: int
) -> None:
    assert worker_count(available, frames) == expected
