"""Answer the challenge of a web server (RFC 7617 basic, RFC 7616 digest): its headers and a password in, ours out."""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

_PARAMETER = re.compile(r'(\w+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
_HASHES = {"md5": hashlib.md5, "sha-256": hashlib.sha256, "sha-512-256": lambda text: hashlib.new("sha512_256", text)}
_NO_QOP = ("", "auth")  # what a challenge may ask for; auth-int would hash the body, which no camera asks for

Authorize = Callable[[str, str], str]


@dataclass(slots=True, kw_only=True)
class Digest:
    """The answers to one digest challenge; `count` numbers them, as the server expects."""

    user: str
    password: str = field(repr=False)
    parameters: dict[str, str]
    count: int = 0

    def authorize(self, method: str, target: str) -> str:
        """Return the Authorization header for a request. target: path and query."""
        self.count += 1
        realm, nonce = self.parameters.get("realm", ""), self.parameters.get("nonce", "")
        secret = self._hash(f"{self.user}:{realm}:{self.password}")
        fields = {"username": self.user, "realm": realm, "nonce": nonce, "uri": target}
        plain: dict[str, str] = {}
        client_nonce = secrets.token_hex(8)
        if self.parameters.get("algorithm", "").lower().endswith("-sess"):
            secret = self._hash(f"{secret}:{nonce}:{client_nonce}")
        salt = nonce
        if self.parameters.get("qop"):
            plain = {"qop": "auth", "nc": f"{self.count:08x}"}
            fields["cnonce"] = client_nonce
            salt = f"{nonce}:{plain['nc']}:{client_nonce}:auth"
        fields["response"] = self._hash(f"{secret}:{salt}:{self._hash(f'{method}:{target}')}")
        fields |= {name: self.parameters[name] for name in ("opaque",) if name in self.parameters}
        plain |= {name: self.parameters[name] for name in ("algorithm",) if name in self.parameters}
        quoted = [f'{name}="{value}"' for name, value in fields.items()]
        return "Digest " + ", ".join(quoted + [f"{name}={value}" for name, value in plain.items()])

    def _hash(self, text: str) -> str:
        return _HASHES[_algorithm(self.parameters)](text.encode()).hexdigest()


def authorizer(challenges: Sequence[str], user: str, password: str) -> Authorize | None:
    """Return what makes the Authorization header of a request from its method and target.

    Args:
        challenges: the values of the WWW-Authenticate headers.

    Returns:
        The strongest answer that is known; None when no challenge can be answered.
    """
    for challenge in challenges:
        begin = challenge.lower().find("digest ")
        parameters = _parameters(challenge[begin:]) if begin >= 0 else {}
        if parameters and _algorithm(parameters) in _HASHES and _can_answer(parameters.get("qop", "")):
            return Digest(user=user, password=password, parameters=parameters).authorize
    if any("basic" in challenge.lower() for challenge in challenges):
        token = base64.b64encode(f"{user}:{password}".encode()).decode()
        return lambda _method, _target: f"Basic {token}"
    return None


def _parameters(challenge: str) -> dict[str, str]:
    found = _PARAMETER.finditer(challenge)
    return {match[1].lower(): match[2] if match[2] is not None else match[3] for match in found}


def _algorithm(parameters: dict[str, str]) -> str:
    return parameters.get("algorithm", "MD5").lower().removesuffix("-sess")


def _can_answer(qop: str) -> bool:
    return any(option.strip().lower() in _NO_QOP for option in qop.split(","))
