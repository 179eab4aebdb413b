"""The settings as one frozen record, from flags > environment > TOML file > defaults, with one validator for all four.

`setting_options("fps")` returns the click options of fields: flag, MASKWATCH_ variable, default and help come from the
record below. An invalid value raises `BadSettings` with the flag's name and the valid values.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import click
import msgspec
from msgspec import Meta, Struct

from pipeline.bus.messages import MAX_RELABEL_S, CameraName

RedisUrl = Annotated[str, Meta(pattern=r"\A(rediss?(-cluster)?|unix)://.+\Z")]
Shards = Annotated[int, Meta(ge=1, le=36)]  # as many as pipeline.bus.shards has tags
Workers = Annotated[int, Meta(ge=1, le=64)]
MaxBatch = Annotated[int, Meta(ge=1, le=512)]
Port = Annotated[int, Meta(ge=0, le=65_535)]
HwAccel = Annotated[str, Meta(pattern=r"\A[a-z0-9]{1,32}\Z")]
InputPx = Annotated[int, Meta(ge=64, le=4096, multiple_of=32)]
RelabelS = Annotated[float, Meta(ge=0, le=MAX_RELABEL_S)]
Score = Annotated[float, Meta(gt=0, lt=1)]
SessionKey = Annotated[str, Meta(min_length=32)]
BasePath = Annotated[str, Meta(pattern=r"\A(/[A-Za-z0-9][A-Za-z0-9._~-]*)*/?\Z")]
Token = Annotated[str, Meta(min_length=16)]
Command = TypeVar("Command", bound=Callable[..., Any])


class BadSettings(ValueError):
    """An invalid setting; names it and its valid values."""


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings. Each process reads the fields that it needs."""

    redis_url: Annotated[
        RedisUrl | None, Meta(description="Redis or Valkey, redis:// rediss:// unix:// or redis-cluster://")
    ] = None
    jobs_redis: Annotated[RedisUrl | None, Meta(description="persistent Redis of training jobs; default: --redis")] = (
        None
    )
    shards: Annotated[
        Shards | None, Meta(description="parts of the data in Redis; default: what Redis holds, or 1")
    ] = None
    log_json: Annotated[bool, Meta(description="log JSON lines")] = False
    log_level: Annotated[Literal["debug", "info", "warning"], Meta(description="minimum level to log")] = "info"
    metrics_port: Annotated[Port | None, Meta(description="port of the metrics; without a token on loopback only")] = (
        None
    )
    parent_fd: Annotated[int | None, Meta(description="end when this pipe closes")] = None

    name: Annotated[CameraName | None, Meta(description="the camera's name: a-z 0-9 -, at most 32")] = None
    fps: Annotated[float, Meta(gt=0, le=240, description="maximum frame rate to publish")] = 20.0
    deadline_s: Annotated[float, Meta(gt=0, le=60, description="a live frame older than this is dropped")] = 1.0
    relabel_s: Annotated[
        RelabelS | None,
        Meta(
            description="a face that has not changed is classified again after this time; 0: in every frame; "
            "default: 0.25 for cameras, 0 for files"
        ),
    ] = None
    jpeg_quality: Annotated[
        int, Meta(ge=10, le=100, description="JPEG quality for frames that are not JPEG already")
    ] = 90
    rtsp_transport: Annotated[
        Literal["auto", "tcp", "udp"],
        Meta(description="transport of RTSP cameras; auto: TCP, or UDP where the camera rejects TCP"),
    ] = "auto"
    hwaccel: Annotated[
        HwAccel,
        Meta(description="what decodes network cameras: none for the CPU, auto, or a device of FFmpeg's such as cuda"),
    ] = "none"
    loop: Annotated[bool, Meta(description="restart a file when it ends")] = True
    shared_memory: Annotated[
        bool, Meta(description="pass pixels to workers of this machine in memory, not as JPEG through Redis")
    ] = True
    seed: Annotated[int, Meta(ge=0, description="seed of all random numbers")] = 0

    detector: Annotated[Literal["yunet", "dnn", "haar"], Meta(description="how faces are detected")] = "yunet"
    detector_px: Annotated[
        InputPx | None,
        Meta(description="longer side of scaled frames, larger for distant faces; default: the detector's"),
    ] = None
    score_threshold: Annotated[Score | None, Meta(description="minimum score of a face; default: the detector's")] = (
        None
    )
    threads: Annotated[int, Meta(ge=1, le=64, description="threads per worker; more workers scale better")] = 1

    models: Annotated[
        str | None,
        Meta(description="a registry of models, or a model's folder; a folder or URL; default: built in"),
    ] = None
    model: Annotated[
        Literal["lite", "resnet18-half"] | None, Meta(description="a built-in classifier; default: lite")
    ] = None
    runtime: Annotated[
        Literal["auto", "onnx", "cuda", "keras"],
        Meta(description="runtime of the classifier; auto: cuda on an NVIDIA GPU, else onnx, on the CPU"),
    ] = "auto"
    max_batch: Annotated[
        MaxBatch | None,
        Meta(description="maximum crops in a batch; default: what one model call takes, 16, on a GPU 128"),
    ] = None
    max_wait_ms: Annotated[float, Meta(ge=0, le=1000, description="how long to wait for a fuller batch")] = 0.0

    host: Annotated[str, Meta(description="address the viewer listens on")] = "127.0.0.1"
    port: Annotated[Port, Meta(description="port the viewer listens on; 0 chooses a free one")] = 8000
    password_hash: Annotated[
        str | None,
        Meta(description="hash of the viewer's password (`maskwatch password`); without it only loopback is served"),
    ] = None
    session_key: Annotated[SessionKey | None, Meta(description="signs sessions; default: random at each start")] = None
    origins: Annotated[str | None, Meta(description="additional allowed origins, comma-separated")] = None
    base_path: Annotated[
        BasePath | None, Meta(description="path of the page behind a proxy, for example /maskwatch; default: /")
    ] = None
    tokens: Annotated[
        str | None, Meta(description="file of the API's tokens; default: ~/.config/maskwatch/tokens.json")
    ] = None
    access_log: Annotated[
        str | None, Meta(description="file of who looked at what, as JSON lines; - for standard output; default: none")
    ] = None
    label_redis: Annotated[
        RedisUrl | None, Meta(description="Redis as a user who may publish pictures to label; default: --redis")
    ] = None
    metrics_token: Annotated[Token | None, Meta(description="bearer token that readers of metrics must send")] = None
    max_viewers: Annotated[int, Meta(ge=1, le=120, description="maximum number of browsers and MJPEG streams")] = 100

    rules: Annotated[
        str | None, Meta(description="TOML file of the rules of events; default: no mask for 5 s, camera offline")
    ] = None
    database: Annotated[
        str | None,
        Meta(description="database of events, sqlite:///FILE or postgresql://; default: in the user's data folder"),
    ] = None
    keep_days: Annotated[float, Meta(gt=0, le=36_500, description="how long events and counts are kept")] = 90.0
    keep_mb: Annotated[float, Meta(ge=1, description="size above which the oldest events are removed")] = 1_000.0
    thumbnails: Annotated[
        Literal["none", "blurred", "plain"],
        Meta(description="a small picture of each event about faces; blurred: no face in it can be recognized"),
    ] = "none"
    record: Annotated[bool, Meta(description="record events")] = True

    detectors: Annotated[Workers | None, Meta(description="detection workers to start")] = None
    classifiers: Annotated[Workers | None, Meta(description="classification workers to start")] = None


URLS = ("redis_url", "jobs_redis", "label_redis")  # the fields with a URL of Redis
_FLAGS = {"redis_url": "--redis"}
_CLICK_TYPES = {"integer": click.INT, "number": click.FLOAT, "string": click.STRING}  # by type in JSON Schema
_FIELDS: dict[str, dict[str, Any]] = msgspec.json.schema(Settings)["$defs"]["Settings"]["properties"]


def _option(name: str) -> Callable[[Command], Command]:
    field, flag = _FIELDS[name], flag_of(name)
    kind, default = field.get("anyOf", [field])[0], field["default"]  # the other kind of an optional field is null
    shared: dict[str, Any] = {"default": default, "envvar": f"MASKWATCH_{name.upper()}", "help": field["description"]}
    if name == "parent_fd":
        shared |= {"hidden": True, "envvar": None}
    if kind.get("type") == "boolean":
        return click.option(f"{flag}/--no-{flag[2:]}", name, show_default=True, **shared)
    parsed = click.Choice(kind["enum"]) if "enum" in kind else _CLICK_TYPES[kind["type"]]
    return click.option(flag, name, type=parsed, show_default=default is not None, **shared)


def flag_of(name: str) -> str:
    """Return the flag that sets a field."""
    return _FLAGS.get(name, "--" + name.replace("_", "-"))


def setting_options(*names: str) -> Callable[[Command], Command]:
    """Return a decorator that adds the click options of some fields of Settings."""

    def add(command: Command) -> Command:
        for name in reversed(names):
            command = _option(name)(command)
        return command

    return add


def settings_from(values: dict[str, Any]) -> Settings:
    """Return the record of the values that click has collected.

    Raises:
        BadSettings: a value is invalid.
    """
    try:
        return msgspec.convert(values, Settings)
    except (msgspec.ValidationError, UnicodeEncodeError) as error:
        text, _, path = str(error).partition(" - at `$.")
        name = path.rstrip("`")
        if name not in _FIELDS:
            raise BadSettings(text) from error
        if "matching regex" in text and name in URLS:  # a URL may hold a password
            text = "does not begin with redis://, rediss://, unix://, redis-cluster:// or rediss-cluster://"
        elif "matching regex" in text:
            text = f"{values[name]!r} is invalid; {_FIELDS[name]['description']}"
        raise BadSettings(f"{flag_of(name)}: {text}") from error


def read_settings_file(path: Path) -> dict[str, Any]:
    """Return the settings in a TOML file.

    Raises:
        BadSettings: it cannot be read, is not TOML, or names a setting that does not exist.
    """
    try:
        values = tomllib.loads(path.read_text())
        if unknown := sorted(values.keys() - _FIELDS.keys()):
            raise BadSettings("; ".join(map(_no_setting, unknown)))
        settings_from(values)
    except (OSError, ValueError, RecursionError) as error:  # ValueError: also for a number of too many digits
        raise BadSettings(f"settings file {path}: {error}") from error
    return values


def _no_setting(name: str) -> str:
    """Return that a name is no setting, and which one is called almost so, by itself or by its flag."""
    import difflib  # only here: commands start fast

    names = {flag_of(field)[2:].replace("-", "_"): field for field in _FIELDS} | {field: field for field in _FIELDS}
    similar = difflib.get_close_matches(name.replace("-", "_"), names, n=1)
    return f"there is no setting {name}" + (f"; do you mean {names[similar[0]]}?" if similar else "")
