"""Every record that crosses a process boundary, and the stream or key that carries it.

Records are MessagePack maps, encoded and decoded by msgspec: frozen, typed, and validated on arrival. Bytes that are
not a valid record raise `BadMessage`. Times are Unix seconds on Redis' clock (`pipeline.bus.clock.Clock`). Boxes are
x1, y1, x2, y2 in pixels of the full frame.
"""

from __future__ import annotations

import operator
import re
from typing import Annotated, Any, Literal, TypeVar, get_args

import msgspec
from msgspec import Meta, Struct

from pipeline.vision.faces import MAX_FACES, Box, Face, Label, Share

CAMERA_PATTERN = r"\A[a-z0-9-]{1,32}\Z"
FILE_PREFIX = "file-"  # of the camera names that `maskwatch label` uses for its runs

Reason = Literal["source_full", "memory", "stale", "expired", "pixels_gone", "dead"]
REASONS: tuple[Reason, ...] = get_args(Reason)

CameraName = Annotated[str, Meta(pattern=CAMERA_PATTERN)]
FrameId = Annotated[str, Meta(pattern=r"\A[a-z0-9-]{1,32}:[0-9]{1,16}:[0-9]{1,12}\Z")]
PIXELS_PATTERN = r"\A\{s[0-9a-z]\}:pixels:[a-z0-9:-]{1,80}\Z"
PixelsKey = Annotated[str, Meta(pattern=PIXELS_PATTERN)]
MAX_RELABEL_S = 5.0  # as long as the known faces of a live camera are kept
THUMBNAIL_BYTES = 64
Thumbnail = Annotated[bytes, Meta(min_length=THUMBNAIL_BYTES, max_length=THUMBNAIL_BYTES)]
Count = Annotated[int, Meta(ge=0)]
Side = Annotated[int, Meta(ge=1, le=65_535)]
MAX_NUMBER = 1e15
Number = Annotated[float, Meta(ge=-MAX_NUMBER, le=MAX_NUMBER)]  # finite: JSON has neither NaN nor infinity
Seconds = dict[str, Number]  # spent waiting for a stage, and in it, by name


class BadMessage(ValueError):
    """The bytes are not a valid record of the expected type."""


class FrameIdentity(Struct, frozen=True, kw_only=True):
    """The frame that a record is about, and its times.

    start: when its producer started, Unix milliseconds, so that frames of a restarted camera have other IDs.
    attempt: how often a complete-mode sender has sent this frame again.
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
    captured_at: Number
    deadline_at: Number | None

    def identity(self) -> dict[str, Any]:
        """Return these fields, to make another record of the same frame."""
        return dict(zip(FrameIdentity.__struct_fields__, _identity_of(self), strict=True))

    @property
    def crops_key(self) -> str:
        """The key that holds the frame's crops between detection and classification."""
        return self.pixels_key.replace(":pixels:", ":crops:", 1)


_identity_of = operator.attrgetter(*FrameIdentity.__struct_fields__)


class SharedPixels(Struct, frozen=True, kw_only=True):
    """Where the pixels of a frame are in the memory of its producer's machine (frame_ring.py).

    pid, fd: the producer's process and the number of its ring's file there. token: of the ring, hexadecimal.
    generation: of the slot while it holds this frame.
    """

    pid: Annotated[int, Meta(ge=1, le=2**31 - 1)]
    fd: Annotated[int, Meta(ge=0, le=2**31 - 1)]
    token: Annotated[str, Meta(pattern=r"\A[0-9a-f]{32}\Z")]
    slot: Count
    generation: Count


class Relabel(Struct, frozen=True, kw_only=True):
    """How long a face may keep its label without being classified again. All in seconds.

    every_s: the longest time. at_s: when the frame was captured, on a clock that all frames of its camera share.
    """

    every_s: Annotated[float, Meta(gt=0, le=MAX_RELABEL_S)]
    at_s: Number


class KnownFace(Struct, frozen=True, kw_only=True):
    """A face as it was when it was classified, or passed on for that (workers/known_faces.py).

    label, confidence, model: which version labelled it how; None of a face of a file, whose label may not be there yet.
    seq, number: of its frame, and of the face in it. labelled_at_s: at_s of that frame. thumbnail: 8 x 8 grey values.
    """

    box: Box
    label: Label | None = None
    confidence: Share | None = None
    model: str | None = None
    seq: Count
    number: Count
    labelled_at_s: Number
    thumbnail: Thumbnail


class KnownFaces(Struct, frozen=True, kw_only=True):
    """Key `known:{camera}`: the faces of one of the camera's last frames."""

    faces: Annotated[list[KnownFace], Meta(max_length=MAX_FACES)]


class Frame(FrameIdentity, frozen=True, kw_only=True):
    """Stream `frames`: a captured frame.

    shared: its pixels, for processes of the same machine and user. Key pixels_key holds its JPEG, if there is no such
    place, or if somebody needs the JPEG.
    relabel: None when all its faces are to be classified.
    """

    shared: SharedPixels | None = None
    relabel: Relabel | None = None

    @property
    def keeps_pixels(self) -> bool:
        """Whether its producer keeps its shared pixels, if it has any, until it has a result."""
        return self.deadline_at is None


class FaceCrops(FrameIdentity, frozen=True, kw_only=True):
    """Stream `faces`: the faces found. Key crops_key holds crops, uint8 n x crop_px x crop_px x 3, RGB.

    known: for each box the face that it is known as, or None: crops are of these boxes. Empty when no face is known.
    crop_boxes: if there are any, there is no such key: the classifier cuts the crops itself, by these boxes, from the
    frame's pixels. shared: where these are, if they are kept until the frame has its result.
    thumbnails: of the boxes; empty when nobody will ask.
    """

    boxes: Annotated[list[Box], Meta(max_length=MAX_FACES)]
    scores: Annotated[list[Share], Meta(max_length=MAX_FACES)]
    known: Annotated[list[KnownFace | None], Meta(max_length=MAX_FACES)] = []
    shared: SharedPixels | None = None
    crop_boxes: Annotated[list[Box], Meta(max_length=MAX_FACES)] = []
    thumbnails: Annotated[list[Thumbnail], Meta(max_length=MAX_FACES)] = []
    left_out: Count = 0
    crop_px: Annotated[int, Meta(ge=8, le=512)]
    seconds: Seconds
    relabel: Relabel | None = None

    @classmethod
    def for_frame(
        cls,
        frame: Frame,
        *,
        boxes: list[Box],
        scores: list[float],
        crop_px: int,
        seconds: Seconds,
        known: list[KnownFace | None] | None = None,
        crop_boxes: list[Box] | None = None,
        thumbnails: list[bytes] | None = None,
        left_out: int = 0,
    ) -> FaceCrops:
        """Return the record of the faces found in a frame.

        Args:
            known: None when no face is known.
            crop_boxes: n, by which the classifier cuts the crops from the frame's shared pixels; None if they are sent.
            thumbnails: n, for a live frame whose faces may be known later.
        """
        fields = frame.identity() | {"left_out": left_out, "crop_px": crop_px, "seconds": seconds}
        fields |= {"known": known or [], "crop_boxes": crop_boxes or [], "thumbnails": thumbnails or []}
        fields |= {"relabel": frame.relabel}
        return cls(**fields, boxes=boxes, scores=scores, shared=frame.shared if frame.keeps_pixels else None)

    @property
    def to_classify(self) -> list[int]:
        """Which boxes are to be classified: indices, in the order of the crops."""
        return [number for number in range(len(self.boxes)) if not self.known or self.known[number] is None]


class SameFace(Struct, frozen=True, kw_only=True):
    """A face of a file that has the label of an earlier one, which may not be there yet.

    number: among all faces of its frame. same_seq, same_number: the frame of the earlier face, and its number there.
    """

    number: Annotated[int, Meta(ge=0, lt=MAX_FACES)]
    box: Box
    score: Share
    same_seq: Count
    same_number: Count


class FrameResult(FrameIdentity, frozen=True, kw_only=True):
    """Stream `results`: how a frame ended.

    reason: None when labelled. error: a message for people, of dead frames only.
    same_faces: further faces, of files only.
    """

    outcome: Literal["labelled", "dropped", "dead"]
    reason: Reason | None = None
    error: str | None = None
    faces: Annotated[list[Face], Meta(max_length=MAX_FACES)] = []
    same_faces: Annotated[list[SameFace], Meta(max_length=MAX_FACES)] = []
    left_out: Count = 0
    model: str | None = None
    seconds: Seconds = {}

    @classmethod
    def for_frame(
        cls,
        frame: FrameIdentity,
        *,
        faces: list[Face],
        model: str,
        seconds: Seconds,
        same_faces: list[SameFace] | None = None,
        left_out: int = 0,
    ) -> FrameResult:
        """Return the result of a labelled frame. same_faces: None when all faces are in `faces`."""
        fields = frame.identity() | {"left_out": left_out, "model": model, "seconds": seconds}
        return cls(**fields, outcome="labelled", faces=faces, same_faces=same_faces or [])

    @classmethod
    def dropped(cls, frame: FrameIdentity, reason: Reason) -> FrameResult:
        """Return the result of a frame that was not processed."""
        return cls(**frame.identity(), outcome="dropped", reason=reason)

    @classmethod
    def dead(cls, frame: FrameIdentity, error: str) -> FrameResult:
        """Return the result of a frame that could not be processed."""
        return cls(**frame.identity(), outcome="dead", reason="dead", error=error)


class DeadLetter(Struct, frozen=True, kw_only=True):
    """Stream `dead`: the fields of an entry that could not be processed, with the error."""

    stream: str
    entry_id: str
    fields: dict[bytes, bytes]
    error: str
    process: str
    deliveries: int
    died_at: Number


class Heartbeat(Struct, frozen=True, kw_only=True):
    """Key `heartbeat:{id}`: a live process and its state.

    rates: per second, over the last second. busy: the share of it that was spent on work.
    """

    role: str
    id: str
    host: str
    pid: int
    started_at: Number
    beat_at: Number
    model: str | None = None
    camera: str | None = None
    state: str = "running"
    rates: dict[str, Number] = {}
    busy: Share = 0.0


class AnnouncedModel(Struct, frozen=True, kw_only=True):
    """Key `model`: the classifier in use and its crops: crop_px square, margin as a share of the box."""

    version: str
    crop_px: Annotated[int, Meta(ge=8, le=512)]
    margin: Share


class LeaseHolder(Struct, frozen=True, kw_only=True):
    """Key `lease:{camera}`: the process that publishes under a camera's name. token: random, unique to the holder."""

    host: str
    pid: int
    token: str


Record = TypeVar("Record", bound=Struct)

RECORDS: tuple[type[Struct], ...] = (
    *(Frame, FaceCrops, FrameResult, KnownFaces),
    *(DeadLetter, Heartbeat, AnnouncedModel, LeaseHolder),
)
# Made here, by one thread: msgspec prepares a type when it first decodes it, and crashes the process (a segmentation
# fault) when two threads do that at once. Types that are prepared stay so, also for other decoders.
_DECODERS: dict[type[Struct], msgspec.msgpack.Decoder[Any]] = {
    record_type: msgspec.msgpack.Decoder(record_type) for record_type in RECORDS
}


def encode(record: Struct) -> bytes:
    """Return the record as MessagePack."""
    return msgspec.msgpack.encode(record)


def decode(record_type: type[Record], packed: bytes) -> Record:
    """Return the record in `packed`. record_type: one of RECORDS.

    Raises:
        BadMessage: it is not MessagePack, or not a `record_type`; names the wrong field.
    """
    try:
        record: Record = _DECODERS[record_type].decode(packed)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadMessage(f"not a {record_type.__name__}: {error}") from error
    if isinstance(record, FrameIdentity):
        _check_identity(record)
    return record


def is_camera_name(name: str) -> bool:
    """Return whether `name` may name a camera: 1 to 32 lower-case letters, digits and hyphens."""
    return re.match(CAMERA_PATTERN, name) is not None


def is_frame_id(text: str, camera: str) -> bool:
    """Return whether `text` is the ID of a frame of this camera."""
    return re.fullmatch(re.escape(camera) + ":[0-9]{1,16}:[0-9]{1,12}", text) is not None


def frame_id(camera: str, start: int, seq: int) -> str:
    """Return the ID of a camera's frame."""
    return f"{camera}:{start}:{seq}"


def describe_holder(token: bytes) -> str:
    """Return host and process of a packed LeaseHolder as text for people."""
    try:
        holder = decode(LeaseHolder, token)
    except BadMessage:
        return "an unknown process"
    return f"process {holder.pid} on {holder.host}"


def _check_identity(record: FrameIdentity) -> None:
    expected = frame_id(record.camera, record.start, record.seq)
    if record.frame_id != expected:
        raise BadMessage(f"frame_id {record.frame_id!r} does not belong to {expected!r}")
    if isinstance(record, FaceCrops):
        _check_faces(record)
    if isinstance(record, FrameResult) and record.same_faces:
        _check_same_faces(record)


def _check_same_faces(record: FrameResult) -> None:
    numbers = {face.number for face in record.same_faces}
    if len(numbers) < len(record.same_faces) or max(numbers) >= len(numbers) + len(record.faces):
        raise BadMessage("same_faces have numbers that are no places among the faces")


def _check_faces(record: FaceCrops) -> None:
    count = len(record.boxes)
    lengths = {"scores": len(record.scores), "known": len(record.known), "crop_boxes": len(record.crop_boxes)}
    lengths |= {"thumbnails": len(record.thumbnails)}
    for name, length in lengths.items():
        if length != count and (length or name == "scores"):
            raise BadMessage(f"{count} boxes but {length} {name}")
    if record.crop_boxes and record.shared is None:
        raise BadMessage("crop_boxes, but no pixels to cut them from")
    if not record.to_classify:
        raise BadMessage("no face is to be classified")
    for x1, y1, x2, y2 in record.crop_boxes:  # the memory for a crop grows with its box
        if not (-1 <= x1 <= x2 <= record.width + 1 and -1 <= y1 <= y2 <= record.height + 1):
            raise BadMessage(f"box {x1:g}, {y1:g}, {x2:g}, {y2:g} of a crop is not inside the frame")
