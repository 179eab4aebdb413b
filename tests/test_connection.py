"""What people are told when Redis cannot be used."""

from __future__ import annotations

import pytest
import redis
from redis.exceptions import NoPermissionError

from pipeline.connection import why

REFUSED = redis.AuthenticationError("invalid username-password pair or user is disabled.")
RESET = redis.ConnectionError("Error while reading from a:1 : (104, 'Connection reset by peer')")


@pytest.mark.parametrize(
    ("error", "scheme", "told", "to_do"),
    [
        (redis.ConnectionError("Error 111 connecting to a:1"), "redis", "no Redis answers at", "start one"),
        (RESET, "rediss", "no Redis answers at", "start one"),
        (RESET, "redis", "hangs up", "write rediss://"),
        (redis.ConnectionError("Connection closed by server."), "redis", "hangs up", "write rediss://"),
        (redis.ConnectionError("[SSL: CERTIFICATE_VERIFY_FAILED]"), "rediss", "is not trusted", "?ssl_ca_certs=FILE"),
        (redis.ConnectionError("No such file or directory."), "rediss", "does not exist", "check ssl_ca_certs"),
        (REFUSED, "redis", "refuses the user or the password", "put those of this role into --redis"),
        (NoPermissionError("no permissions to run 'get'"), "redis", "but not do this", "each role has its own user"),
        (redis.ResponseError("ACL failure in script: no"), "redis", "but not do this", "each role has its own user"),
    ],
)
def test_what_is_wrong_and_what_to_do_are_one_line(error: redis.RedisError, scheme: str, told: str, to_do: str) -> None:
    line = why(error, f"{scheme}://detector:***@a:1")

    assert told in line
    assert f"{scheme}://detector:***@a:1" in line
    assert str(error).rstrip(".") in line
    assert to_do in line.partition("; ")[2]
    assert "\n" not in line
