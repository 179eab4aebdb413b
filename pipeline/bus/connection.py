"""Reach Redis: a URL in, a client out; or BadUrl or Unreachable, one line that says what is wrong and what to do.

No line shows a password, whatever stands in it: a URL that cannot be read is not shown at all, because nobody knows
where in it the password ends.
"""

from __future__ import annotations

import re
from typing import TypeAlias
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.exceptions import NoPermissionError
from redis.retry import Retry

Redis: TypeAlias = redis.Redis

CONNECT_S = 2.0
READ_S = 3.0
START_ONE = "start one, or name yours with --redis"
NOT_PERMITTED = ("ACL failure in script", "The user executing the script can't")  # inside a script errors have no class
PARAMETERS = ("db", "username", "password", "client_name")
TLS_PARAMETERS = (
    "ssl_ca_certs",
    "ssl_ca_path",
    "ssl_certfile",
    "ssl_keyfile",
    "ssl_password",
    "ssl_cert_reqs",
    "ssl_check_hostname",
    "ssl_ciphers",
)
UNREADABLE = (
    "this URL cannot be read as SCHEME://USER:PASSWORD@HOST:PORT/0 with a number for the port; in user, password and "
    "parameters write @ as %40, / as %2F, # as %23, ? as %3F, % as %25, : as %3A, [ as %5B, ] as %5D, & as %26 and a "
    "space as %20"
)
# What Python and OpenSSL say when TLS fails, what it means, and what to do; the first that fits counts.
TLS_FAULTS = (
    (
        "certificate is not valid for",
        "the certificate of Redis at {place} is for another name",
        "write the name that stands in it into the URL, or give Redis one for this name",
    ),
    (
        "certificate has expired",
        "the certificate of Redis at {place}, or that of its authority, has expired",
        "renew it",
    ),
    ("CERTIFICATE_VERIFY_FAILED", "the certificate of Redis at {place} is not trusted", "{authority}"),
    (
        "NO_CERTIFICATE_OR_CRL_FOUND",
        "the file that ssl_ca_certs names in {place} holds no certificate",
        "name the PEM file of the authority that signed the certificate of Redis",
    ),
    ("[X509] PEM lib", "the file that ssl_ca_certs names in {place} is damaged", "copy it from the authority again"),
    ("No such file or directory", "a file that {place} names does not exist", "check ssl_ca_certs"),
    ("Is a directory", "a file that {place} names is a folder", "for a folder of certificates write ssl_ca_path"),
    ("Permission denied", "a file that {place} names may not be read", "let this user read it"),
)
NAME_AUTHORITY = "name its authority with ?ssl_ca_certs=FILE"
OTHER_AUTHORITY = "another authority than that of ssl_ca_certs signed it: name that one"

# From the first colon behind scheme:// to the last @, wherever that stands, none may be shown; nor without a scheme,
# where what comes before the colon has no slash, as a file's path mostly has.
_CREDENTIALS = re.compile(r"([^:/?#@]*://[^:]*:|[^:/?#@]*:(?!//)).*@", re.DOTALL)
# redis-py takes passwords there too, and so do cameras; what looks like the next parameter may belong to it
_NAMED_PASSWORD = re.compile(r"[?&](?:\w+_)?(?:password|passwd|pass|pwd)=", re.IGNORECASE)


class BadUrl(ValueError):
    """A URL that cannot be used; the message says why, without its password."""


class Unreachable(Exception):
    """Redis cannot be reached; the message says where it was looked for and what to do."""


def connect(redis_url: str) -> Redis:
    """Return a client that fails fast and never sends a command twice by itself.

    Raises:
        BadUrl: the URL cannot be used.
    """
    _check(redis_url)
    try:
        client = redis.Redis.from_url(
            redis_url,
            socket_connect_timeout=CONNECT_S,
            socket_timeout=READ_S,
            retry=Retry(NoBackoff(), 0),
            health_check_interval=0,
        )
        client.connection_pool.make_connection()  # looks at the parameters' values, and connects to nothing
    except (ValueError, redis.RedisError):  # its text may quote a password
        raise BadUrl(f"a parameter in {hide_password(redis_url)} has a value that does not fit") from None
    return client


def check_reachable(client: Redis, redis_url: str) -> None:
    """Make sure that Redis answers.

    Raises:
        Unreachable: it does not; says where it was looked for.
    """
    try:
        client.ping()
    except redis.RedisError as error:
        raise Unreachable(why(error, hide_password(redis_url))) from error


def hide_password(url: str) -> str:
    """Return a URL, or what was meant as one, without the passwords in it; rather too little of it than too much."""
    named = _NAMED_PASSWORD.search(url)
    shown, rest = (url[: named.end()], "***") if named else (url, "")
    credentials = _CREDENTIALS.match(url)
    if credentials is None:
        return shown + rest
    if credentials.end() > len(shown):
        return f"{credentials[1]}***"
    return f"{credentials[1]}***@{shown[credentials.end() :]}{rest}"


def why(error: redis.RedisError, place: str) -> str:
    """Return what is wrong with Redis, and what to do.

    Args:
        place: its URL without the password.
    """
    text = str(error).rstrip(".")
    if isinstance(error, redis.AuthenticationError):
        return (
            f"Redis at {place} refuses the user or the password ({text}); put those of this role into --redis, "
            "what is neither letter nor digit percent-encoded"
        )
    if isinstance(error, NoPermissionError) or any(sign in text for sign in NOT_PERMITTED):
        return f"Redis at {place} lets this user in, but not do this ({text}); each role has its own user"
    if "busy running a script" in text:
        return f"Redis at {place} runs a script that does not end ({text}); end that, or start Redis anew"
    if place.startswith("rediss://"):
        for sign, what, to_do in TLS_FAULTS:
            if sign in text:
                authority = OTHER_AUTHORITY if "ssl_ca_" in place else NAME_AUTHORITY
                return f"{what.format(place=place)} ({text}); {to_do.format(authority=authority)}"
    elif place.startswith("redis://") and ("reset by peer" in text or "closed by server" in text):
        return f"Redis at {place} hangs up ({text}); if it speaks TLS, write rediss:// instead of redis://"
    return f"no Redis answers at {place} ({text}); {START_ONE}"


def _check(url: str) -> None:
    """Make sure that a URL means what its writer meant.

    Raises:
        BadUrl: a password may have been taken for another part of it, or a parameter is not known.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:  # its text may quote a password
        raise BadUrl(UNREADABLE) from None
    if "@" in parts.path + parts.query or "#" in url or not url.isprintable():
        raise BadUrl(UNREADABLE)
    known = PARAMETERS + (TLS_PARAMETERS if parts.scheme == "rediss" else ())
    unknown = [text for text in parts.query.split("&") if text and text.partition("=")[0] not in known]
    if unknown:
        raise BadUrl(f"{hide_password(url)} has a parameter that is not known; known are {', '.join(known)}")
