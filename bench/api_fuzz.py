"""Fuzz the REST API against its own OpenAPI document, for ten minutes unless `--minutes` says otherwise:

    python -m bench.api_fuzz

A demo with a password runs meanwhile, and schemathesis sends requests with a token, right and wrong ones: each answer
must be one that the document describes, and none an error of the server. The exit status is that of schemathesis: 0
when it found nothing, else 1; its report says how to repeat each finding. What it finds differs by `--seed`.
"""

from __future__ import annotations

import argparse
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

from viewer.security.api_tokens import SCOPES, create_token
from viewer.security.authenticator import password_hash

START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 20
POLL_INTERVAL_S = 0.2
RUN_SCHEMATHESIS = "import sys; from schemathesis.cli import schemathesis; sys.exit(schemathesis())"
# A form that is larger than its limits is answered with 413, which is a refusal, too.
CONFIG = """[checks]
negative_data_rejection.expected-statuses = [400, 401, 403, 404, 405, 406, 409, 413, 415, 422, 428, 429, "5xx"]
"""


def main() -> int:
    """Fuzz a demo; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="default: 10")
    parser.add_argument("--examples", type=int, default=100, help="of each operation and phase; default: 100")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mw-") as folder, demo(Path(folder)) as (url, token):
        wait_for_labels(url, token)
        Path(folder, "schemathesis.toml").write_text(CONFIG)
        command = [sys.executable, "-c", RUN_SCHEMATHESIS, "run", f"{url}api/v1/openapi.json"]
        command += ["--header", f"Authorization: Bearer {token}", "--checks", "all", "--continue-on-failure"]
        # a schema cannot say that bytes are a picture, so most that it allows are refused
        command += ["--exclude-checks", "positive_data_acceptance"]
        command += ["--max-time", str(round(60 * given.minutes)), "--max-examples", str(given.examples)]
        command += ["--seed", str(given.seed), "--generation-database", "none", "--warnings", "off"]
        return subprocess.run(command, cwd=folder, check=False).returncode


@contextmanager
def demo(folder: Path) -> Iterator[tuple[str, str]]:
    """Run a demo whose page has a password; yield its URL and a token for its API."""
    tokens = folder / "tokens.json"
    token = create_token(tokens, "fuzz", SCOPES)
    access = {"MASKWATCH_TOKENS": str(tokens), "MASKWATCH_PASSWORD_HASH": password_hash(secrets.token_hex(16))}
    command = [sys.executable, "-m", "maskwatch", "demo", "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | access)
    try:
        lines = iter(process.stdout.readline, "") if process.stdout else iter(())
        yield next(line.removeprefix("Viewer: ").strip() for line in lines if line.startswith("Viewer: ")), token
    finally:
        process.terminate()
        process.wait(STOP_TIMEOUT_S)


def wait_for_labels(url: str, token: str) -> None:
    """Wait until a frame of the demo's camera is labelled; exit if none is in time."""
    ends = time.monotonic() + START_TIMEOUT_S
    snapshot = f"{url}api/v1/cameras/demo/snapshot.jpg"
    while requests.get(snapshot, headers={"Authorization": f"Bearer {token}"}, timeout=10).status_code != 200:
        if time.monotonic() > ends:
            sys.exit(f"api_fuzz: the demo at {url} labels nothing within {START_TIMEOUT_S} s")
        time.sleep(POLL_INTERVAL_S)


if __name__ == "__main__":
    sys.exit(main())
