"""Run many command lines of maskwatch quickly: each as the program runs it, but all in one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence

RUN_ALL = """
import contextlib, io, json, sys
import maskwatch
found = []
for words in json.load(sys.stdin):
    sys.argv, written = ["maskwatch", *words], io.StringIO()
    with contextlib.redirect_stderr(written), contextlib.redirect_stdout(written):
        try:
            maskwatch.main()
        except SystemExit as end:
            found.append((end.code or 0, written.getvalue()))
print(json.dumps(found))
"""


def run_all(command_lines: Sequence[str], **variables: str) -> dict[str, tuple[int, str]]:
    """Return by command line its exit status and what it wrote. variables: added to the environment."""
    done = subprocess.run(
        [sys.executable, "-c", RUN_ALL],
        input=json.dumps([line.split(" ") for line in command_lines]),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        env=os.environ | variables,
    )
    return {line: tuple(found) for line, found in zip(command_lines, json.loads(done.stdout), strict=True)}
