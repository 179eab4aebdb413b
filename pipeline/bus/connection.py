"""Connect to Redis: a URL in, a client out; or BadUrl or Unreachable, one line with the problem and what to do.

No message shows a password. A URL that cannot be parsed is not shown at all, because it is unknown where in it the
password ends.
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

CONNECT_TIMEOUT_S = 2.0
READ_TIMEOUT_S = 3.0
START_ONE = "start one, or name yours with --redis"
NOT_PERMITTED = (
    "ACL failure in script",
    "The user executing the script can't",
)  # errors inside a script have no class of their own
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
    "this URL cannot be parsed as SCHEME://USER:PASSWORD@HOST:PORT/0 with a number for the port; in user, password and "
    "parameters write @ as %40, / as %2F, # as %23, ? as %3F, % as %25, : as %3A, [ as %5B, ] as %5D, & as %26 and a "
    "space as %20"
)
# Text in Python's or OpenSSL's error when TLS fails, the cause, and what to do; the first match is used.
TLS_FAULTS = (
    (
        "certificate is not valid for",
        "the certificate of Redis at {location} is for another name",
        "write the name in the certificate into the URL, or give Redis a certificate for this name",
    ),
    (
        "certificate has expired",
        "the certificate of Redis at {location}, or that of its certificate authority (CA), has expired",
        "renew it",
    ),
    ("CERTIFICATE_VERIFY_FAILED", "the certificate of Redis at {location} is not trusted", "{authority}"),
    (
        "NO_CERTIFICATE_OR_CRL_FOUND",
        "the file that ssl_ca_certs names in {location} holds no certificate",
        "name the PEM file of the certificate authority (CA) that signed the certificate of Redis",
    ),
    ("[X509] PEM lib", "the file that ssl_ca_certs names in {location} is damaged", "copy it again"),
    ("No such file or directory", "a file that {location} names does not exist", "check ssl_ca_certs"),
    ("Is a directory", "a file that {location} names is a folder", "for a folder of certificates write ssl_ca_path"),
    ("Permission denied", "a file that {location} names may not be read", "let this user read it"),
)
NAME_AUTHORITY = "name its certificate authority (CA) with ?ssl_ca_certs=FILE"
OTHER_AUTHORITY = "another certificate authority (CA) than that of ssl_ca_certs signed it: name that one"

# Hides everything from the first colon after scheme:// to the last @. Without a scheme, only if no slash precedes the
# colon: then it is most likely a file's path.
_CREDENTIALS = re.compile(r"([^:/?#@]*://[^:]*:|[^:/?#@]*:(?!//)).*@", re.DOTALL)
# redis-py and cameras accept passwords as parameters too; what looks like the next parameter may belong to it
_NAMED_PASSWORD = re.compile(r"[?&](?:\w+_)?(?:password|passwd|pass|pwd)=", re.IGNORECASE)


class BadUrl(ValueError):
    """A URL that cannot be used; says why, without its password."""


class Unreachable(Exception):
    """Redis cannot be reached; says at which URL, and what to do."""


def connect(redis_url: str) -> Redis:
    """Return a client that fails fast and never retries a command by itself.

    Raises:
        BadUrl: the URL cannot be used.
    """
    _check(redis_url)
    try:
        client = redis.Redis.from_url(
            redis_url,
            socket_connect_timeout=CONNECT_TIMEOUT_S,
            socket_timeout=READ_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
            health_check_interval=0,
        )
        client.connection_pool.make_connection()  # checks the parameters' values without connecting
    except (ValueError, redis.RedisError):  # its text may contain a password
        raise BadUrl(f"a parameter in {hide_password(redis_url)} has an invalid value") from None
    return client


def check_reachable(client: Redis, redis_url: str) -> None:
    """Check that Redis answers.

    Raises:
        Unreachable: it does not.
    """
    try:
        client.ping()
    except redis.RedisError as error:
        raise Unreachable(describe_error(error, hide_password(redis_url))) from error


def hide_password(url: str) -> str:
    """Return a URL, valid or not, without the passwords in it; in doubt more than the password is hidden."""
    named = _NAMED_PASSWORD.search(url)
    shown, rest = (url[: named.end()], "***") if named else (url, "")
    credentials = _CREDENTIALS.match(url)
    if credentials is None:
        return shown + rest
    if credentials.end() > len(shown):
        return f"{credentials[1]}***"
    return f"{credentials[1]}***@{shown[credentials.end() :]}{rest}"


def describe_error(error: redis.RedisError, location: str) -> str:
    """Return what is wrong with Redis and what to do, in one line. location: its URL without the password."""
    text = str(error).rstrip(".")
    if isinstance(error, redis.AuthenticationError):
        return (
            f"Redis at {location} rejects the user or the password ({text}); put those of this role into --redis, "
            "percent-encoding all characters but letters and digits"
        )
    if isinstance(error, NoPermissionError) or any(sign in text for sign in NOT_PERMITTED):
        return f"Redis at {location} denies this user the command ({text}); each role has its own user"
    if "busy running a script" in text:
        return f"Redis at {location} runs a script that does not end ({text}); kill the script, or restart Redis"
    if location.startswith("rediss://"):
        for sign, cause, to_do in TLS_FAULTS:
            if sign in text:
                authority = OTHER_AUTHORITY if "ssl_ca_" in location else NAME_AUTHORITY
                return f"{cause.format(location=location)} ({text}); {to_do.format(authority=authority)}"
    elif location.startswith("redis://") and ("reset by peer" in text or "closed by server" in text):
        return (
            f"Redis at {location} closed the connection ({text}); if it uses TLS, write rediss:// instead of redis://"
        )
    return f"no Redis answers at {location} ({text}); {START_ONE}"


def _check(url: str) -> None:
    """Check that a URL is parsed as its writer meant it.

    Raises:
        BadUrl: part of a password may have been parsed as another part of the URL, or a parameter is unknown.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:  # its text may contain a password
        raise BadUrl(UNREADABLE) from None
    if "@" in parts.path + parts.query or "#" in url or not url.isprintable():
        raise BadUrl(UNREADABLE)
    known = PARAMETERS + (TLS_PARAMETERS if parts.scheme == "rediss" else ())
    unknown = [text for text in parts.query.split("&") if text and text.partition("=")[0] not in known]
    if unknown:
        raise BadUrl(f"{hide_password(url)} has an unknown parameter; known are {', '.join(known)}")
