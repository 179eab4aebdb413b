"""The API against its own document: schemathesis sends right and wrong requests to a demo, and each answer fits."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

from conftest import missing
from feeding import REPOSITORY


def test_no_answer_of_the_api_is_undocumented_or_an_error_of_the_server() -> None:
    if find_spec("schemathesis") is None:
        missing("schemathesis is not installed: `make setup-dev` installs it")
    command = [sys.executable, "-m", "bench.api_fuzz", "--minutes", "0.1", "--examples", "3"]

    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=180, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "No issues found" in done.stdout
