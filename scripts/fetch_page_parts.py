"""Fetch the pages' third-party parts from npm by package-lock.json. Only this needs npm.

python scripts/fetch_page_parts.py           what the viewer serves: the Socket.IO client, and uPlot for charts
python scripts/fetch_page_parts.py --tests   also axe-core, with which tests check that pages are accessible
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from fetch_assets import ROOT, is_intact

PACKAGES = ROOT / "node_modules"
VENDOR = ROOT / "viewer" / "static" / "vendor"


@dataclass(frozen=True, slots=True)
class Part:
    """A file of a package. target: where it is used."""

    source: Path
    target: Path
    sha256: str


SERVED = (
    Part(
        source=PACKAGES / "socket.io-client" / "dist" / "socket.io.min.js",
        target=VENDOR / "socket.io.min.js",
        sha256="d5d79a35039e860b32bdef4795528b05c2f788d4b2d9dacc913120e2878f7b3f",
    ),
    Part(
        source=PACKAGES / "uplot" / "dist" / "uPlot.iife.min.js",
        target=VENDOR / "uPlot.iife.min.js",
        sha256="19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
    ),
    Part(
        source=PACKAGES / "uplot" / "dist" / "uPlot.min.css",
        target=VENDOR / "uPlot.min.css",
        sha256="df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
    ),
)
AXE = PACKAGES / "axe-core" / "axe.min.js"
TESTED = (Part(source=AXE, target=AXE, sha256="29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c"),)


def main() -> int:
    """Fetch the parts that are not in place; return 0, or 1 after one line on stderr."""
    parts = SERVED + (TESTED if "--tests" in sys.argv[1:] else ())
    if all(is_intact(part.target, part.sha256) for part in parts):
        return 0
    try:
        subprocess.run(["npm", "ci", "--no-progress"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    except FileNotFoundError:
        print("npm is not installed; the page's parts come from it (Node.js 18 or newer)", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print(f"npm ci failed with exit status {error.returncode}; is the registry reachable?", file=sys.stderr)
        return 1
    for part in parts:
        if not is_intact(part.source, part.sha256):
            print(f"{part.source} is not the expected file: its SHA-256 is not {part.sha256}", file=sys.stderr)
            return 1
        part.target.parent.mkdir(parents=True, exist_ok=True)
        if part.target != part.source:
            part.target.write_bytes(part.source.read_bytes())
    return 0


if __name__ == "__main__":
    sys.exit(main())
