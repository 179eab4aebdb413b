"""Connect to Redis: a URL in, a client out; or BadUrl or Unreachable, one line with the problem and what to do.

The URL of a cluster names one node or several: redis-cluster://USER:PASSWORD@a:7701,b:7702/0. Its client is a Cluster,
which is a redis.Redis, too.

No message shows a password. A URL that cannot be parsed is not shown at all, because it is unknown where in it the
password ends.
"""

from __future__ import annotations

import re
from typing import TypeAlias
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.exceptions import ClusterDownError, MovedError, NoPermissionError
from redis.retry import Retry

from pipeline.bus.cluster import Address, Cluster

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
CLUSTER = ("redis-cluster", "rediss-cluster")
UNREADABLE = (
    "this URL cannot be parsed as SCHEME://USER:PASSWORD@HOST:PORT/0 with a number for the port, and for a cluster "
    "with HOST:PORT,HOST:PORT; in user, password and parameters write @ as %40, / as %2F, # as %23, ? as %3F, % as "
    "%25, : as %3A, [ as %5B, ] as %5D, & as %26 and a space as %20"
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
# Redis-py and cameras accept passwords as parameters, too; what looks like the next parameter may belong to it. Some
# cameras want them in the path: /user=me_password=secret_channel=1
_NAMED_PASSWORD = re.compile(
    r"[?&;/_](?:\w{0,30}(?:password|passwd|passwort|pwd|psw|token|secret|credential|signature|loginpas|apikey)"
    r"|(?:\w{1,30}[_-])?(?:pass|pw|key|auth|sig))=",
    re.IGNORECASE,
)


class BadUrl(ValueError):
    """A URL that cannot be used; says why, without its password."""


class Unreachable(Exception):
    """Redis cannot be reached; says at which URL, and what to do."""


def connect(redis_url: str) -> Redis:
    """Return a client that fails fast and never retries a command by itself.

    Raises:
        BadUrl: the URL cannot be used.
    """
    scheme, nodes = _nodes_of(redis_url)
    for node in nodes:
        _check(node, shown=redis_url)
    try:
        clients = [_connect_node(node) for node in nodes]
    except (ValueError, redis.RedisError):  # its text may contain a password
        raise BadUrl(f"a parameter in {hide_password(redis_url)} has an invalid value") from None
    if scheme not in CLUSTER:
        return clients[0]
    if clients[0].connection_pool.connection_kwargs.get("db"):
        raise BadUrl(f"{hide_password(redis_url)} names a database; a cluster has database 0 only")
    seeds = [client.connection_pool.connection_kwargs for client in clients]
    return Cluster(
        [(seed.get("host", "localhost"), seed.get("port", 6379)) for seed in seeds],
        lambda address: _connect_node(_url_at(address, nodes[0])),
    )


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
    if credentials is None or credentials.end(1) > len(shown):  # no colon, or only in the parameter's password
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
    if isinstance(error, MovedError):
        return f"Redis at {location} is a node of a cluster ({text}); write redis-cluster:// or rediss-cluster://"
    if "cluster support disabled" in text:
        return f"Redis at {location} is no cluster ({text}); write redis:// or rediss://"
    if isinstance(error, ClusterDownError):
        return f"the cluster at {location} has no primary for some keys ({text}); start its nodes"
    scheme = location.partition("://")[0]
    if scheme.startswith("rediss"):
        for sign, cause, to_do in TLS_FAULTS:
            if sign in text:
                authority = OTHER_AUTHORITY if "ssl_ca_" in location else NAME_AUTHORITY
                return f"{cause.format(location=location)} ({text}); {to_do.format(authority=authority)}"
    elif scheme.startswith("redis") and ("reset by peer" in text or "closed by server" in text):
        secured = scheme.replace("redis", "rediss")
        return (
            f"Redis at {location} closed the connection ({text}); if it uses TLS, write {secured}:// instead of "
            f"{scheme}://"
        )
    return f"no Redis answers at {location} ({text}); {START_ONE}"


def _connect_node(url: str) -> redis.Redis:
    """Return the client of one server. Checks the values of the parameters without connecting."""
    client = redis.Redis.from_url(
        url,
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        socket_timeout=READ_TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),
        health_check_interval=0,
    )
    client.connection_pool.make_connection()
    return client


def _nodes_of(url: str) -> tuple[str, list[str]]:
    """Return the scheme, and for each server that a URL names its own URL, redis:// or rediss://.

    Raises:
        BadUrl: it cannot be parsed.
    """
    try:
        parts = urlsplit(url)
    except ValueError:  # its text may contain a password
        raise BadUrl(UNREADABLE) from None
    if parts.scheme not in CLUSTER:
        return parts.scheme, [url]
    user, at, hosts = parts.netloc.rpartition("@")
    if "[" in user or "]" in user:  # they might be parsed as those of an address in the URL of another node
        raise BadUrl(UNREADABLE)
    one = parts._replace(scheme=parts.scheme.removesuffix("-cluster"))
    return parts.scheme, [one._replace(netloc=f"{user}{at}{host}").geturl() for host in hosts.split(",")]


def _url_at(address: Address, url: str) -> str:
    """Return the URL of another node, with the user and the parameters of this one."""
    host, port = address
    parts = urlsplit(url)
    user, at, _ = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{user}{at}{f'[{host}]' if ':' in host else host}:{port}").geturl()


def _check(url: str, shown: str) -> None:
    """Check that the URL of one server is parsed as its writer meant it. shown: the URL that the writer wrote.

    Raises:
        BadUrl: part of a password may have been parsed as another part of the URL, or a parameter is unknown.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:  # its text may contain a password
        raise BadUrl(UNREADABLE) from None
    if "@" in parts.path + parts.query or "#" in shown or not shown.isprintable():
        raise BadUrl(UNREADABLE)
    known = PARAMETERS + (TLS_PARAMETERS if parts.scheme == "rediss" else ())
    unknown = [text for text in parts.query.split("&") if text and text.partition("=")[0] not in known]
    if unknown:
        raise BadUrl(f"{hide_password(shown)} has an unknown parameter; known are {', '.join(known)}")
