"""Events about faces get a thumbnail of pixels that the camera was asked for; without pixels they have none."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import msgspec
import numpy as np
import pytest
from conftest import Server
from feeding import Feed, face

from events.camera_watch import CameraWatch
from events.event_types import Change
from events.rule_file import parse_rules
from events.thumbnailer import ASK_MS, MAX_LATE_S, Thumbnailer
from events.thumbnails import Thumbnail
from pipeline.bus.messages import FrameResult
from pipeline.runtime.worker_context import WorkerContext
from pipeline.vision.arrays import Image
from pipeline.vision.jpeg import decode_jpeg, encode_jpeg

RULE = "[[rules]]\nkind = 'no_mask'\nname = 'bare'\nseconds = {}\n"
BARE = face("no_mask")


@pytest.fixture
def context(server: Server) -> Iterator[WorkerContext]:
    found = WorkerContext("recorder", server.url)
    yield found
    found.client.close()


def scene() -> Image:
    """Return an image whose face is black and white stripes, on grey."""
    image = np.full((360, 640, 3), 127, np.uint8)
    stripes = np.arange(140) // 8 % 2 * 255
    image[80:220, 200:320] = stripes[:, np.newaxis, np.newaxis]
    return image


def labelled(feed: Feed) -> FrameResult:
    """Publish the scene, and label its face."""
    feed.publish(encode_jpeg(scene(), 95))
    return feed.label(BARE)


def later(result: FrameResult, seconds: float) -> FrameResult:
    """Return a result of a later frame, which has no pixels."""
    fields = {"seq": result.seq + 1, "captured_at": result.captured_at + seconds, "pixels_key": "{s0}:pixels:demo:1:0"}
    return msgspec.structs.replace(result, **fields)


def taken(thumbnailer: Thumbnailer, watch: CameraWatch, *results: FrameResult) -> list[dict[str, Thumbnail]]:
    """Return the thumbnails after each result."""
    found = []
    for result in results:
        thumbnailer.add(watch, result, watch.add(result))
        found.append(thumbnailer.take())
    return found


@pytest.mark.parametrize("blurred", [True, False], ids=["blurred", "plain"])
def test_an_event_has_a_thumbnail_of_the_frame_with_which_it_opens(
    blurred: bool, server: Server, context: WorkerContext
) -> None:
    watch, result = CameraWatch("demo", parse_rules(RULE.format(0))), labelled(Feed(server))

    (found,) = taken(Thumbnailer(context, blurred=blurred), watch, result)

    ((event_id, thumbnail),) = found.items()
    contrast = decode_jpeg(thumbnail.jpeg).std()
    assert len(event_id) == 32
    assert (thumbnail.captured_at, thumbnail.blurred) == (result.captured_at, blurred)
    assert contrast < 15 if blurred else contrast > 30


def test_a_face_that_was_seen_before_and_is_not_found_for_a_moment_is_blurred(
    server: Server, context: WorkerContext
) -> None:
    watch, feed = CameraWatch("demo", parse_rules(RULE.format(0) + "cooldown_s = 60\n")), Feed(server)
    other = msgspec.structs.replace(BARE, box=(500.0, 80.0, 620.0, 220.0))
    first = labelled(feed)
    watch.add(first)
    feed.publish(encode_jpeg(scene(), 95))
    second = msgspec.structs.replace(feed.label(other), captured_at=first.captured_at + 0.1)
    watch.add(second)
    (event,) = (change.event for change in CameraWatch("demo", parse_rules(RULE.format(0))).add(second))
    opened = Change(phase="opened", event=msgspec.structs.replace(event, track=None))
    thumbnailer = Thumbnailer(context, blurred=True)

    thumbnailer.add(watch, second, [opened])

    (thumbnail,) = thumbnailer.take().values()
    assert decode_jpeg(thumbnail.jpeg).std() < 15


def test_a_camera_is_asked_for_pixels_before_an_event_opens(server: Server, context: WorkerContext) -> None:
    watch, feed = CameraWatch("demo", parse_rules(RULE.format(5))), Feed(server)

    found = taken(Thumbnailer(context, blurred=True), watch, labelled(feed))

    assert found == [{}]
    assert 0 < int(server.client.pttl("{s0}:watched:demo")) <= ASK_MS  # type: ignore[arg-type]


def test_a_camera_without_anything_to_see_is_asked_for_nothing(server: Server, context: WorkerContext) -> None:
    watch, feed = CameraWatch("demo", parse_rules(RULE.format(5))), Feed(server)
    feed.publish()

    found = taken(Thumbnailer(context, blurred=True), watch, feed.label(face("mask")))

    assert found == [{}]
    assert not server.client.exists("{s0}:watched:demo")


def test_a_frame_without_pixels_is_replaced_by_the_next_one_that_has_some(
    server: Server, context: WorkerContext
) -> None:
    watch, feed = CameraWatch("demo", parse_rules(RULE.format(0))), Feed(server)
    first = labelled(feed)
    server.client.delete(first.pixels_key)
    second = msgspec.structs.replace(labelled(feed), captured_at=first.captured_at + 0.5)

    before, after = taken(Thumbnailer(context, blurred=True), watch, first, second)

    assert before == {}
    assert [one.captured_at for one in after.values()] == [second.captured_at]


def test_an_event_whose_pixels_do_not_come_has_no_thumbnail_and_the_log_says_so(
    server: Server, context: WorkerContext, caplog: pytest.LogCaptureFixture
) -> None:
    watch, feed = CameraWatch("demo", parse_rules(RULE.format(0))), Feed(server)
    caplog.set_level(logging.INFO)
    first = labelled(feed)
    server.client.delete(first.pixels_key)

    found = taken(Thumbnailer(context, blurred=True), watch, first, later(first, MAX_LATE_S + 0.1))

    assert found == [{}, {}]
    assert "has no thumbnail: its pixels are gone" in caplog.text


def test_a_frame_of_another_time_is_no_thumbnail_of_an_event_whose_pixels_are_gone(
    server: Server, context: WorkerContext
) -> None:
    watch, feed = CameraWatch("demo", parse_rules(RULE.format(0) + "cooldown_s = 600\n")), Feed(server)
    first = labelled(feed)
    server.client.delete(first.pixels_key)
    much_later = msgspec.structs.replace(labelled(feed), captured_at=first.captured_at + 300)

    found = taken(Thumbnailer(context, blurred=True), watch, first, much_later)

    assert found == [{}, {}]


def test_damaged_pixels_and_faces_that_cannot_be_blurred_give_no_thumbnail(
    server: Server, context: WorkerContext, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    feed = Feed(server)
    damaged = labelled(feed)
    server.client.set(damaged.pixels_key, b"\xff\xd8 no picture")
    crowded = msgspec.structs.replace(labelled(feed), left_out=3)

    found = [
        taken(Thumbnailer(context, blurred=True), CameraWatch("demo", parse_rules(RULE.format(0))), result)
        for result in (damaged, crowded)
    ]

    assert found == [[{}], [{}]]
    assert "more faces than can be blurred" in caplog.text
    assert "not a JPEG" in caplog.text
