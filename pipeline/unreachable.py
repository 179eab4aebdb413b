"""Say in one line why Redis cannot be used, and what to do: what redis-py raised in, a sentence for people out."""

from __future__ import annotations

import redis
from redis.exceptions import NoPermissionError

START_ONE = "start one, or name yours with --redis"
NOT_PERMITTED = ("ACL failure in script", "The user executing the script can't")  # inside a script errors have no class


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
