"""What glibc's allocator does with freed memory: it keeps it for the next frame. See mallopt(3).

Other C libraries have no such functions; then nothing changes.
"""

from __future__ import annotations

import contextlib
import ctypes

# M_MMAP_THRESHOLD and M_TRIM_THRESHOLD of glibc's malloc.h, in bytes, and M_ARENA_MAX: if each thread had a heap, each
# would keep what it has freed, and what lies below a block in use could not be given back.
MALLOPT = {-3: 64 << 20, -1: 256 << 20, -8: 1}


def keep_memory() -> None:
    """Let glibc keep freed memory for the next frame instead of returning it to the system.

    Without this, requesting memory page by page takes a tenth of a worker's time at 720p.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in MALLOPT.items():
            mallopt(parameter, value)


def give_back_memory() -> None:
    """Return what is free at present to the system: after a start that needed more memory than what follows."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
