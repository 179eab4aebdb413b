"""A classifier whose network fails on some crops: those frames are dead-lettered, and everything else is labelled."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from conftest import Server, wait_until
from feeding import Feed
from processes import Processes, live, processes
from versions import network_that_fails_on_grey, write_model

from models.classifier.card import DEFAULT_FOLDER, read_card
from models.classifier.mask_classifier import ClassifierFailed, load_classifier
from pipeline.bus.clock import Clock
from pipeline.bus.dead_letters import list_dead_letters
from pipeline.bus.frame_ring import FrameRing
from pipeline.bus.messages import FaceCrops, FrameResult, decode
from pipeline.bus.pixel_reader import PixelsGone
from pipeline.bus.reader import Reader
from pipeline.runtime.worker_context import WorkerContext
from pipeline.vision.arrays import Image
from workers.batcher import Batcher
from workers.classify import classify
from workers.face_crops import CropSource
from workers.warm_classifier import WarmClassifier

__all__ = ["processes"]

SIZE_PX = 112


def crop(value: int) -> Image:
    return np.full((1, SIZE_PX, SIZE_PX, 3), value, np.uint8)


def results(server: Server) -> dict[str, FrameResult]:
    """Return how each camera's frame ended."""
    rows = cast(list[Any], server.client.xrange("{s0}:results"))
    return {found.camera: found for _, fields in rows for found in [decode(FrameResult, fields[b"record"])]}


def test_a_runtimes_error_is_a_failure_of_the_classifier(tmp_path: Path) -> None:
    write_model(tmp_path / "model", network_that_fails_on_grey(SIZE_PX))
    classifier = load_classifier(tmp_path / "model")

    with pytest.raises(ClassifierFailed, match="out of data bounds"):
        classifier.mask_probability(np.concatenate([crop(0), crop(100)]))

    assert classifier.mask_probability(crop(0)).tolist() == pytest.approx([0.9])


def test_a_frame_on_which_the_network_fails_is_dead_lettered_and_the_others_of_its_batch_are_labelled(
    server: Server, processes: Processes, tmp_path: Path
) -> None:
    write_model(tmp_path / "model", network_that_fails_on_grey(SIZE_PX))
    for camera, value in {"first": 0, "grey": 100, "last": 0}.items():
        Feed(server, camera).forward(crop(value))

    classifier = processes.start("classify", "--models", tmp_path / "model", redis=server)
    wait_until(lambda: len(results(server)) == 3, 30, "all three frames have ended")
    Feed(server, "later").forward(crop(0))
    wait_until(lambda: "later" in results(server), 10, "the classifier goes on")

    assert {camera: result.outcome for camera, result in results(server).items()} == {
        "first": "labelled",
        "grey": "dead",
        "last": "labelled",
        "later": "labelled",
    }
    (dead,) = list_dead_letters(server.bus)
    assert (dead.camera, "out of data bounds" in dead.letter.error) == ("grey", True)
    assert classifier.poll() is None
    assert live(server, "classifier")


def test_frames_with_crops_of_two_sizes_share_a_batch(server: Server, processes: Processes, tmp_path: Path) -> None:
    write_model(tmp_path / "model", network_that_fails_on_grey(SIZE_PX))
    Feed(server, "small").forward(np.zeros((1, 64, 64, 3), np.uint8))
    Feed(server, "large").forward(crop(0))

    processes.start("classify", "--models", tmp_path / "model", redis=server)
    wait_until(lambda: len(results(server)) == 2, 30, "both frames have ended")

    assert {result.outcome for result in results(server).values()} == {"labelled"}


def test_crops_are_cut_from_pixels_in_shared_memory(server: Server, tmp_path: Path) -> None:
    ring = FrameRing(1, 3 * 200 * 300)
    image = np.zeros((200, 300, 3), np.uint8)
    image[:, 150:] = 255
    boxes = [(20.0, 20.0, 80.0, 100.0), (200.0, 20.0, 260.0, 100.0)]
    feed = Feed(server, "door")
    reader = Reader(server.bus, stage="faces", record_type=FaceCrops, consumer="classifier-1")
    reader.read(1)
    write_model(tmp_path / "model", network_that_fails_on_grey(SIZE_PX))
    card, source = read_card(tmp_path / "model"), CropSource()

    feed.forward_shared(ring, image, boxes)
    (entry,) = reader.read(1)
    crops = source.crops(reader, entry, card)
    asked = server.client.exists("{s0}:remote:faces")
    feed.forward_shared(ring, image, boxes)

    assert crops.shape == (2, SIZE_PX, SIZE_PX, 3)
    assert crops.min(axis=(1, 2, 3)).tolist() == [0, 255]
    assert not asked
    with pytest.raises(PixelsGone, match="overwritten"):
        source.crops(reader, entry, card)
    ring.close()


def test_a_classifier_that_cannot_map_a_frame_asks_for_crops_once_a_second(server: Server) -> None:
    ring = FrameRing(1, 3 * 200 * 300)
    feed, source = Feed(server, "door"), CropSource()
    reader = Reader(server.bus, stage="faces", record_type=FaceCrops, consumer="classifier-1")
    reader.read(1)
    feed.forward_shared(ring, np.zeros((200, 300, 3), np.uint8), [(20.0, 20.0, 80.0, 100.0)])
    (entry,) = reader.read(1)
    ring.close()

    asked = []
    for _ in range(2):
        with pytest.raises(PixelsGone, match="another machine"):
            source.crops(reader, entry, read_card(DEFAULT_FOLDER))
        asked.append(0 < server.client.pttl("{s0}:remote:faces") <= 5_000)
        server.client.delete("{s0}:remote:faces")

    assert asked == [True, False]


def test_a_classifier_that_cannot_map_frames_goes_on_asking_while_it_gets_crops(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    ring, box = FrameRing(1, 3 * 200 * 300), (20.0, 20.0, 80.0, 100.0)
    feed, source, crops = Feed(server, "door"), CropSource(), np.full((1, 8, 8, 3), 9, np.uint8)
    reader = Reader(server.bus, stage="faces", record_type=FaceCrops, consumer="classifier-1")
    reader.read(1)
    feed.forward_shared(ring, np.zeros((200, 300, 3), np.uint8), [box], crops)
    (entry,) = reader.read(1)
    ring.close()

    found = source.crops(reader, entry, read_card(DEFAULT_FOLDER))
    asked = server.client.exists("{s0}:remote:faces")
    server.client.config_set("maxmemory", "1")
    monkeypatch.setattr("workers.frame_pixels.ASK_INTERVAL_S", 0.0)
    again = source.crops(reader, entry, read_card(DEFAULT_FOLDER))

    assert asked
    assert found.tolist() == again.tolist() == crops.tolist()


def test_a_frame_that_takes_several_calls_stays_with_its_classifier(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = Reader(server.bus, stage="faces", record_type=FaceCrops, consumer="classifier-1")
    reader.read(1)
    Feed(server, "crowd").forward(np.concatenate([crop(0)] * 3))
    write_model(tmp_path / "model", network_that_fails_on_grey(SIZE_PX))
    classifier = load_classifier(tmp_path / "model")
    model = WarmClassifier(classifier=classifier, batcher=Batcher(max_crops=1))
    context = WorkerContext("classifier", server.url)
    renewed: list[list[str]] = []
    monkeypatch.setattr(reader, "renew", lambda entries: renewed.append([one.record.camera for one in entries]))

    classify(context, reader, model, reader.read(1), CropSource())

    assert renewed == [["crowd"], ["crowd"], []]
    assert len(results(server)["crowd"].faces) == 3
    context.client.close()


def test_a_frame_that_expires_behind_others_of_its_batch_is_dropped(server: Server, tmp_path: Path) -> None:
    bus = server.bus

    def monotonic() -> float:  # half a minute passes as soon as the first frame is labelled
        return time.monotonic() + (31.0 if server.client.exists("{s0}:results") else 0.0)

    bus.clock = Clock(server.client, monotonic=monotonic)
    reader = Reader(bus, stage="faces", record_type=FaceCrops, consumer="classifier-1")
    reader.read(1)
    for name in ("first", "second"):
        Feed(server, name, deadline_s=30).forward(crop(0))
    write_model(tmp_path / "model", network_that_fails_on_grey(SIZE_PX))
    classifier = load_classifier(tmp_path / "model")
    model = WarmClassifier(classifier=classifier, batcher=Batcher(max_crops=1))
    context = WorkerContext("classifier", server.url)

    classify(context, reader, model, reader.read(2), CropSource())

    assert {camera: result.reason for camera, result in results(server).items()} == {"first": None, "second": "expired"}
    context.client.close()
