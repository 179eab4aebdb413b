"""Freed memory: kept for the next frame, and given back when that is asked for."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import threading
import numpy as np
from pathlib import Path
from pipeline.runtime.memory import give_back_memory, keep_memory

def megabytes():
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["RssAnon"].split()[0]) / 1000

def use():
    np.ones(50_000_000, np.uint8)

keep_memory()
before = megabytes()
thread = threading.Thread(target=use)
thread.start()
thread.join()
kept = megabytes()
give_back_memory()
print(kept - before, megabytes() - before)
"""


def test_what_a_thread_has_freed_is_kept_until_it_is_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True)

    kept, left = map(float, done.stdout.split())
    assert kept > 40
    assert left < 10
