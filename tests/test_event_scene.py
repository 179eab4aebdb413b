"""A scene whose events are known: recorders that are killed, a Redis that restarts, a database that is away."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.event_scene.run import MAX_DIFFERENCE_S, Plan, run
from bench.event_scene.scene import FULL_S, SHORT_S, Expected, results, table
from bench.event_scene.undisturbed import events_of
from bench.loop import label_image
from events.database import BUSY_TIMEOUT_S
from models.classifier import mask_classifier
from models.detector import face_detector
from pipeline.bus import messages
from pipeline.bus.messages import FrameResult
from producer.sources.demo.scene import ACTORS, HEIGHT, WIDTH, Scene

BEGIN = 1_700_000_000.0
DEMO_S, DEMO_FPS = 20, 5


@pytest.fixture
def folder() -> Iterator[Path]:
    found = Path(tempfile.mkdtemp(prefix="mw-"))
    yield found
    shutil.rmtree(found)


def check(found: list[Expected], expected: list[Expected]) -> None:
    """Check that the same events were found, with times within half a second."""
    assert [(one.rule, one.camera) for one in found] == [(one.rule, one.camera) for one in sorted(expected)], found
    for one, other in zip(found, sorted(expected), strict=True):
        assert (one.begin, one.end) == pytest.approx((other.begin, other.end), abs=MAX_DIFFERENCE_S)


# 11, 27: a wrong label soon after a mask is put on; 22: a missed face
@pytest.mark.parametrize("seed", [1, 11, 22, 27])
def test_the_scene_of_ten_minutes_has_the_events_of_its_table(seed: int) -> None:
    frames = results(FULL_S, BEGIN, seed)

    found = events_of(frames, BEGIN)

    check(found, table(FULL_S))


@pytest.mark.parametrize(
    ("recorders", "kills", "database", "away"),
    [(1, 2, "sqlite", "database is locked"), (3, 1, "postgresql", "its database is away")],
    ids=["one", "three"],
)
def test_recorders_that_are_killed_without_redis_and_database_lose_and_double_no_event(
    recorders: int, kills: int, database: str, away: str, folder: Path, request: pytest.FixtureRequest
) -> None:
    if database == "postgresql":
        request.getfixturevalue("postgresql")  # skips, or fails in CI, where there is none
    outage_s = 2 * BUSY_TIMEOUT_S  # so that a recorder notices, whatever else the machine does
    plan = Plan(
        seconds=SHORT_S,
        speed=12,
        recorders=recorders,
        kills=kills,
        outage_s=outage_s,
        seed=recorders,
        database=database,
    )

    outcome = run(plan, folder)

    assert outcome.held, outcome
    assert away in (folder / "recorders.log").read_text()


def test_what_the_networks_see_of_the_demo_scene_makes_the_events_that_its_people_act() -> None:
    models, demo = (face_detector.load_detector(), mask_classifier.load_classifier()), Scene(fps=DEMO_FPS, seed=0)

    frames = [demo_result(seq, label_image(demo.render(seq), *models)[1]) for seq in range(DEMO_S * DEMO_FPS)] + [
        demo_result(seq, []) for seq in range(DEMO_S * DEMO_FPS, (DEMO_S + 3) * DEMO_FPS)
    ]
    found = events_of(frames, BEGIN, "[[rules]]\nkind = 'no_mask'\nname = 'bare'\nseconds = 2\n")

    check(found, acted(demo))


def demo_result(seq: int, faces: list[messages.Face]) -> FrameResult:
    """Return the result of a frame of the demo scene."""
    start = round(BEGIN * 1000)
    return FrameResult(
        frame_id=messages.frame_id("demo", start, seq),
        camera="demo",
        start=start,
        seq=seq,
        width=WIDTH,
        height=HEIGHT,
        pixels_key=f"{{s0}}:pixels:demo:{start}:{seq}",
        captured_at=BEGIN + seq / DEMO_FPS,
        deadline_at=None,
        outcome="labelled",
        faces=faces,
        model="test",
    )


def acted(demo: Scene) -> list[Expected]:
    """Return when the people of the demo scene wear no mask for 2 s or more: when it is more off than on."""
    found = []
    for number in range(len(ACTORS)):
        begin: int | None = None
        for index in range(DEMO_S * DEMO_FPS + 1):
            bare = index < DEMO_S * DEMO_FPS and demo.mask_off(number, index) >= 0.5
            if bare and begin is None:
                begin = index
            elif not bare and begin is not None:
                if index - begin >= 2 * DEMO_FPS:
                    found.append(Expected("bare", "demo", begin / DEMO_FPS, (index - 1) / DEMO_FPS))
                begin = None
    return found
