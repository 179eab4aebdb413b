"""The pages' third-party parts from npm, which scripts/fetch_page_parts.py puts in place."""

from __future__ import annotations

from pathlib import Path

VENDOR = Path(__file__).parent / "static" / "vendor"
PARTS = ("socket.io.min.js", "uPlot.iife.min.js", "uPlot.min.css")


def check_page_parts() -> None:
    """Check that all parts are there.

    Raises:
        FileNotFoundError: one is missing.
    """
    for name in PARTS:
        if not (VENDOR / name).is_file():
            raise FileNotFoundError(
                f"{VENDOR / name}, a part of the pages from npm, is missing; `make setup` fetches it"
            )
