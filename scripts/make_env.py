"""Draw the deployment's secrets into .env: passwords of Redis, the viewer's login, keys and tokens.

A file that is there keeps all it has; only what is missing is added. It is readable by its owner alone. Needs nothing
but Python; prints the password that a person types.

    python3 scripts/make_env.py [FILE]
"""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DRAWN = (
    "REDIS_CAMERA_PASSWORD",
    "REDIS_DETECTOR_PASSWORD",
    "REDIS_CLASSIFIER_PASSWORD",
    "REDIS_VIEWER_PASSWORD",
    "REDIS_ADMIN_PASSWORD",
    "JOBS_PASSWORD",
    "MASKWATCH_SESSION_KEY",
    "MASKWATCH_METRICS_TOKEN",
    "GRAFANA_PASSWORD",
)
LOGIN, LOGIN_HASH = "VIEWER_PASSWORD", "MASKWATCH_PASSWORD_HASH"
SECRET_BYTES = 32
LOGIN_BYTES = 12  # typed by people: 16 characters, 96 bits
SCRYPT_N, SCRYPT_R, SCRYPT_P = 2**15, 8, 1  # werkzeug's own choice
SCRYPT_MEMORY = 132 * SCRYPT_N * SCRYPT_R * SCRYPT_P


def main() -> int:
    """Add to the file what it lacks; 0 when it holds all, 1 with one line on stderr when it cannot be written."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / ".env"
    try:
        there = read(path)
        added = missing(there)
        append(path, added)
    except (OSError, UnicodeDecodeError) as error:
        print(f"{path} cannot be read and written: {error}", file=sys.stderr)
        return 1
    print(f"{path}: {len(added)} secrets added, {len(there)} left as they were")
    if LOGIN in added:
        print(f"The viewer's password: {added[LOGIN]}")
    return 0


def missing(there: dict[str, str]) -> dict[str, str]:
    """Return what a file with these values lacks. A hash without its password stays: somebody chose it."""
    added = {name: secrets.token_urlsafe(SECRET_BYTES) for name in DRAWN if not there.get(name)}
    if not there.get(LOGIN_HASH):
        password = there.get(LOGIN) or secrets.token_urlsafe(LOGIN_BYTES)
        if not there.get(LOGIN):
            added[LOGIN] = password
        added[LOGIN_HASH] = login_hash(password)
    return added


def login_hash(password: str) -> str:
    """Return what `maskwatch password` prints: werkzeug's scrypt hash, in base64 because Compose expands dollars."""
    salt = secrets.token_hex(8)
    key = hashlib.scrypt(
        password.encode(), salt=salt.encode(), n=SCRYPT_N, r=SCRYPT_R, p=SCRYPT_P, maxmem=SCRYPT_MEMORY
    )
    text = f"scrypt:{SCRYPT_N}:{SCRYPT_R}:{SCRYPT_P}${salt}${key.hex()}"
    return base64.urlsafe_b64encode(text.encode()).decode()


def read(path: Path) -> dict[str, str]:
    """Return the values in a file; none when there is no file."""
    if not path.exists():
        return {}
    lines = (line.strip() for line in path.read_text().splitlines())
    named = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {name.strip(): value.strip().strip("'\"") for name, _, value in named}


def append(path: Path, added: dict[str, str]) -> None:
    """Add values to a file that its owner alone may read, whoever could before."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(descriptor, "r+") as file:
        os.fchmod(descriptor, 0o600)
        before = file.read()
        file.write("\n" if added and before and not before.endswith("\n") else "")
        file.writelines(f"{name}={value}\n" for name, value in added.items())


if __name__ == "__main__":
    sys.exit(main())
