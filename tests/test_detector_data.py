"""What a detector is trained on: canvases with faces, ignored regions, boxes of one geometry, and no kept picture."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.detector.card import OutlineGeometry
from models.files import sha256_of
from pipeline.vision.arrays import Floats, Image
from trainer.data.annotations import AnnotatedFace, WornAs
from trainer.data.hash_list import HASH_DIGITS
from trainer.data.sources import read_source
from trainer.detection import canvases
from trainer.detection.batches import BARE_WEIGHT, MAX_FACES, CanvasBatches, drawing_chances, targets_of
from trainer.detection.camera_effects import add_camera_effects
from trainer.detection.canvases import MIN_FACE_PX, Canvas, draw_canvas
from trainer.detection.cells import CANDIDATES
from trainer.detection.geometry import MIN_PAIRS, measure_geometry, pair_boxes
from trainer.detection.pictures import DetectionData, TrainingPicture, measured_picture, prepare_pictures
from trainer.detection.unannotated import label_picture

SIZE = 320
NONE = np.empty((0, 4), np.float32)
ONE = np.array([[20, 30, 60, 80]], np.float32)
FACE_COLOUR = (0, 0, 255)  # BGR


def boxes(*rows: tuple[float, float, float, float]) -> Floats:
    return np.array(rows, np.float32).reshape(-1, 4)


def picture_of(faces: Floats, ignored: Floats = NONE, *, has_bare: bool = False, source: str = "a") -> TrainingPicture:
    """A grey picture of 200 x 160 pixels with red faces."""
    image = np.full((160, 200, 3), 128, np.uint8)
    for x1, y1, x2, y2 in faces.astype(int).tolist():
        image[y1:y2, x1:x2] = FACE_COLOUR
    _, content = cv2.imencode(".png", image)
    is_bare = np.full(len(faces), has_bare)
    return TrainingPicture(content=content.tobytes(), boxes=faces, is_bare=is_bare, ignored=ignored, source=source)


def street(pictures: Path, folder: Path, count: int) -> Path:
    """A data set of the first photographs of face-mask-detection."""
    whole = pictures / "face-mask-detection"
    for part in ("images", "annotations"):
        (folder / part).mkdir(parents=True)
    for image in sorted((whole / "images").iterdir())[:count]:
        shutil.copy(image, folder / "images")
        shutil.copy(whole / "annotations" / f"{image.stem}.xml", folder / "annotations")
    return folder


def first_frames(clip: Path, count: int, out: Path) -> Path:
    """A clip of the first frames of another."""
    video = cv2.VideoCapture(str(clip))
    frames = [video.read()[1] for _ in range(count)]
    video.release()
    writer = cv2.VideoWriter(str(out), cv2.VideoWriter.fourcc(*"MJPG"), 10, frames[0].shape[1::-1])
    for frame in frames:
        writer.write(frame)
    writer.release()
    return out


@pytest.fixture(scope="module")
def data(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DetectionData]:
    folder = street(pictures, tmp_path_factory.mktemp("data") / "street", 30)
    return folder, prepare_pictures([read_source(str(folder))])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_faces_of_a_canvas_are_where_their_boxes_are(seed: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(canvases, "add_camera_effects", lambda image, _: image)
        picture = picture_of(boxes((20, 30, 60, 80), (120, 90, 150, 130)))

        canvas = draw_canvas([picture] * 4, SIZE, np.random.default_rng(seed))

    assert canvas.image.shape == (SIZE, SIZE, 3)
    for box in canvas.boxes:
        x1, y1, x2, y2 = np.round(box).astype(int)
        inner = canvas.image[y1 + 2 : y2 - 2, x1 + 2 : x2 - 2].reshape(-1, 3)
        assert np.abs(inner - np.array(FACE_COLOUR)).max(initial=0) < 60
        assert (box >= 0).all()
        assert (box <= SIZE).all()
        assert min(box[2] - box[0], box[3] - box[1]) >= MIN_FACE_PX
    covered = np.zeros((SIZE, SIZE), bool)
    for x1, y1, x2, y2 in np.round(np.concatenate([canvas.boxes, canvas.ignored])).astype(int):
        covered[max(0, y1 - 2) : y2 + 2, max(0, x1 - 2) : x2 + 2] = True
    red = (canvas.image[..., 2].astype(int) - canvas.image[..., 0]) > 60
    assert not (red & ~covered).any()  # a face is learned or ignored, never background


def test_the_same_generator_draws_the_same_canvas() -> None:
    pictures = [picture_of(boxes((20, 30, 60, 80)))] * 4

    one, same, other = (draw_canvas(pictures, SIZE, np.random.default_rng(seed)) for seed in (5, 5, 6))

    np.testing.assert_array_equal(one.image, same.image)
    np.testing.assert_array_equal(one.boxes, same.boxes)
    assert not np.array_equal(one.image, other.image)


def test_camera_effects_keep_the_shape_and_change_the_image() -> None:
    image: Image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)

    changed = [add_camera_effects(image, np.random.default_rng(seed)) for seed in range(40)]

    assert all(one.shape == image.shape and one.dtype == np.uint8 for one in changed)
    assert all(not np.array_equal(one, image) for one in changed)
    assert sum(np.ptp(one.astype(int), axis=2).mean() < 40 for one in changed) >= 2  # grey ones


def test_what_nobody_annotated_is_learned_if_sure_and_ignored_if_suspected() -> None:
    annotated = boxes((0, 0, 40, 40))
    found = boxes((2, 2, 42, 42), (5, 20, 25, 38), (100, 0, 140, 40), (200, 0, 240, 40))
    scores = np.array([0.9, 0.9, 0.9, 0.6], np.float32)

    faces, ignored = label_picture(annotated, found, scores)

    np.testing.assert_array_equal(faces, boxes((0, 0, 40, 40), (100, 0, 140, 40)))
    np.testing.assert_array_equal(ignored, boxes((200, 0, 240, 40)))
    assert len(label_picture(NONE, NONE, np.empty(0, np.float32))[0]) == 0


def test_a_geometry_is_measured_from_pairs_and_converts_boxes_there_and_back() -> None:
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 500, (MIN_PAIRS, 2))
    published = np.concatenate([corners, corners + rng.uniform(20, 90, (MIN_PAIRS, 2))], axis=1).astype(np.float32)
    drawn = OutlineGeometry(right=0.02, down=0.125, wider=1.05, higher=0.92)

    measured = measure_geometry(published, drawn.outlines_of(published))

    assert measured is not None
    assert (measured.right, measured.down) == pytest.approx((0.02, 0.125), abs=1e-4)
    assert (measured.wider, measured.higher) == pytest.approx((1.05, 0.92), abs=1e-4)
    np.testing.assert_allclose(drawn.boxes_of(drawn.outlines_of(published)), published, atol=1e-3)
    assert measure_geometry(published[1:], published[1:]) is None


def test_boxes_are_paired_with_the_best_that_has_no_better_one() -> None:
    first = boxes((0, 0, 10, 10), (1, 0, 11, 10), (50, 50, 60, 60))
    second = boxes((1, 0, 11, 10), (100, 100, 110, 110))

    assert pair_boxes(first, second).tolist() == [[1, 0]]
    assert len(pair_boxes(first, NONE)) == 0


def test_each_data_set_is_drawn_by_half_for_its_pictures_with_bare_faces() -> None:
    few, many = picture_of(ONE, has_bare=True, source="b"), picture_of(NONE, source="b")
    pictures = [few, *[many] * 7, picture_of(ONE, has_bare=True, source="a"), picture_of(NONE, source="a")]

    chances = drawing_chances(pictures)

    assert chances.sum() == pytest.approx(1)
    assert chances[0] == pytest.approx(chances[1:8].sum())
    assert chances[:8].sum() / chances[8:].sum() == pytest.approx((8 / 2) ** (1 / 3))


def test_more_faces_than_a_canvas_can_have_are_ignored() -> None:
    x = np.arange(MAX_FACES + 3, dtype=np.float32)
    crowd = np.stack([x, x, x + 8, x + 8], axis=1)
    crowd[-1] = (200, 200, 300, 300)

    is_bare = np.arange(len(crowd)) == len(crowd) - 1
    canvas = Canvas(image=np.empty((SIZE, SIZE, 3), np.uint8), boxes=crowd, is_bare=is_bare, ignored=NONE)

    targets = targets_of([canvas], SIZE)

    assert targets["boxes"].shape == (1, MAX_FACES, 4)
    assert targets["cells"].shape == (1, MAX_FACES, CANDIDATES)
    assert targets["boxes"][0, 0].tolist() == [200, 200, 300, 300]  # the largest first
    assert targets["weights"][0, :2].tolist() == [BARE_WEIGHT, 1]
    assert targets["is_ignored"].any()


def test_batches_are_the_same_whenever_an_epoch_is_drawn(data: tuple[Path, DetectionData]) -> None:
    pictures = data[1].training
    straight = CanvasBatches(pictures, batch=2, size_px=SIZE, seed=3)
    straight.on_epoch_end()

    resumed = CanvasBatches(pictures, batch=2, size_px=SIZE, seed=3, first_epoch=1)

    np.testing.assert_array_equal(straight[1][0], resumed[1][0])
    assert len(resumed) == -(-len(pictures) // 2)


@pytest.mark.parametrize("label", ["mask", "no_mask"])
def test_of_a_clip_sure_faces_are_learned_with_its_label(label: str, pictures: Path, tmp_path: Path) -> None:
    clip, whole = first_frames(pictures / "hand-over-face" / "bird.mkv", 4, tmp_path / "bird.mkv"), tmp_path / "street"
    street(pictures, whole, 32)
    kept = tmp_path / "kept"
    for part in ("images", "annotations"):
        (kept / part).mkdir(parents=True)
        for file in sorted((whole / part).iterdir())[:2]:
            file.rename(kept / part / file.name)

    data = prepare_pictures(
        [read_source(f"{label}={clip}"), read_source(str(whole))], validation=read_source(str(kept))
    )

    frames = [picture for picture in data.training if picture.source == "bird.mkv"]
    assert frames
    assert all(len(frame.boxes) and (frame.is_bare == (label == "no_mask")).all() for frame in frames)
    assert data.geometry.down == pytest.approx(0.125, abs=0.05)  # of the first data set with boxes


def test_a_clip_that_is_kept_has_no_boxes_but_is_remembered(pictures: Path, tmp_path: Path) -> None:
    clip, whole = first_frames(pictures / "hand-over-face" / "bird.mkv", 4, tmp_path / "bird.mkv"), tmp_path / "street"

    data = prepare_pictures([read_source(str(street(pictures, whole, 32)))], tests=[read_source(f"no_mask={clip}")])

    assert data.clips == {"bird.mkv": (clip,)}
    assert data.tests == ()


def test_street_boxes_are_an_eighth_lower_than_the_published_ones(data: tuple[Path, DetectionData]) -> None:
    geometry = data[1].geometry

    assert geometry.down == pytest.approx(0.125, abs=0.04)
    assert geometry.right == pytest.approx(0, abs=0.05)


def test_faces_whose_mask_is_worn_incorrectly_are_learned_and_neither_hit_nor_miss(
    data: tuple[Path, DetectionData],
) -> None:
    folder, prepared = data
    worn = [face.worn for item in read_source(str(folder)).items for face in item.faces]

    measured = sum(len(picture.boxes) + len(picture.neither) for picture in prepared.validation)

    assert "incorrect" in worn
    assert prepared.counts["boxes: annotated"] + measured == len(worn)


def test_only_what_is_inside_a_picture_is_to_be_found(pictures: Path, tmp_path: Path) -> None:
    path = sorted((street(pictures, tmp_path / "one", 1) / "images").iterdir())[0]
    boxes = [(-20, -10, 30, 40), (5000, 10, 5040, 60), (-40, 10, 0, 60), (10, 10, 50, 60)]
    worn: tuple[WornAs, ...] = ("mask", "mask", "incorrect", "no_mask")
    faces = [AnnotatedFace(box=box, worn=how) for box, how in zip(boxes, worn, strict=True)]
    found = measured_picture("one", path, faces)

    assert found.boxes.tolist() == [[0, 0, 30, 40], [10, 10, 50, 60]]
    assert found.is_bare.tolist() == [False, True]
    assert len(found.neither) == 0


def test_data_sets_that_overlap_count_each_picture_once(pictures: Path, tmp_path: Path) -> None:
    north, south = (street(pictures, tmp_path / "street" / name, 60) for name in ("north", "south"))
    images = sorted((north / "images").iterdir())
    for folder, others in ((north, images[30:]), (south, images[:30])):
        for image in others:
            (folder / "images" / image.name).unlink()
            (folder / "annotations" / f"{image.stem}.xml").unlink()
    whole = read_source(str(tmp_path / "street"))

    twice = prepare_pictures([whole, read_source(str(north))], warn=lambda _: None)
    tested = prepare_pictures([whole], tests=[read_source(str(north))], leave_out_copies=True, warn=lambda _: None)

    for measured in (twice.validation, tested.validation, tested.tests):
        assert len({picture.path for picture in measured}) == len(measured)
    assert len(twice.training) == len({(picture.source, picture.content) for picture in twice.training})
    assert {picture.source for picture in tested.tests} == {"north"}


def test_pictures_to_leave_out_are_neither_trained_on_nor_measured(
    data: tuple[Path, DetectionData], tmp_path: Path
) -> None:
    folder, before = data
    trained = {sha256_of(picture.content)[:HASH_DIGITS] for picture in before.training}
    some = frozenset(sorted(trained)[:5])

    after = prepare_pictures([read_source(str(folder))], leave_out=some)

    left = {sha256_of(picture.content)[:HASH_DIGITS] for picture in after.training}
    measured = {sha256_of(picture.path.read_bytes())[:HASH_DIGITS] for picture in after.validation}
    assert not some & (left | measured)
    assert not left & measured
    assert after.counts["street: out"] >= 5
