"""POST /api/v1/label: a picture in, its labelled faces out."""

from __future__ import annotations

import io
import threading
import time
from http import HTTPStatus
from typing import IO, Annotated

import msgspec
from flask import Request, Response, request
from msgspec import Meta, Struct

from pipeline.vision.faces import Face
from pipeline.vision.jpeg import BadImage, decode_jpeg, encode_jpeg
from pipeline.vision.pictures import read_picture_bytes
from viewer.api.labeller import PictureLabeller
from viewer.api.operations import Errors, Operation, json_response
from viewer.api.problems import ApiError
from viewer.security.middleware import MAX_PICTURE

JPEG_QUALITY = 95  # of pictures that are not JPEG already, as workers get them
CHECKED_PX = 256  # a JPEG is decoded at about this size to see whether it is damaged
MULTIPART = "multipart/form-data"
OCTETS = "application/octet-stream"
FIELD = "picture"
MAX_PARTS = 8
ERRORS: Errors = {
    415: "The content is neither a picture nor a form.",
    422: "A parameter is invalid, or the content is no picture that can be decoded.",
    429: "As many pictures as may be are being labelled.",
    503: "There are no workers, Redis cannot be reached, or it has no room.",
    504: "There was no result in time.",
}


class LabelParameters(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The parameters of the query."""

    timeout_s: Annotated[float, Meta(ge=0.1, le=60, description="How long to wait for the result, in seconds.")] = 20.0


class PictureForm(Struct, frozen=True, kw_only=True):
    """A form with a picture, as browsers and `curl -F` send it."""

    picture: Annotated[msgspec.Raw, Meta(description="The file of the picture.")]


class LabelledPicture(Struct, frozen=True, kw_only=True):
    """The faces of a picture.

    width, height: of the picture when it is upright, in pixels, to which the boxes refer.
    left_out: how many faces there are beyond those that are labelled.
    model: the version of the classifier; None without faces. latency_ms: spent in the workers.
    """

    width: int
    height: int
    faces: list[Face]
    left_out: int
    model: str | None
    latency_ms: float


class InMemoryRequest(Request):
    """A request whose files stay in memory: werkzeug's own would write larger ones to a disk."""

    def _get_file_stream(
        self,
        total_content_length: int | None,  # noqa: ARG002 -- werkzeug names the arguments
        content_type: str | None,  # noqa: ARG002
        filename: str | None = None,  # noqa: ARG002
        content_length: int | None = None,  # noqa: ARG002
    ) -> IO[bytes]:
        return io.BytesIO()


def label_operation(labeller: PictureLabeller) -> Operation:
    """Return the operation."""
    decoding = threading.Lock()  # one picture at a time: the largest one takes some 150 MB

    def label(_path: Struct, query: LabelParameters) -> Response:
        """Label the faces of one picture: JPEG, PNG, WebP, HEIC, AVIF and others, upright by its EXIF orientation.

        Send the file's bytes as the body, or a form with the file in the field `picture`. Cameras go first: under load
        a picture waits. Nothing of it is kept.
        """
        with labeller.slot():
            content = _content()
            begin = time.monotonic()
            with labeller.turn(query.timeout_s) as turn:
                with decoding:
                    jpeg, width, height, turn.cost_s = _checked_jpeg(content)
                result = labeller.label(jpeg, width, height, query.timeout_s, time.monotonic() - begin)
                turn.cost_s += sum(result.seconds.values())
        return json_response(
            LabelledPicture(
                width=width,
                height=height,
                faces=[_rounded(face) for face in result.faces],
                left_out=result.left_out,
                model=result.model if result.faces else None,
                latency_ms=round(1000 * sum(result.seconds.values()), 1),
            )
        )

    return Operation(
        method="POST",
        path="/label",
        id="label_picture",
        summary="Label the faces of a picture",
        scope="label",
        query_type=LabelParameters,
        body={"image/*": None, OCTETS: None, MULTIPART: PictureForm},
        max_body=MAX_PICTURE,
        answer=LabelledPicture,
        errors=ERRORS,
        handle=label,
    )


def _content() -> bytes:
    """Return the picture in the present request.

    Raises:
        ApiError: it has another type, or none.
    """
    request.max_content_length = request.max_form_memory_size = MAX_PICTURE
    request.max_form_parts = MAX_PARTS
    if request.mimetype == MULTIPART:
        file = request.files.get(FIELD)
        if file is None:
            raise ApiError(HTTPStatus.UNPROCESSABLE_ENTITY, f"the form has no file in the field {FIELD}")
        content: bytes = file.read()
    elif request.mimetype == OCTETS or request.mimetype.startswith("image/"):
        content = request.get_data(cache=False)
    else:
        raise ApiError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"Content-Type {request.mimetype!a:.80} is not supported: send the picture as image/jpeg, another image/ "
            f"type or {OCTETS}, or as {MULTIPART} with the field {FIELD}",
        )
    if not content:
        raise ApiError(HTTPStatus.UNPROCESSABLE_ENTITY, "the picture is empty")
    return content


def _checked_jpeg(content: bytes) -> tuple[bytes, int, int, float]:
    """Return a picture as upright JPEG, with width and height in pixels, and the seconds that this took a processor.

    Raises:
        ApiError: it cannot be decoded, or is too large.
    """
    begin = time.thread_time()
    try:
        jpeg, width, height = _upright_jpeg(content)
    except BadImage as error:
        raise ApiError(HTTPStatus.UNPROCESSABLE_ENTITY, f"the picture cannot be labelled: {error}") from error
    return jpeg, width, height, time.thread_time() - begin


def _upright_jpeg(content: bytes) -> tuple[bytes, int, int]:
    picture = read_picture_bytes(content)
    if picture.image is not None:
        return encode_jpeg(picture.image, JPEG_QUALITY), picture.width, picture.height
    jpeg = picture.jpeg or b""
    decode_jpeg(jpeg, at_least_px=CHECKED_PX)  # a damaged one would become a dead letter
    return jpeg, picture.width, picture.height


def _rounded(face: Face) -> Face:
    """Return a face with as many digits as they are good for."""
    x1, y1, x2, y2 = (round(value, 2) for value in face.box)
    return msgspec.structs.replace(
        face, box=(x1, y1, x2, y2), score=round(face.score, 4), confidence=round(face.confidence, 4)
    )
