"""Reach Redis: a URL in, a client out; or Unreachable, one line that says what is wrong and what to do."""

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


class Unreachable(Exception):
    """Redis cannot be reached; the message says where it was looked for and what to do."""


def connect(redis_url: str) -> Redis:
    """Return a client that fails fast and never sends a command twice by itself."""
    return redis.Redis.from_url(
        redis_url,
        socket_connect_timeout=CONNECT_S,
        socket_timeout=READ_S,
        retry=Retry(NoBackoff(), 0),
        health_check_interval=0,
    )


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
    """Return a URL without the passwords in it."""
    parts = urlsplit(url)
    hidden = url
    if parts.password is not None:
        place = parts.netloc.rpartition("@")[2]
        hidden = hidden.replace(f"//{parts.netloc}", f"//{parts.username or ''}:***@{place}", 1)
    # redis-py takes passwords there too
    return re.sub(r"([?&](?:ssl_)?password)=[^&#]*", r"\1=***", hidden)


def why(error: redis.RedisError, place: str) -> str:
    """Return what is wrong with Redis, and what to do.

    Args:
        place: its URL without the password.
    """
    text = str(error).rstrip(".")
    if isinstance(error, redis.AuthenticationError):
        return f"Redis at {place} refuses the user or the password ({text}); put those of this role into --redis"
    if isinstance(error, NoPermissionError) or any(sign in text for sign in NOT_PERMITTED):
        return f"Redis at {place} lets this user in, but not do this ({text}); each role has its own user"
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return (
            f"the certificate of Redis at {place} is not trusted ({text}); name its authority with ?ssl_ca_certs=FILE"
        )
    if place.startswith("redis://") and ("reset by peer" in text or "closed by server" in text):
        return f"Redis at {place} hangs up ({text}); if it speaks TLS, write rediss:// instead of redis://"
    if place.startswith("rediss://") and "No such file or directory" in text:
        return f"a file that {place} names does not exist ({text}); check ssl_ca_certs"
    return f"no Redis answers at {place} ({text}); {START_ONE}"
