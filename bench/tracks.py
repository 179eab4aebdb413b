"""Compare trackers by people counted, switches of identity and flips of labels: `python -m bench.tracks`.

    python -m bench.tracks [--seed 1]

All get the same boxes: made scenes with known identities, the demo scene, and the clips of hands over faces under
MASKWATCH_DATA. Printed of each scene: people a minute, how often our labels flip, a minute of a track, and of each
tracker the people that it counts and the switches. A person is counted for each track that lasted for half a second and
was a sure face once. A switch is a change of a person's track, or of a track's person. Last comes the processor time of
a frame with 128 faces. Trackers of the packages norfair and trackers are compared if they are installed. Exit status 1
if our tracker counts more than a person a minute too many or too few in a clip or the demo scene.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import click

from bench import track_scenes
from bench.clip import data_folder
from bench.other_trackers import Update, trackers
from bench.track_scenes import TrackScene
from models.classifier import mask_classifier
from models.detector import face_detector
from pipeline.vision.faces import MAX_FACES, Face
from pipeline.vision.tracks import FaceTracker

COUNTED_S = 0.5  # a shorter track is no person
COUNTED_SCORE = 0.6  # nor is one of which no box had such a score: hands look a little like faces
MAX_WRONG = 1.0  # people a minute too many or too few
SPEED_FRAMES = 200
MADE = (track_scenes.crossing, track_scenes.pillar, track_scenes.queue, track_scenes.turning)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What a tracker made of a scene.

    truth, counted: people a minute. switches: how often the track of a person changed, or the person of a track.
    """

    truth: float
    counted: float
    switches: int


def measure(scene: TrackScene, update: Update) -> Figures:
    """Run a tracker over a scene."""
    spans: dict[int, tuple[float, float, float]] = {}  # by track: begin, end, highest score
    tracks_of: dict[int, int] = {}  # by person, the last one
    people_of: dict[int, int] = {}  # by track
    switches = 0
    for index, seen in enumerate(scene.frames):
        at_s = index / scene.fps
        tracks = update([face for face, _ in seen], at_s)
        for (face, person), track in zip(seen, tracks, strict=True):
            if track is None:
                continue
            begin, _, score = spans.get(track, (at_s, at_s, 0.0))
            spans[track] = begin, at_s, max(score, face.score)
            if person is not None:
                switches += tracks_of.get(person, track) != track or people_of.get(track, person) != person
                tracks_of[person], people_of[track] = track, person
    counted = sum(end - begin >= COUNTED_S and score >= COUNTED_SCORE for begin, end, score in spans.values())
    minutes = scene.seconds / 60
    return Figures(truth=scene.people / minutes, counted=counted / minutes, switches=switches)


def flips_a_minute(scene: TrackScene) -> float:
    """Return how often our smoothed labels change, a minute of a track."""
    tracker, labels, flips, frames = FaceTracker(), dict[int, str](), 0, 0
    for index, seen in enumerate(scene.frames):
        for face in tracker.update([face for face, _ in seen], index / scene.fps):
            flips += labels.get(face.track, face.label) != face.label
            labels[face.track] = face.label
            frames += 1
    return 60 * scene.fps * flips / max(1, frames)


def microseconds(make: Callable[[float], Update]) -> float:
    """Return the mean processor time of a frame with as many faces as are labelled at most."""
    rng, update = random.Random(1), make(20)
    places = [(80.0 * (number % 16), 85.0 * (number // 16)) for number in range(MAX_FACES)]
    begun = time.process_time()
    for frame in range(SPEED_FRAMES):
        jittered = [(x + rng.gauss(0, 2), y + rng.gauss(0, 2)) for x, y in places]
        faces = [
            Face(box=(x, y, x + 50, y + 60), score=0.9, label="mask", confidence=0.95)
            for x, y in jittered
            if rng.random() > track_scenes.MISSED
        ]
        update(faces, frame / 20)
    return 1e6 * (time.process_time() - begun) / SPEED_FRAMES


def scenes(seed: int) -> list[TrackScene]:
    """Return all scenes; those with people who were recorded last."""
    made = [make(fps, seed) for make in MADE for fps in (5, 20)]
    models = face_detector.load_detector(), mask_classifier.load_classifier()
    clips = sorted(data_folder().joinpath("hand-over-face").glob("*.mkv"))
    return [
        *made,
        *(track_scenes.demo(fps, 60, models) for fps in (5, 20)),
        *(track_scenes.to_and_fro(clip, 60, every, models) for clip in clips for every in (1, 6)),
    ]


@click.command()
@click.option("--seed", default=1, show_default=True, help="Of the made scenes.")
def main(seed: int) -> None:
    """Measure."""
    compared = list(trackers())
    print(f"{'':<18} {'people':>7} {'flips':>6}  " + "  ".join(f"{name:>16}" for name, _ in compared))
    totals, held = [0] * len(compared), True
    for scene in scenes(seed):
        found = [measure(scene, make(scene.fps)) for _, make in compared]
        totals = [before + one.switches for before, one in zip(totals, found, strict=True)]
        cells = "  ".join(f"{one.counted:7.1f} {one.switches:8}" for one in found)
        print(f"{scene.name:<18} {found[0].truth:7.1f} {flips_a_minute(scene):6.2f}  {cells}", flush=True)
        is_made = scene.name.partition(",")[0] in [make.__name__ for make in MADE]
        held = held and (is_made or abs(found[0].counted - found[0].truth) <= MAX_WRONG)
    print(f"{'switches in all':<33}  " + "  ".join(f"{one:16}" for one in totals))
    times = [microseconds(make) for _, make in compared]
    print(f"{f'us a frame, {MAX_FACES} faces':<33}  " + "  ".join(f"{one:16.0f}" for one in times))
    print("people are counted right" if held else "PEOPLE ARE NOT COUNTED RIGHT")
    sys.exit(0 if held else 1)


if __name__ == "__main__":
    main()
