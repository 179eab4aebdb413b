"""Put the page's one part that is not ours into place: the Socket.IO client, from npm, by package-lock.json.

npm is needed here and never again. What is there and right is left alone.

    python scripts/fetch_page_parts.py
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "node_modules" / "socket.io-client" / "dist" / "socket.io.min.js"
PLACE = ROOT / "viewer" / "static" / "vendor" / "socket.io.min.js"
SHA256 = "d5d79a35039e860b32bdef4795528b05c2f788d4b2d9dacc913120e2878f7b3f"  # of socket.io-client 4.8.4


def main() -> int:
    """Fetch the client unless it is there; 0 when it is in place, 1 with one line on stderr when it is not."""
    if is_right(PLACE):
        return 0
    try:
        subprocess.run(["npm", "ci", "--no-progress"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    except FileNotFoundError:
        print("npm is not installed; the page's parts come from it (Node.js 18 or newer)", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print(f"npm ci failed with exit status {error.returncode}; is the registry reachable?", file=sys.stderr)
        return 1
    if not is_right(SOURCE):
        print(f"{SOURCE} is not the file that was chosen: its sha256 is not {SHA256}", file=sys.stderr)
        return 1
    PLACE.parent.mkdir(parents=True, exist_ok=True)
    PLACE.write_bytes(SOURCE.read_bytes())
    return 0


def is_right(path: Path) -> bool:
    """Return whether the file is there and has the hash it should have."""
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == SHA256


if __name__ == "__main__":
    sys.exit(main())
