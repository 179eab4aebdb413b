"""Settings, URLs and sources that users write: each is used or rejected in one line, which shows no password."""

from __future__ import annotations

import contextlib
import io
import tempfile
import urllib.parse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any

import hypothesis.strategies as st
import redis

from bench.fuzz.mutate import ODD_TEXTS, arbitrary_bytes, mutated_bytes, mutated_text
from bench.fuzz.rounds import BrokenPromise, Round, examples, noting
from commands.up import parsed_cameras
from pipeline.bus.connection import BadUrl, connect, describe_error, hide_password
from pipeline.runtime.settings import BadSettings, Settings, read_settings_file, settings_from
from producer.sources.source import SourceFailed
from producer.sources.source_spec import parse_source

# Parts of a password, with odd characters between them; none of them is part of anything else in a URL or message.
SECRETS = ("Zq9xV", "K7vWj")
REDIS_SCHEMES = ("redis", "rediss", "unix", "redis-cluster", "rediss-cluster", "REDIS", "http", "")
CAMERA_SCHEMES = ("rtsp", "rtsps", "http", "https", "RTSP", "ftp", "rtmp", "")
HOSTS = ("10.0.0.1", "a.lan:7701", "[::1]:6379", "a:1,b:2", "localhost:99999", "/run/redis.sock", "", "[v1.x]", "h:x")
TAILS = (
    "",
    "/0",
    "/1",
    "/x",
    "/stream?a=b",
    "?db=1",
    "?db=x",
    "#f",
    "/?ssl_ca_certs=/f",
    "?client_name=c",
    "?timeout=5",
)
PARAMETERS = ("password", "PASSWORD", "pwd", "passwd", "ssl_password", "pass", "rtsp_pass")
TOML = (
    'redis_url = "redis://10.0.0.1:6379/0"\nfps = 12.5\nport = 8000\nlog_json = true\n',
    'models = "registry/"\nname = "door"\nmax_wait_ms = 5\norigins = """https://a.example"""\n',
    "[table]\nkey = {a = [1, 2.5, 1979-05-27T07:32:00Z]}\n[[list]]\nx = 0xff\n",
)
SOURCES = (
    *("0", "demo", "demo:numbered,frames=200", "film.mp4", "/dev/video0", "~/pictures", "rtsp://camera.lan/stream"),
    *("http://a:80/x.mjpg", ".", "/tmp", "~root", "demo:frames=0", "file:///etc/passwd"),  # noqa: S108 -- a folder
)

odd = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=40), st.binary(max_size=9), st.dates(),
    st.datetimes(), st.times(), st.lists(st.integers(), max_size=2), st.dictionaries(st.text(max_size=3), st.none()),
    st.sampled_from(ODD_TEXTS), st.sampled_from(["door", "yunet", "info", "auto", 10**30, "redis://h", "1", "true"]),
)  # fmt: skip
names = st.sampled_from([*Settings.__struct_fields__, "other", ""]) | st.text(max_size=5)
written = st.dictionaries(names, odd, max_size=4)


@contextmanager
def ready() -> Iterator[Round]:
    """Yield the round, with a folder for settings files."""
    with tempfile.TemporaryDirectory() as folder:
        yield lambda random: one_round(random, Path(folder))


def one_round(random: Random, folder: Path) -> int:
    """Check settings, files, URLs and sources; return how many."""
    for _ in range(50):
        content = arbitrary_bytes(random) if random.random() < 0.1 else _toml(random)
        with noting(content):
            check_file(folder / "maskwatch.toml", content)
        password = _password(random)
        for schemes, check in ((REDIS_SCHEMES, check_redis_url), (CAMERA_SCHEMES, check_source)):
            url = _url(random, schemes, password)
            with noting((password, url)):
                check(url)
        text = mutated_text(random, random.choice(SOURCES), SOURCES)
        with noting(text):
            check_source(text)
    return 200 + examples(written, check_settings, random)


def check_settings(values: dict[str, Any]) -> None:
    """Check values as click and a file give them."""
    with suppress(BadSettings):
        settings_from(values)


def check_file(path: Path, content: bytes) -> None:
    """Check a settings file."""
    path.write_bytes(content)
    with suppress(BadSettings):
        read_settings_file(path)


def check_redis_url(url: str) -> None:
    """Check a URL of Redis, and each message that may show it."""
    shown = hide_password(url)
    _check_line(shown)
    _check_line(describe_error(redis.ConnectionError("refused"), shown))
    try:
        settings_from({"redis_url": url})
    except BadSettings as error:
        _check_line(str(error))
    try:
        connect(url).close()
    except BadUrl as error:
        _check_line(str(error))


def check_source(text: str) -> None:
    """Check the text of a source, alone and as a camera of `up`."""
    try:
        spec = parse_source(text)
        _check_line(spec.name)
        _check_line(repr(spec))
    except SourceFailed as error:
        _check_line(str(error))
    for camera in (text, f"door={text}"):
        said = io.StringIO()
        with contextlib.redirect_stderr(said), suppress(SystemExit):
            parsed_cameras([camera])
        _check_line(said.getvalue())


def _check_line(text: str) -> None:
    """Check that a text for people shows no part of a password."""
    if any(part in urllib.parse.unquote(text) for part in SECRETS):
        raise BrokenPromise(f"shows the password: {text!r}")


def _password(random: Random) -> str:
    """Return a password with odd characters at its ends and in its middle."""
    odd_parts = [random.choice((*ODD_TEXTS[:40], "ä", "$", "~", "!", "+")) for _ in range(3)]
    return odd_parts[0] + SECRETS[0] + odd_parts[1] + SECRETS[1] + odd_parts[2]


def _url(random: Random, schemes: Sequence[str], password: str) -> str:
    """Return a URL with the password as users write it: as it is, or percent-encoded, or as a parameter."""
    scheme, host, tail = random.choice(schemes), random.choice(HOSTS), random.choice(TAILS)
    secret = urllib.parse.quote(password, safe="", errors="surrogatepass") if random.random() < 0.5 else password
    slashes = random.choice(("://",) * 8 + (":/", ":"))
    user = random.choice(("", "user", "a%40b", "ü"))
    if random.random() < 0.3:
        parameter = f"{random.choice(PARAMETERS)}={secret}"
        return f"{scheme}{slashes}{host}{tail}{'&' if '?' in tail else '?'}{parameter}{random.choice(('', '&db=0'))}"
    return f"{scheme}{slashes}{user}:{secret}@{host}{tail}"


def _toml(random: Random) -> bytes:
    match random.randrange(8):
        case 0:
            return f"port = {'9' * random.randrange(1, 9000)}".encode()
        case 1:
            return f"name = {'[' * random.randrange(2000)}{']' * random.randrange(2000)}".encode()
        case 2:
            return f'"{random.choice(ODD_TEXTS)}" = {random.random()}'.encode(errors="surrogatepass")
        case _:
            return mutated_bytes(random, random.choice(TOML).encode(), [text.encode() for text in TOML])
