"""Generate the secrets of a deployment in .env: Redis passwords, the viewer's login, keys and tokens.

In: the file, if it exists. Out: the file with what was missing, readable by its owner alone. Existing values are kept,
so removing a line generates its secret anew. The hash of the viewer's password follows the password; with an empty
`VIEWER_PASSWORD=`, a hash made by `maskwatch password` is kept. A new login password is printed. Needs only Python.

    python3 scripts/make_env.py [FILE]
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import os
import re
import secrets
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
IN_URLS = (
    "REDIS_CAMERA_PASSWORD",
    "REDIS_DETECTOR_PASSWORD",
    "REDIS_CLASSIFIER_PASSWORD",
    "REDIS_VIEWER_PASSWORD",
    "REDIS_RECORDER_PASSWORD",
    "REDIS_ADMIN_PASSWORD",
    "REDIS_REPLICA_PASSWORD",
    "JOBS_PASSWORD",
    "POSTGRES_PASSWORD",
)
# With fewer characters Redis (deploy/redis/start.sh) or the viewer does not start.
LEAST_CHARS = {name: 16 for name in IN_URLS if name != "POSTGRES_PASSWORD"} | {"MASKWATCH_SESSION_KEY": 32}
GENERATED = (*IN_URLS, "MASKWATCH_SESSION_KEY", "MASKWATCH_METRICS_TOKEN", "GRAFANA_PASSWORD")
LOGIN, LOGIN_HASH = "VIEWER_PASSWORD", "MASKWATCH_PASSWORD_HASH"
SECRET_BYTES = 32
LOGIN_BYTES = 12  # typed by people: 16 characters, 96 bits
SCRYPT_N, SCRYPT_R, SCRYPT_P = 2**15, 8, 1  # the parameters that werkzeug uses


class BadPassword(ValueError):
    """An existing password cannot be used; the message names its variable and says what to do."""


def main() -> int:
    """Update the file; return 0, or 1 after one line on stderr when that fails."""
    usage = argparse.ArgumentParser(description="Generate the deployment's secrets in .env; existing values are kept.")
    usage.add_argument("file", nargs="?", type=Path, default=ROOT / ".env", help="default: .env of this repository")
    path = usage.parse_args().file
    try:
        existing = read(path)
        put(path, changed := missing(existing))
    except (OSError, UnicodeDecodeError, BadPassword) as error:
        print(f"{path} cannot be updated: {error}", file=sys.stderr)
        return 1
    print(f"{path}: {len(set(changed) - set(existing))} secrets added, {len(set(existing) - set(changed))} kept")
    if LOGIN in changed:
        print(f"The viewer's password: {changed[LOGIN]}")
    elif LOGIN_HASH in changed:
        print(f"{LOGIN_HASH} now matches {LOGIN}; restart the viewer")
    return 0


def missing(existing: dict[str, str]) -> dict[str, str]:
    """Return the secrets that these values lack, and the hash of the viewer's password if it does not match.

    Raises:
        BadPassword: a password of Redis or PostgreSQL has characters that a URL cannot contain, or a secret is short.
    """
    for name in IN_URLS:
        if not re.fullmatch(r"[A-Za-z0-9._~-]*", existing.get(name, "")):
            what = "may only contain letters, digits and . _ ~ -, because it is part of a URL"
            raise BadPassword(f"{name} {what}: remove its line to generate one")
    for name, least in LEAST_CHARS.items():
        if existing.get(name) and len(existing[name]) < least:
            raise BadPassword(f"{name} has fewer than {least} characters: remove its line to generate one")
    added = {name: secrets.token_urlsafe(SECRET_BYTES) for name in GENERATED if not existing.get(name)}
    if LOGIN in existing and not existing[LOGIN] and existing.get(LOGIN_HASH):
        return added
    password = existing.get(LOGIN) or secrets.token_urlsafe(LOGIN_BYTES)
    if not existing.get(LOGIN):
        added[LOGIN] = password
    if not is_hash_of(existing.get(LOGIN_HASH, ""), password):
        added[LOGIN_HASH] = login_hash(password, secrets.token_hex(8))
    return added


def login_hash(password: str, salt: str) -> str:
    """Return the same as `maskwatch password`: werkzeug's scrypt hash, in base64 because Compose expands dollars."""
    memory = 132 * SCRYPT_N * SCRYPT_R * SCRYPT_P
    key = hashlib.scrypt(password.encode(), salt=salt.encode(), n=SCRYPT_N, r=SCRYPT_R, p=SCRYPT_P, maxmem=memory)
    text = f"scrypt:{SCRYPT_N}:{SCRYPT_R}:{SCRYPT_P}${salt}${key.hex()}"
    return base64.urlsafe_b64encode(text.encode()).decode()


def is_hash_of(text: str, password: str) -> bool:
    """Return whether a hash made by `login_hash` is that of the password; False for any other text."""
    try:
        _, salt, _ = base64.urlsafe_b64decode(text).decode().split("$")
    except ValueError:
        return False
    return secrets.compare_digest(login_hash(password, salt).encode(), text.encode())


def read(path: Path) -> dict[str, str]:
    """Return the values in a file, empty if it does not exist."""
    if not path.exists():
        return {}
    lines = (line.strip() for line in path.read_text("utf-8-sig").splitlines())  # editors of Windows begin with a BOM
    named = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {name.strip(): value.strip().strip("'\"") for name, _, value in named}


def put(path: Path, values: dict[str, str]) -> None:
    """Set values in a file and make it readable by its owner alone; other lines are kept."""
    lines = path.read_text("utf-8-sig").splitlines() if path.exists() else []
    kept = [line for line in lines if line.partition("=")[0].strip() not in values]
    new = path.resolve().with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.writelines(f"{line}\n" for line in [*kept, *(f"{name}={value}" for name, value in values.items())])
    new.replace(path.resolve())


if __name__ == "__main__":
    sys.exit(main())
