"""Make the certificates with which other hosts reach this host's Redis over TLS.

In: the names and addresses by which other hosts call this one. Out: `certificates/ca.pem`, which those hosts need, and
the lines REDIS_TLS_KEY and REDIS_TLS_CERTIFICATE in .env. An existing certificate authority (CA) is kept, so that the
other hosts need nothing new when this runs again for other names or for an expired certificate. Needs openssl.

    python3 scripts/make_certificates.py [--env FILE] [--folder FOLDER] NAME...
"""

from __future__ import annotations

import argparse
import base64
import ipaddress
import os
import re
import secrets
import subprocess
import sys
import tempfile
from pathlib import Path

from make_env import ROOT, put

AUTHORITY_DAYS = 3650
CERTIFICATE_DAYS = 825  # the longest that strict clients accept
KEY = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")


class CertificateError(Exception):
    """A certificate cannot be made; the message says why."""


def main() -> int:
    """Make the files; return 0, or 1 after one line on stderr when that fails."""
    usage = argparse.ArgumentParser(description="Make certificates with which other hosts reach this one's Redis.")
    usage.add_argument("names", nargs="+", metavar="NAME", help="a name or address by which other hosts call this one")
    usage.add_argument("--env", type=Path, default=ROOT / ".env", help="default: .env of this repository")
    usage.add_argument("--folder", type=Path, default=ROOT / "certificates", help="default: certificates/")
    arguments = usage.parse_args()
    os.umask(0o077)
    try:
        subject = ",".join(map(subject_of, arguments.names))
        make_authority(arguments.folder)
        put(arguments.env, certificate(arguments.folder, subject))
    except (OSError, CertificateError, UnicodeDecodeError) as error:
        print(f"make_certificates.py: {error}", file=sys.stderr)
        return 1
    print(f"{arguments.folder / 'ca.pem'} is for the other hosts; keep {arguments.folder / 'ca.key'} secret")
    print(f"{arguments.env} has Redis' certificate for {', '.join(arguments.names)}, for {CERTIFICATE_DAYS} days")
    return 0


def subject_of(name: str) -> str:
    """Return a host name or address in the form of certificates.

    Raises:
        CertificateError: it is neither.
    """
    try:
        return f"IP:{ipaddress.ip_address(name)}"
    except ValueError:
        if not NAME.fullmatch(name):
            raise CertificateError(f"{name!r} is neither a host name nor an address") from None
        return f"DNS:{name}"


def make_authority(folder: Path) -> None:
    """Make a certificate authority (CA), unless there is one, in a folder that git ignores."""
    folder.mkdir(exist_ok=True)
    (folder / ".gitignore").write_text("*\n")
    if not (folder / "ca.pem").exists():
        usage = f"-addext keyUsage=critical,keyCertSign,cRLSign -days {AUTHORITY_DAYS}"
        openssl(folder, f"req -x509 {KEY} {usage} -subj /CN=maskwatch -keyout ca.key -out ca.pem")
        (folder / "ca.pem").chmod(0o644)


def certificate(folder: Path, subject: str) -> dict[str, str]:
    """Return a new key and its certificate as variables of .env."""
    with tempfile.TemporaryDirectory() as made:
        authority = ("-CA", folder.resolve() / "ca.pem", "-CAkey", folder.resolve() / "ca.key")
        Path(made, "extensions").write_text(
            f"subjectAltName={subject}\nextendedKeyUsage=serverAuth\nauthorityKeyIdentifier=keyid\n"
        )
        openssl(Path(made), f"req {KEY} -subj /CN=redis -keyout key -out request")
        serial = f"-set_serial 0x{secrets.token_hex(16)} -extfile extensions"
        openssl(Path(made), f"x509 -req -in request {serial} -days {CERTIFICATE_DAYS} -out certificate", *authority)
        files = {"REDIS_TLS_KEY": "key", "REDIS_TLS_CERTIFICATE": "certificate"}
        return {name: base64.b64encode(Path(made, file).read_bytes()).decode() for name, file in files.items()}


def openssl(folder: Path, words: str, *more: str | Path) -> None:
    """Run openssl in a folder. words: arguments separated by spaces; more: arguments that may contain spaces.

    Raises:
        CertificateError: openssl is not installed, or fails.
    """
    try:
        command = ["openssl", *words.split(), *more]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise CertificateError("openssl is not installed: install your system's package openssl") from error
    if done.returncode:
        raise CertificateError(f"openssl {words.split()[0]}: {' '.join(done.stderr.split())}")


if __name__ == "__main__":
    sys.exit(main())
