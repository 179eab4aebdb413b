"""JPEG images: sizes are checked before decoding, and damaged images are rejected."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from pipeline.vision.jpeg import BadImage, check_size, decode_jpeg, encode_jpeg, jpeg_size, unpack_crops


def picture(width: int, height: int) -> np.ndarray:
    rows, columns = np.mgrid[0:height, 0:width]
    return np.dstack([rows % 256, columns % 256, (rows + columns) % 256]).astype(np.uint8)


def packed(mode: str, size: tuple[int, int] = (64, 48)) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size, 128 if mode == "L" else (10, 60, 200, 0)[: len(mode)]).save(file, "JPEG")
    return file.getvalue()


def test_an_encoded_image_decodes_to_itself_within_compression() -> None:
    frame = np.full((48, 64, 3), (10, 60, 200), np.uint8)

    found = decode_jpeg(encode_jpeg(frame, 90))

    assert found.shape == frame.shape
    assert np.abs(found.astype(int) - frame).max() <= 4


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_grey_and_four_channel_jpegs_become_bgr(mode: str) -> None:
    found = decode_jpeg(packed(mode))

    assert found.shape == (48, 64, 3)


def test_an_image_of_one_pixel_is_decoded() -> None:
    found = decode_jpeg(packed("RGB", (1, 1)))

    assert found.shape == (1, 1, 3)


def test_a_large_image_is_decoded_at_a_reduced_size_if_that_is_enough() -> None:
    jpeg = encode_jpeg(picture(2560, 1440), 80)

    found = decode_jpeg(jpeg, at_least_px=640)

    assert found.shape == (360, 640, 3)


def test_a_truncated_jpeg_is_rejected() -> None:
    jpeg = encode_jpeg(picture(640, 480), 90)

    with pytest.raises(BadImage, match="damaged"):
        decode_jpeg(jpeg[: len(jpeg) // 2])


@pytest.mark.parametrize("junk", [b"", b"GIF89a", b"\xff\xd8\xff", b"\x00" * 100])
def test_bytes_that_are_no_jpeg_are_rejected(junk: bytes) -> None:
    with pytest.raises(BadImage):
        jpeg_size(junk)


def test_an_image_of_108_megapixels_is_rejected_by_its_header() -> None:
    jpeg = bytearray(encode_jpeg(picture(64, 48), 90))
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 4] = (9000).to_bytes(2, "big") + (12000).to_bytes(2, "big")

    with pytest.raises(BadImage, match="12000x9000 is 108 megapixels"):
        decode_jpeg(bytes(jpeg))


def test_a_jpeg_of_more_scans_than_any_encoder_writes_is_rejected_before_it_takes_minutes() -> None:
    picture_file = io.BytesIO()
    Image.new("L", (64, 48)).save(picture_file, "JPEG", progressive=True)
    jpeg = picture_file.getvalue()
    last_scan = jpeg[jpeg.rindex(b"\xff\xda") : -2]

    with pytest.raises(BadImage, match="506 scans"):
        decode_jpeg(jpeg[:-2] + 500 * last_scan + jpeg[-2:])


@pytest.mark.parametrize("size", [(0, 10), (10, 0), (65_501, 1), (10_000, 5_001)])
def test_sizes_out_of_bounds_are_rejected(size: tuple[int, int]) -> None:
    with pytest.raises(BadImage):
        check_size(*size)


def test_crops_of_another_length_are_rejected() -> None:
    with pytest.raises(BadImage, match="not 2 crops of 8 px"):
        unpack_crops(b"x" * 100, 2, 8)
