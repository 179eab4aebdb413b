"""Fill a template of Redis' users with the hashes of their passwords: the template in, an ACL file on stdout.

`{camera_sha256}` in it becomes the SHA-256 of the password in REDIS_CAMERA_PASSWORD, and so for each role;
`{jobs_sha256}` takes JOBS_PASSWORD. A password that is missing, short or cannot stand in a URL is told in one line,
exit status 1. Needs nothing but Python; deploy/redis/start.sh does the same where there is none.

    python3 scripts/redis_users.py deploy/redis/users.acl.template > users.acl
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

MIN_LENGTH = 16  # anybody on the network may try passwords, some hundred thousand a second
IN_URLS = re.compile(r"[A-Za-z0-9._~-]*")  # processes are told their passwords in URLs
PLACEHOLDER = re.compile(r"\{([a-z]+)_sha256\}")


class BadPassword(ValueError):
    """A password is missing, too short or not fit for a URL; the message names its variable and says what to do."""


def main() -> int:
    """Print the ACL file; 0 when all passwords are there."""
    usage = argparse.ArgumentParser(description="Fill a template of Redis' users with the hashes of their passwords.")
    usage.add_argument("template", type=Path, help="for example deploy/redis/users.acl.template")
    try:
        print(filled(usage.parse_args().template.read_text(), os.environ), end="")
    except (BadPassword, OSError, UnicodeDecodeError) as error:
        print(f"redis_users.py: {error}", file=sys.stderr)
        return 1
    return 0


def filled(template: str, environment: Mapping[str, str]) -> str:
    """Return the template without comments, hashes in the places of roles.

    Raises:
        BadPassword: a role's password is missing or does not fit.
    """
    lines = [line for line in template.splitlines() if line.strip() and not line.startswith("#")]
    return "".join(PLACEHOLDER.sub(lambda found: password_sha256(found[1], environment), line) + "\n" for line in lines)


def password_sha256(role: str, environment: Mapping[str, str]) -> str:
    """Return the SHA-256 of a role's password as 64 hexadecimal digits.

    Raises:
        BadPassword: it is missing or does not fit.
    """
    name = "JOBS_PASSWORD" if role == "jobs" else f"REDIS_{role.upper()}_PASSWORD"
    password = environment.get(name, "")
    if len(password) < MIN_LENGTH:
        what = f"has {len(password)} characters, {MIN_LENGTH} are the least" if password else "is not set"
        raise BadPassword(f"{name} {what}: `make env` draws one into .env")
    if not IN_URLS.fullmatch(password):
        what = "holds other characters than letters, digits and . _ ~ -, which cannot stand in a URL"
        raise BadPassword(f"{name} {what}: take its line out of .env, and `make env` draws one")
    return hashlib.sha256(password.encode()).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
