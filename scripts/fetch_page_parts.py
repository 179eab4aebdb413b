"""Fetch the page's one third-party part, the Socket.IO client, from npm by package-lock.json. Only this needs npm.

python scripts/fetch_page_parts.py
"""

from __future__ import annotations

import subprocess
import sys

from fetch_assets import ROOT, is_intact

SOURCE = ROOT / "node_modules" / "socket.io-client" / "dist" / "socket.io.min.js"
TARGET = ROOT / "viewer" / "static" / "vendor" / "socket.io.min.js"
SHA256 = "d5d79a35039e860b32bdef4795528b05c2f788d4b2d9dacc913120e2878f7b3f"  # of socket.io-client 4.8.4


def main() -> int:
    """Fetch the client unless it is in place; return 0, or 1 after one line on stderr."""
    if is_intact(TARGET, SHA256):
        return 0
    try:
        subprocess.run(["npm", "ci", "--no-progress"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    except FileNotFoundError:
        print("npm is not installed; the page's parts come from it (Node.js 18 or newer)", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print(f"npm ci failed with exit status {error.returncode}; is the registry reachable?", file=sys.stderr)
        return 1
    if not is_intact(SOURCE, SHA256):
        print(f"{SOURCE} is not the expected file: its SHA-256 is not {SHA256}", file=sys.stderr)
        return 1
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_bytes(SOURCE.read_bytes())
    return 0


if __name__ == "__main__":
    sys.exit(main())
