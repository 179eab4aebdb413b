"""Faces are found in pictures of any size, as OpenCV's own YuNet finds them."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from models.card import CARD_NAME
from models.detector import face_detector
from models.detector.card import DEFAULT_FOLDER, DETECTOR_NAME, OutlineGeometry, read_detector_card
from models.detector.face_detector import FaceDetector, Faces, yunet_candidates
from models.detector.yunet_decode import OUTPUT_NAMES, decode_yunet
from models.files import ModelUnusable, sha256_of
from pipeline.vision.arrays import Image
from pipeline.vision.faces import MAX_FACES
from scripts import yunet_onnx
from trainer.data import published_detector as published_detector_module
from trainer.data.published_detector import YUNET_FILE, YUNET_SHA256, published_detector, read_published


def photographs(pictures: Path, count: int) -> list[Image]:
    paths = sorted((pictures / "face-mask-detection" / "images").iterdir())[:count]
    return [np.asarray(cv2.imread(str(path)), np.uint8) for path in paths]


def one_face(pictures: Path) -> Image:
    path = min((pictures / "face-mask-12k" / "Train" / "WithoutMask").iterdir())
    return np.asarray(cv2.copyMakeBorder(cv2.imread(str(path)), 60, 60, 60, 60, cv2.BORDER_CONSTANT), np.uint8)


def assert_plausible(faces: Faces, frame: Image) -> None:
    height, width = frame.shape[:2]
    assert faces.boxes.dtype == faces.scores.dtype == np.float32
    assert faces.boxes.shape == (len(faces.scores), 4)
    assert faces.outlines.shape == faces.boxes.shape
    for boxes in (faces.boxes, faces.outlines):
        assert (boxes >= 0).all()
        assert (boxes <= [width, height, width, height]).all()
        assert (boxes[:, :2] < boxes[:, 2:]).all()
    assert ((faces.scores >= 0) & (faces.scores <= 1)).all()
    assert (np.diff(faces.scores) <= 0).all()


def overlaps(box: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    shared = sides.clip(0).prod(axis=1)
    overlap: NDArray[np.float32] = shared / (
        (box[2:] - box[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(axis=1) - shared
    )
    return overlap


def opencv_faces(frame: Image, score_threshold: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What OpenCV's own YuNet finds in a frame as it is: boxes and scores, best first."""
    size = frame.shape[1], frame.shape[0]
    model = np.fromfile(YUNET_FILE, np.uint8)
    detector = cv2.FaceDetectorYN.create("onnx", model, np.empty(0, np.uint8), size, score_threshold, 0.3, 5000)
    found = detector.detect(frame)[1]
    rows = np.empty((0, 15), np.float32) if found is None else found[np.argsort(-found[:, 14], kind="stable")]
    return np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:4]], axis=1), rows[:, 14]


def test_the_candidates_hold_every_box_of_opencv_for_the_same_network(pictures: Path) -> None:
    session = ort.InferenceSession(YUNET_FILE)
    frames = [np.asarray(cv2.resize(frame, (640, 480)), np.uint8) for frame in photographs(pictures, 10)]
    inputs = [frame.transpose(2, 0, 1)[None].astype(np.float32) for frame in frames]

    outputs = [dict(zip(OUTPUT_NAMES, session.run(OUTPUT_NAMES, {"input": values}), strict=True)) for values in inputs]
    candidates = [decode_yunet(found, 640, 0.5) for found in outputs]

    found = 0
    for frame, (boxes, scores) in zip(frames, candidates, strict=True):
        for box, score in zip(*opencv_faces(frame, 0.5), strict=True):
            same = np.abs(scores - score) < 1e-3
            assert np.abs(boxes[same] - box).max(axis=1).min(initial=np.inf) < 1
            found += 1
    assert found > 10


def test_one_look_finds_the_faces_that_opencv_finds(pictures: Path) -> None:
    frames = [np.asarray(cv2.resize(frame, (640, 480)), np.uint8) for frame in photographs(pictures, 20)]
    detector = published_detector(640, score_threshold=0.5)

    pairs = [(detector.find(frame), opencv_faces(frame, 0.5)) for frame in frames]

    found = 0
    for ours, (boxes, scores) in pairs:
        np.testing.assert_allclose(ours.scores, scores, atol=1e-3)
        agreement = [float(overlaps(box, boxes).max()) for box in ours.boxes]
        assert min(agreement, default=1) > 0.6
        found += len(scores)
    assert found > 20


def test_the_second_look_finds_distant_faces_too(pictures: Path) -> None:
    portrait = one_face(pictures)[60:-60, 60:-60]
    frame = np.full((720, 1280, 3), 128, np.uint8)
    for column in range(8):
        frame[300:320, 100 + 130 * column : 120 + 130 * column] = cv2.resize(
            portrait, (20, 20), interpolation=cv2.INTER_AREA
        )
    once, twice = published_detector(640), published_detector(1280)

    first, both = once.find(frame), twice.find(frame)

    assert len(first.boxes) == 0
    assert len(both.boxes) == 8
    assert_plausible(both, frame)


def test_the_second_look_is_not_for_near_faces(pictures: Path) -> None:
    frame = one_face(pictures)
    once, twice = published_detector(640), published_detector(960)

    first, both = once.find(frame), twice.find(frame)

    np.testing.assert_array_equal(both.boxes[0], first.boxes[0])


def test_an_outline_of_the_published_detector_is_its_box_an_eighth_of_its_height_lower(pictures: Path) -> None:
    frame = one_face(pictures)

    faces = published_detector().find(frame)

    eighth = (faces.boxes[:, 3] - faces.boxes[:, 1]) / 8
    np.testing.assert_allclose(faces.outlines[:, [0, 2]], faces.boxes[:, [0, 2]], atol=1e-3)
    np.testing.assert_allclose(faces.outlines[0, [1, 3]], faces.boxes[0, [1, 3]] + eighth[0], rtol=1e-4)


def test_the_outlines_are_what_the_network_finds_and_the_boxes_follow_from_the_card(pictures: Path) -> None:
    frame, card = one_face(pictures), read_detector_card(DEFAULT_FOLDER)
    candidates = yunet_candidates((DEFAULT_FOLDER / DETECTOR_NAME).read_bytes(), card.score_threshold)

    faces = face_detector.load_detector().find(frame)

    alone = FaceDetector(candidates, (card.input_px,)).find(frame)
    np.testing.assert_allclose(faces.outlines, alone.outlines, atol=1e-3)
    np.testing.assert_allclose(card.outlines.outlines_of(faces.boxes[:1]), faces.outlines[:1], atol=0.1)


@pytest.mark.parametrize("kind", ["yunet", "dnn", "haar"])
def test_every_detector_finds_a_plain_face_in_place(kind: face_detector.Kind, pictures: Path) -> None:
    frame = one_face(pictures)
    detector = face_detector.load_detector(kind)

    faces = detector.find(frame)

    assert_plausible(faces, frame)
    centre = (faces.boxes[0, :2] + faces.boxes[0, 2:]) / 2
    np.testing.assert_allclose(centre, np.array(frame.shape[1::-1]) / 2, atol=25)


def test_dnn_and_yunet_give_the_same_faces(pictures: Path) -> None:
    frame = photographs(pictures, 1)[0]

    by_onnxruntime = face_detector.load_detector("yunet").find(frame)
    by_opencv = face_detector.load_detector("dnn").find(frame)

    assert len(by_onnxruntime.scores) > 0
    np.testing.assert_allclose(by_onnxruntime.boxes, by_opencv.boxes, atol=0.1)


def test_a_small_picture_has_its_boxes_in_its_own_pixels(pictures: Path) -> None:
    frame = one_face(pictures)
    small = np.asarray(cv2.resize(frame, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA), np.uint8)
    detector = face_detector.load_detector()

    box, small_box = detector.find(frame).boxes[0], detector.find(small).boxes[0]

    np.testing.assert_allclose(small_box * 4, box, atol=0.1 * frame.shape[0])


@pytest.mark.parametrize("kind", ["yunet", "dnn", "haar"])
@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 1), (7, 300), (33, 31)])
def test_a_frame_of_any_shape_is_looked_at(kind: face_detector.Kind, size: tuple[int, int]) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    detector = face_detector.load_detector(kind, input_px=160)

    faces = detector.find(frame)

    assert_plausible(faces, frame)
    assert faces.left_out == 0


@pytest.mark.parametrize("finds_outlines", [True, False])
def test_a_face_at_the_edge_is_converted_before_it_is_cut(finds_outlines: bool) -> None:
    geometry = OutlineGeometry(down=0.125)
    box, outline = (np.array([[100.0, top, 180.0, top + 80]], np.float32) for top in (250, 260))
    found = outline if finds_outlines else box

    def find_candidates(_: Image) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return found, np.ones(1, np.float32)

    detector = FaceDetector(find_candidates, (320,), geometry=geometry, finds_outlines=finds_outlines)

    faces = detector.find(np.zeros((320, 320, 3), np.uint8))

    np.testing.assert_allclose(faces.boxes, [[100, 250, 180, 320]], atol=1e-3)
    np.testing.assert_allclose(faces.outlines, [[100, 260, 180, 320]], atol=1e-3)


def test_a_face_whose_box_is_outside_is_left_out() -> None:
    above = np.array([[100.0, -95.0, 180.0, 5.0]], np.float32)
    detector = FaceDetector(
        lambda _: (above, np.ones(1, np.float32)), (320,), geometry=OutlineGeometry(down=0.125), finds_outlines=True
    )

    faces = detector.find(np.zeros((320, 320, 3), np.uint8))

    assert len(faces.boxes) == len(faces.outlines) == len(faces.scores) == 0


def test_no_face_gives_empty_arrays() -> None:
    frame = np.zeros((120, 160, 3), np.uint8)

    faces = face_detector.load_detector().find(frame)

    assert faces.boxes.shape == faces.outlines.shape == (0, 4)
    assert faces.scores.shape == (0,)


def test_more_faces_than_allowed_are_counted(pictures: Path) -> None:
    face = np.asarray(cv2.resize(one_face(pictures)[60:-60, 60:-60], (40, 40)), np.uint8)
    frame = np.tile(face, (16, 16, 1))
    detector = face_detector.load_detector()

    faces = detector.find(frame)

    assert len(faces.scores) == MAX_FACES
    assert faces.left_out > 50
    assert_plausible(faces, frame)


def test_a_missing_card_or_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ModelUnusable, match=r"card\.json cannot be read"):
        face_detector.load_detector(folder=tmp_path)
    shutil.copy(DEFAULT_FOLDER / CARD_NAME, tmp_path)
    with pytest.raises(ModelUnusable, match=r"detector\.onnx is missing: restore it"):
        face_detector.load_detector(folder=tmp_path)


def test_a_damaged_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(DEFAULT_FOLDER / CARD_NAME, tmp_path)
    (tmp_path / DETECTOR_NAME).write_bytes((DEFAULT_FOLDER / DETECTOR_NAME).read_bytes()[:-1])
    monkeypatch.setattr(published_detector_module, "YUNET_FILE", tmp_path / DETECTOR_NAME)

    with pytest.raises(ModelUnusable, match="is damaged"):
        face_detector.load_detector("dnn", folder=tmp_path)
    with pytest.raises(ModelUnusable, match=r"is damaged.*make setup"):
        read_published()


def test_unknown_detectors_and_tiny_inputs_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown detector 'yolo'"):
        face_detector.load_detector("yolo")
    with pytest.raises(ValueError, match="too small"):
        face_detector.load_detector(input_px=16)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), spread=st.floats(0.1, 100))
def test_any_network_output_decodes_to_finite_boxes(seed: int, spread: float) -> None:
    rng = np.random.default_rng(seed)
    outputs = {}
    for name in OUTPUT_NAMES:
        kind, stride = name.split("_")
        values = 4 if kind == "bbox" else 1
        cells = (64 // int(stride)) * (96 // int(stride))
        outputs[name] = rng.normal(0, spread, (1, cells, values)).astype(np.float32)

    boxes, scores = decode_yunet(outputs, 96, 0.3)

    assert np.isfinite(boxes).all()
    assert len(boxes) == len(scores)


def fixed_size_model() -> bytes:
    """Shape a network like YuNet's heads: 1 x 3 x 8 x 8 in, a Reshape to 1 x anchors x 1, shapes noted throughout."""
    nodes = [
        helper.make_node("Conv", ["input", "weight"], ["features"]),
        helper.make_node("Transpose", ["features"], ["last"], perm=[0, 2, 3, 1]),
        helper.make_node("Reshape", ["last", "shape"], ["cls_8"]),
    ]
    graph = helper.make_graph(
        nodes,
        "heads",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("cls_8", TensorProto.FLOAT, [1, 64, 1])],
        [
            numpy_helper.from_array(np.ones((1, 3, 1, 1), np.float32), "weight"),
            numpy_helper.from_array(np.array([1, -1, 1], np.int64), "shape"),
        ],
        value_info=[helper.make_tensor_value_info("features", TensorProto.FLOAT, [1, 1, 8, 8])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)
    return bytes(model.SerializeToString())


def test_a_freed_network_takes_any_size_and_batch() -> None:
    fixed = fixed_size_model()
    pictures = np.random.default_rng(0).random((2, 3, 8, 8)).astype(np.float32)

    freed = yunet_onnx.with_any_size(fixed)

    session, reference = ort.InferenceSession(freed), ort.InferenceSession(fixed)
    both = session.run(None, {"input": pictures})[0]
    np.testing.assert_array_equal(both[:1], reference.run(None, {"input": pictures[:1]})[0])
    np.testing.assert_array_equal(both[1:], reference.run(None, {"input": pictures[1:]})[0])
    assert session.run(None, {"input": np.zeros((1, 3, 4, 6), np.float32)})[0].shape == (1, 24, 1)


def test_freeing_a_network_twice_gives_the_same_bytes() -> None:
    fixed = fixed_size_model()

    first, second = yunet_onnx.with_any_size(fixed), yunet_onnx.with_any_size(fixed)

    assert first == second


def test_the_detector_expects_the_file_that_set_up_makes() -> None:
    model = onnx.load(YUNET_FILE)

    dimensions = [dimension.dim_param for dimension in model.graph.input[0].type.tensor_type.shape.dim]

    assert sha256_of(YUNET_FILE.read_bytes()) == YUNET_SHA256
    assert dimensions == ["n", "", "h", "w"]
