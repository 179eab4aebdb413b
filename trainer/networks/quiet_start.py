"""Load TensorFlow without the notes it always writes first: nothing in, Keras and TensorFlow imported out.

Its C++ parts write them straight to stderr before any setting counts (TF_CPP_MIN_LOG_LEVEL and ABSL_MIN_LOG_LEVEL only
hold for later lines). So while it is loaded, and only then, stderr goes through a process of its own that leaves out
the lines known here. Whatever else is written comes through, the last words of a process that dies meanwhile too. A
process that cannot be started raises OSError.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

STDERR = 2
NOTES = re.compile(
    rb"All log messages before absl::InitializeLog"
    rb"|oneDNN custom operations are on"
    rb"|Could not find cuda drivers on your machine"
    rb"|failed call to cuInit: .*\(303\)"  # no driver is installed; other numbers tell of one that fails
)


def load_tensorflow() -> None:
    """Import Keras with its backend, and have TensorFlow look for GPUs: then it writes the last of its notes."""
    with without_notes():
        import keras

        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            tf.config.list_physical_devices("GPU")


@contextmanager
def without_notes() -> Iterator[None]:
    """Leave known notes out of what anything writes to stderr while a block runs."""
    before = os.dup(STDERR)
    command = [sys.executable, "-IS", __file__]
    # In a group of its own, because Ctrl-C is for who loads; it ends when nobody can write to it any more.
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=before, process_group=0) as filtering:
        pipe = filtering.stdin
        if pipe is not None:
            os.dup2(pipe.fileno(), STDERR)
        try:
            yield
        finally:
            os.dup2(before, STDERR)
            os.close(before)


def main() -> None:
    """Copy lines from stdin to stdout, but the known notes."""
    for line in sys.stdin.buffer:
        if not NOTES.search(line):
            sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
