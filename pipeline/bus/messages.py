"""Every record that crosses a process border, and the stream or key it travels on.

Records are MessagePack maps made by msgspec: frozen, typed, and checked on arrival. What does not fit raises
`BadMessage`; it is never half-read. Times are Unix seconds on Redis' clock (`pipeline.bus.clock.Clock`). Boxes are
x1, y1, x2, y2 in pixels of the full frame.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from pipeline.vision.faces import MAX_FACES, Box, Label

FRAMES = "frames"
FACES = "faces"
RESULTS = "results"
DEAD = "dead"

CAMERAS = "cameras"  # sorted set of camera names, scored by when their producer was last seen
PROCESSES = "processes"  # sorted set of process ids, scored by their last heartbeat
MODEL = "model"  # announces the current model version, its crop size and margin

CAMERA_PATTERN = r"\A[a-z0-9-]{1,32}\Z"
FILE_PREFIX = "file-"  # cameras that are runs of `maskwatch label`

Reason = Literal["source_full", "memory", "stale", "expired", "pixels_gone", "dead"]
REASONS: tuple[Reason, ...] = ("source_full", "memory", "stale", "expired", "pixels_gone", "dead")

CameraName = Annotated[str, Meta(pattern=CAMERA_PATTERN)]
FrameId = Annotated[str, Meta(pattern=r"\A[a-z0-9-]{1,32}:[0-9]{1,16}:[0-9]{1,12}\Z")]
PixelsKey = Annotated[str, Meta(pattern=r"\Apixels:[a-z0-9:-]{1,80}\Z")]
CropsKey = Annotated[str, Meta(pattern=r"\Acrops:[a-z0-9:-]{1,80}\Z")]
Count = Annotated[int, Meta(ge=0)]
Side = Annotated[int, Meta(ge=1, le=65_535)]
Share = Annotated[float, Meta(ge=0, le=1)]


class BadMessage(ValueError):
    """What arrived is not the record that belongs on this stream."""


class Identity(Struct, frozen=True, kw_only=True):
    """Which frame a record is about, and its times.

    start: when its producer started, Unix milliseconds, so that a restarted camera's frames do not collide.
    attempt: 0, or how often a complete-mode sender has sent this frame again.
    deadline_at: None in complete mode, where every frame is labelled however late.
    """

    schema: Literal[1] = 1
    frame_id: FrameId
    camera: CameraName
    start: Count
    seq: Count
    attempt: Count = 0
    width: Side
    height: Side
    pixels_key: PixelsKey
    captured_at: float
    deadline_at: float | None

    def identity(self) -> dict[str, object]:
        """Return the fields of Identity, to build the next record about the same frame."""
        return {name: getattr(self, name) for name in Identity.__struct_fields__}

    @property
    def crops_key(self) -> str:
        """The key that holds the frame's crops between detection and classification."""
        return f"crops:{self.frame_id}"


class Frame(Identity, frozen=True, kw_only=True):
    """Stream `frames`: a frame was captured, its JPEG lies under pixels_key."""


class FaceCrops(Identity, frozen=True, kw_only=True):
    """Stream `faces`: faces were found, their crops (uint8 n x crop_px x crop_px x 3, RGB) lie under crops_key."""

    boxes: Annotated[list[Box], Meta(max_length=MAX_FACES)]
    scores: Annotated[list[Share], Meta(max_length=MAX_FACES)]
    left_out: Count = 0
    crop_px: Annotated[int, Meta(ge=8, le=512)]
    seconds: dict[str, float]


class Face(Struct, frozen=True, kw_only=True):
    """One labelled face. confidence belongs to the label given: 0.5 to 1."""

    box: Box
    score: Share
    label: Label
    confidence: Share


class FrameResult(Identity, frozen=True, kw_only=True):
    """Stream `results`: how a frame ended.

    reason: None when labelled. error: for a dead frame, what was wrong with it, for people.
    seconds: time spent waiting for and in each stage.
    """

    outcome: Literal["labelled", "dropped", "dead"]
    reason: Reason | None = None
    error: str | None = None
    faces: Annotated[list[Face], Meta(max_length=MAX_FACES)] = []
    left_out: Count = 0
    model: str | None = None
    seconds: dict[str, float] = {}


class DeadLetter(Struct, frozen=True, kw_only=True):
    """Stream `dead`: an entry that could not be worked on, as it was, with what went wrong."""

    stream: str
    entry_id: str
    fields: dict[bytes, bytes]
    error: str
    process: str
    deliveries: int
    died_at: float


class Heartbeat(Struct, frozen=True, kw_only=True):
    """Key `heartbeat:{id}`: a process is alive, what it is and how it fares. rates: per second over the last second."""

    role: str
    id: str
    host: str
    pid: int
    started_at: float
    beat_at: float
    model: str | None = None
    camera: str | None = None
    state: str = "running"
    rates: dict[str, float] = {}


class Model(Struct, frozen=True, kw_only=True):
    """Key `model`: the classifier in use, and the crops it wants: crop_px a side, margin as a share of the box."""

    version: str
    crop_px: Annotated[int, Meta(ge=8, le=512)]
    margin: Share


class Holder(Struct, frozen=True, kw_only=True):
    """Key `lease:{camera}`: who publishes under a camera's name. token tells two holders on one host apart."""

    host: str
    pid: int
    token: str


Record = TypeVar("Record", bound=Struct)
_encoder = msgspec.msgpack.Encoder()
_decoders: dict[type[Struct], msgspec.msgpack.Decoder[Struct]] = {}


def encode(record: Struct) -> bytes:
    """Return the record as MessagePack."""
    return _encoder.encode(record)


def decode(record_type: type[Record], packed: bytes) -> Record:
    """Return the record in `packed`.

    Raises:
        BadMessage: it is not MessagePack, or not a `record_type`; says which field is wrong.
    """
    decoder = _decoders.get(record_type)
    if decoder is None:
        decoder = _decoders[record_type] = msgspec.msgpack.Decoder(record_type)
    try:
        record = decoder.decode(packed)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadMessage(f"not a {record_type.__name__}: {error}") from error
    if isinstance(record, Identity):
        _check_identity(record)
    return record  # type: ignore[return-value]  # the decoder was made for record_type


def is_camera_name(name: str) -> bool:
    """Return whether `name` may name a camera: 1 to 32 small letters, digits and hyphens."""
    return re.match(CAMERA_PATTERN, name) is not None


def frame_id(camera: str, start: int, seq: int) -> str:
    """Return the identity of a camera's frame."""
    return f"{camera}:{start}:{seq}"


def holder_text(token: bytes) -> str:
    """Return host and process of a packed Holder for people."""
    try:
        holder = decode(Holder, token)
    except BadMessage:
        return "an unknown process"
    return f"process {holder.pid} on {holder.host}"


def _check_identity(record: Identity) -> None:
    expected = frame_id(record.camera, record.start, record.seq)
    if record.frame_id != expected:
        raise BadMessage(f"frame_id {record.frame_id!r} does not belong to {expected!r}")
    if isinstance(record, FaceCrops) and len(record.boxes) != len(record.scores):
        raise BadMessage(f"{len(record.boxes)} boxes but {len(record.scores)} scores")
