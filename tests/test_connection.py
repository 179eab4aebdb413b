"""Connecting to Redis: errors say what to do, and no message shows a password."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest
import redis
from conftest import missing
from hypothesis import example, given, settings
from hypothesis import strategies as st
from redis.exceptions import ClusterDownError, MovedError, NoPermissionError

from pipeline.bus.cluster import Cluster
from pipeline.bus.connection import (
    UNREADABLE,
    BadUrl,
    Unreachable,
    check_reachable,
    connect,
    describe_error,
    hide_password,
)

# The rest of the URLs below contains none of these characters, so that any shown part of a password is detected.
PASSWORDS = st.text(alphabet="SECRET789@/#?%:&=[], \t\n\u00c4\u2100", min_size=1)

REJECTED = redis.AuthenticationError("invalid username-password pair or user is disabled.")
RESET = redis.ConnectionError("Error while reading from a:1 : (104, 'Connection reset by peer')")


@pytest.mark.parametrize(
    ("error", "scheme", "told", "to_do"),
    [
        (redis.ConnectionError("Error 111 connecting to a:1"), "redis", "no Redis answers at", "start one"),
        (RESET, "rediss", "no Redis answers at", "start one"),
        (RESET, "redis", "closed the connection", "write rediss://"),
        (redis.ConnectionError("Connection closed by server."), "redis", "closed the connection", "write rediss://"),
        (RESET, "redis-cluster", "closed the connection", "write rediss-cluster:// instead of redis-cluster://"),
        (
            redis.ConnectionError("[SSL: CERTIFICATE_VERIFY_FAILED]"),
            "rediss-cluster",
            "is not trusted",
            "?ssl_ca_certs",
        ),
        (MovedError("8 b:2"), "redis", "is a node of a cluster", "write redis-cluster://"),
        (ClusterDownError("The cluster is down"), "redis-cluster", "has no primary for some keys", "start its nodes"),
        (
            redis.ResponseError("This instance has cluster support disabled"),
            "redis-cluster",
            "is no cluster",
            "write redis://",
        ),
        (redis.ConnectionError("[SSL: CERTIFICATE_VERIFY_FAILED]"), "rediss", "is not trusted", "?ssl_ca_certs=FILE"),
        (redis.ConnectionError("No such file or directory."), "rediss", "does not exist", "check ssl_ca_certs"),
        (redis.ResponseError("BUSY Redis is busy running a script."), "redis", "runs a script", "kill the script"),
        (REJECTED, "redis", "rejects the user or the password", "put those of this role into --redis"),
        (
            NoPermissionError("no permissions to run 'get'"),
            "redis",
            "denies this user the command",
            "each role has its own user",
        ),
        (
            redis.ResponseError("ACL failure in script: no"),
            "redis",
            "denies this user the command",
            "each role has its own user",
        ),
    ],
)
def test_an_error_is_described_in_one_line_with_what_to_do(
    error: redis.RedisError, scheme: str, told: str, to_do: str
) -> None:
    line = describe_error(error, f"{scheme}://detector:***@a:1")

    assert told in line
    assert f"{scheme}://detector:***@a:1" in line
    assert str(error).rstrip(".") in line
    assert to_do in line.partition("; ")[2]
    assert "\n" not in line


@settings(deadline=None)
@given(PASSWORDS)
@example("abcd@efgh/ijklmnop#q%zz")
@example("?password=SECRET@7")
def test_no_character_of_a_password_is_shown_whatever_it_holds(password: str) -> None:
    shown = hide_password(f"redis://detector:{password}@redis.lan:6379/0")

    assert shown in ("redis://detector:***@redis.lan:6379/0", "redis://detector:***")


@settings(deadline=None)
@given(PASSWORDS)
@example("SECRET@7")
def test_no_character_of_a_password_that_is_a_parameter_is_shown(password: str) -> None:
    shown = hide_password(f"rtsp://door.lan:554/stream?user=me&password={password}&quality=low")

    assert shown in ("rtsp://door.lan:554/stream?user=me&password=***", "rtsp://door.lan:***")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://user:secret@host:6379/0", "redis://user:***@host:6379/0"),
        ("redis-cluster://user:secret@a:7701,b:7702/0", "redis-cluster://user:***@a:7701,b:7702/0"),
        ("rediss-cluster://a:7701,b:7702/0?password=secret", "rediss-cluster://a:7701,b:7702/0?password=***"),
        ("redis://:secret@[::1]:6379/0?ssl_ca_certs=ca.pem", "redis://:***@[::1]:6379/0?ssl_ca_certs=ca.pem"),
        ("rediss://host/0?ssl_keyfile=key.pem&ssl_password=secret", "rediss://host/0?ssl_keyfile=key.pem&ssl_password=***"),
        ("http://door.lan/video?usr=me&pwd=secret", "http://door.lan/video?usr=me&pwd=***"),
        ("http://door.lan/video?pwd=sec:ret@7", "http://door.lan/video?pwd=***"),
        ("rtsp:/user:secret@door.lan", "rtsp:***@door.lan"),
        ("user:secret@door.lan", "user:***@door.lan"),
        ("rtsp://user@door.lan:554/stream", "rtsp://user@door.lan:554/stream"),
        ("rtsp://host/stream", "rtsp://host/stream"),
        ("holiday@home.mp4", "holiday@home.mp4"),
        ("/videos/12:30@home.mp4", "/videos/12:30@home.mp4"),
        ("demo", "demo"),
    ],
)  # fmt: skip
def test_a_url_is_shown_without_its_passwords(url: str, shown: str) -> None:
    assert hide_password(url) == shown


@pytest.mark.parametrize("scheme", ["redis", "redis-cluster"])
@settings(deadline=None)
@given(password=PASSWORDS)
@example(password="abcd@efgh/ijklmnop#q%zz")
@example(password="SE[CRET")
@example(password="SECRET\u2100")
@example(password="789/@")
@example(password="789,7/@")
def test_a_password_is_parsed_or_rejected_in_one_line_that_does_not_show_it(scheme: str, password: str) -> None:
    try:
        found = connect(f"{scheme}://detector:{password}@redis.lan:6379/0").connection_pool.connection_kwargs
    except BadUrl as error:
        assert str(error) == UNREADABLE
        assert error.__context__ is None or error.__suppress_context__, "what Python says of it quotes it"
    else:
        assert (found["host"], found["username"]) == ("redis.lan", "detector")
        assert found["password"] == password or "%" in password


@pytest.mark.parametrize("scheme", ["redis-cluster", "rediss-cluster"])
def test_the_url_of_a_cluster_names_several_nodes_with_one_user(scheme: str) -> None:
    client = connect(f"{scheme}://detector:se%2Ccret@a:7701,[::1]:7702,c/0?client_name=me")

    assert isinstance(client, Cluster)
    assert client.seeds == [("a", 7701), ("::1", 7702), ("c", 6379)]
    assert client.connection_pool.connection_kwargs["password"] == "se,cret"  # noqa: S105 - made up


@settings(deadline=None)
@given(PASSWORDS)
def test_every_password_can_be_written_percent_encoded(password: str) -> None:
    found = connect(f"redis://detector:{quote(password, safe='')}@redis.lan:6379/0").connection_pool.connection_kwargs

    assert (found["host"], found["password"]) == ("redis.lan", password)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("redis://detector:SECRET", "cannot be parsed as SCHEME://USER:PASSWORD@HOST:PORT/0"),
        ("redis://redis.lan/0?password=SECRET#7", "cannot be parsed as SCHEME://USER:PASSWORD@HOST:PORT/0"),
        ("rediss://redis.lan/0?foo=bar", "rediss://redis.lan/0?foo=bar has an unknown parameter; known are"),
        ("redis://redis.lan/0?ssl_ca_certs=ca.pem", "ssl_ca_certs=ca.pem has an unknown parameter"),
        ("redis://redis.lan/0?password=SEC&RET=1", "redis.lan/0?password=*** has an unknown parameter"),
        ("redis://detector:SECRET@redis.lan:port/0", "cannot be parsed as SCHEME://USER:PASSWORD@HOST:PORT/0"),
        ("redis://redis.lan/0?socket_timeout=-1", "socket_timeout=-1 has an unknown parameter"),
        ("redis://redis.lan/0?db=first", "db=first has an invalid value"),
        ("redis-cluster://detector:SECRET@a:1,b:port/0", "cannot be parsed as SCHEME://USER:PASSWORD@HOST:PORT/0"),
        ("redis-cluster://a:1,b:2/0?password=SEC&RET=1", "redis-cluster://a:1,b:2/0?password=*** has an unknown"),
        ("redis-cluster://a:1,b:2/0?ssl_ca_certs=ca.pem", "ssl_ca_certs=ca.pem has an unknown parameter"),
        ("rediss-cluster://a:1,b:2/0?ssl_cert_reqs=some", "ssl_cert_reqs=some has an invalid value"),
        ("redis-cluster://detector:SECRET@a:1,b:2/1", "redis-cluster://detector:***@a:1,b:2/1 names a database"),
        ("rediss://redis.lan/0?ssl_cert_reqs=some", "ssl_cert_reqs=some has an invalid value"),
        ("redis-cluster://user:se]cret@[v1.x]", "cannot be parsed"),
    ],
)  # fmt: skip
def test_an_unusable_url_is_rejected_in_one_line(url: str, says: str) -> None:
    with pytest.raises(BadUrl) as error:
        connect(url)

    assert says in str(error.value)
    assert not {"SECRET", "SEC", "RET"} & set(str(error.value).replace("&", " ").replace("=", " ").split())
    assert "\n" not in str(error.value)


@dataclass(frozen=True)
class Secured:
    """A TLS server with a certificate for redis.example; files of valid and invalid authorities."""

    port: int
    folder: Path

    def url(self, query: str) -> str:
        return f"rediss://127.0.0.1:{self.port}/0{query.replace('=', f'={self.folder}/')}"


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("tls")
    make_files(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "redis.pem", folder / "redis.key")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        serving = threading.Thread(target=shake_hands, args=(listening, context))
        serving.start()
        yield Secured(listening.getsockname()[1], folder)
        listening.shutdown(socket.SHUT_RDWR)
        serving.join()


@pytest.mark.parametrize(
    ("query", "says", "to_do"),
    [
        ("", "is not trusted", "name its certificate authority (CA) with ?ssl_ca_certs=FILE"),
        ("?ssl_ca_certs=stranger.pem", "is not trusted", "another certificate authority (CA) than that"),
        ("?ssl_ca_certs=ca.pem", "is for another name", "write the name in the certificate into the URL"),
        ("?ssl_ca_certs=empty.pem", "holds no certificate", "name the PEM file of the certificate authority"),
        ("?ssl_ca_certs=redis.key", "holds no certificate", "name the PEM file of the certificate authority"),
        ("?ssl_ca_certs=damaged.pem", "is damaged", "copy it"),
        ("?ssl_ca_certs=none.pem", "does not exist", "check ssl_ca_certs"),
        ("?ssl_ca_certs=.", "is a folder", "for a folder of certificates write ssl_ca_path"),
    ],
)
def test_each_problem_with_certificates_has_its_own_message(
    secured: Secured, query: str, says: str, to_do: str
) -> None:
    url = secured.url(query)

    with pytest.raises(Unreachable) as error:
        check_reachable(connect(url), url)

    told, _, advice = str(error.value).rpartition("; ")
    assert says in told
    assert advice.startswith(to_do)
    assert url in told


def make_files(folder: Path) -> None:
    """Make an authority, its certificate for redis.example, another authority, and invalid files."""
    if shutil.which("openssl") is None:
        missing("there is no openssl on this machine")
    (folder / "san").write_text("subjectAltName=DNS:redis.example\n")
    for words in (
        "req -x509 -newkey rsa:2048 -noenc -subj /CN=ca -keyout ca.key -out ca.pem -days 2",
        "req -x509 -newkey rsa:2048 -noenc -subj /CN=stranger -keyout stranger.key -out stranger.pem -days 2",
        "req -newkey rsa:2048 -noenc -subj /CN=redis -keyout redis.key -out redis.csr",
        "x509 -req -in redis.csr -CA ca.pem -CAkey ca.key -extfile san -out redis.pem -days 2",
    ):
        subprocess.run(["openssl", *words.split()], cwd=folder, check=True, capture_output=True)
    (folder / "empty.pem").touch()
    (folder / "damaged.pem").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")


def shake_hands(listening: socket.socket, context: ssl.SSLContext) -> None:
    """Accept TLS connections until the socket is shut down."""
    with contextlib.suppress(OSError):
        while True:
            came, _ = listening.accept()
            with came, contextlib.suppress(OSError), context.wrap_socket(came, server_side=True):
                pass
