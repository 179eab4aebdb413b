"""Draw the deployment's secrets into .env: passwords of Redis, the viewer's login, keys and tokens.

A file that is there keeps what it has; what is missing is added, so a line that is taken out is drawn anew. The hash of
the viewer's password follows the password. `VIEWER_PASSWORD=` with nothing behind it keeps a hash of your own, from
`maskwatch password`. The file is readable by its owner alone. Needs nothing but Python; prints the password that a
person types when it is new.

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
    "REDIS_ADMIN_PASSWORD",
    "JOBS_PASSWORD",
)
DRAWN = (*IN_URLS, "MASKWATCH_SESSION_KEY", "MASKWATCH_METRICS_TOKEN", "GRAFANA_PASSWORD")
LOGIN, LOGIN_HASH = "VIEWER_PASSWORD", "MASKWATCH_PASSWORD_HASH"
SECRET_BYTES = 32
LOGIN_BYTES = 12  # typed by people: 16 characters, 96 bits
SCRYPT_N, SCRYPT_R, SCRYPT_P = 2**15, 8, 1  # werkzeug's own choice


class BadPassword(ValueError):
    """A password that is there cannot be used; the message names its variable and says what to do."""


def main() -> int:
    """Bring the file up to date; 0 when it holds all, 1 with one line on stderr when it cannot."""
    usage = argparse.ArgumentParser(description="Draw the deployment's secrets into .env; what is there stays.")
    usage.add_argument("file", nargs="?", type=Path, default=ROOT / ".env", help="default: .env of this repository")
    path = usage.parse_args().file
    try:
        there = read(path)
        put(path, changed := missing(there))
    except (OSError, UnicodeDecodeError, BadPassword) as error:
        print(f"{path} cannot be brought up to date: {error}", file=sys.stderr)
        return 1
    print(f"{path}: {len(set(changed) - set(there))} secrets added, {len(set(there) - set(changed))} left as they were")
    if LOGIN in changed:
        print(f"The viewer's password: {changed[LOGIN]}")
    elif LOGIN_HASH in changed:
        print(f"{LOGIN_HASH} is now that of the {LOGIN} in the file; start the viewer anew")
    return 0


def missing(there: dict[str, str]) -> dict[str, str]:
    """Return what a file with these values lacks, and the hash of the viewer's password where it is another's.

    Raises:
        BadPassword: a password cannot stand in the URLs by which processes are told it.
    """
    for name in IN_URLS:
        if not re.fullmatch(r"[A-Za-z0-9._~-]*", there.get(name, "")):
            what = "holds other characters than letters, digits and . _ ~ -, which cannot stand in a URL"
            raise BadPassword(f"{name} {what}: take its line out, and one is drawn")
    added = {name: secrets.token_urlsafe(SECRET_BYTES) for name in DRAWN if not there.get(name)}
    if LOGIN in there and not there[LOGIN] and there.get(LOGIN_HASH):
        return added
    password = there.get(LOGIN) or secrets.token_urlsafe(LOGIN_BYTES)
    if not there.get(LOGIN):
        added[LOGIN] = password
    if not is_hash_of(there.get(LOGIN_HASH, ""), password):
        added[LOGIN_HASH] = login_hash(password, secrets.token_hex(8))
    return added


def login_hash(password: str, salt: str) -> str:
    """Return what `maskwatch password` prints: werkzeug's scrypt hash, in base64 because Compose expands dollars."""
    memory = 132 * SCRYPT_N * SCRYPT_R * SCRYPT_P
    key = hashlib.scrypt(password.encode(), salt=salt.encode(), n=SCRYPT_N, r=SCRYPT_R, p=SCRYPT_P, maxmem=memory)
    text = f"scrypt:{SCRYPT_N}:{SCRYPT_R}:{SCRYPT_P}${salt}${key.hex()}"
    return base64.urlsafe_b64encode(text.encode()).decode()


def is_hash_of(text: str, password: str) -> bool:
    """Return whether a hash, as `login_hash` makes them, is this password's; one of another kind is not."""
    try:
        _, salt, _ = base64.urlsafe_b64decode(text).decode().split("$")
    except ValueError:
        return False
    return secrets.compare_digest(login_hash(password, salt).encode(), text.encode())


def read(path: Path) -> dict[str, str]:
    """Return the values in a file; none when there is no file."""
    if not path.exists():
        return {}
    lines = (line.strip() for line in path.read_text().splitlines())
    named = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {name.strip(): value.strip().strip("'\"") for name, _, value in named}


def put(path: Path, values: dict[str, str]) -> None:
    """Set values in a file that its owner alone may read from then on; its other lines stay as they are."""
    lines = path.read_text().splitlines() if path.exists() else []
    kept = [line for line in lines if line.partition("=")[0].strip() not in values]
    new = path.resolve().with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.writelines(f"{line}\n" for line in [*kept, *(f"{name}={value}" for name, value in values.items())])
    new.replace(path.resolve())


if __name__ == "__main__":
    sys.exit(main())
