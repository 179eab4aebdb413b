"""Run many command lines of maskwatch quickly: each as the program runs it, but all in one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

# Answers go to what was stdout at the start; what a command or its children write there goes to stderr.
RUN = """
import contextlib, io, json, os, sys
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
import maskwatch
for line in sys.stdin:
    words, variables = json.loads(line)
    os.environ.update(variables)
    sys.argv, status = ["maskwatch", *words], 0
    written = io.TextIOWrapper(io.BytesIO(), write_through=True)
    with contextlib.redirect_stderr(written), contextlib.redirect_stdout(written):
        try:
            maskwatch.main()
        except SystemExit as end:
            status = end.code or 0
    print(json.dumps([status, written.buffer.getvalue().decode()]), file=answers, flush=True)
"""


class CommandRunner:
    """A process that runs command lines one after the other, in a folder, with variables of their own."""

    def __init__(self, folder: Path | None = None, **variables: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", RUN],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=folder,
            env=os.environ | variables,
        )

    def run(self, words: Sequence[str], **variables: str) -> tuple[int, str]:
        """Run one command; return its exit status and what it wrote. variables: from now on set."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps([words, variables]), file=self._process.stdin, flush=True)
        status, text = json.loads(self._process.stdout.readline())
        return status, text

    def __enter__(self) -> CommandRunner:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.communicate()


def run_all(command_lines: Sequence[str], **variables: str) -> dict[str, tuple[int, str]]:
    """Return by command line its exit status and what it wrote. variables: added to the environment."""
    with CommandRunner(**variables) as runner:
        return {line: runner.run(line.split(" ")) for line in command_lines}
