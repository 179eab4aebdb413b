"""Boxes of faces frame by frame, with the person that each belongs to: made scenes, the demo scene, and real clips.

Made scenes are drawn from a seed: boxes that jitter, faces that are missed, people who hide each other or walk behind
a pillar. The others are what the detector and the classifier find, recorded once for all trackers.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.loop import label_image
from models.classifier.mask_classifier import MaskClassifier
from models.detector.face_detector import FaceDetector
from pipeline.vision.arrays import Image
from pipeline.vision.boxes import iou
from pipeline.vision.faces import Box, Face, Label
from producer.sources.demo.scene import ACTORS, Scene
from producer.sources.source_spec import parse_source

WIDTH, HEIGHT = 1280, 720
MISSED = 0.07  # share of the faces of made scenes that are not detected
WRONG = 0.03  # share of their labels that are wrong
JITTER = 0.03  # of their boxes: standard deviation, of the face's size
HIDING_IOU = 0.15  # from which overlap on somebody in front hides a face
PILLAR = (560.0, 760.0)  # pixels: what is between them cannot be seen

Models = tuple[FaceDetector, MaskClassifier]
Seen = tuple[Face, int | None]  # a face, and whose it is; None for what is no face of a person


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackScene:
    """Some frames of one camera. people: how many there are, each of whom comes once."""

    name: str
    fps: float
    frames: Sequence[Sequence[Seen]]
    people: int

    @property
    def seconds(self) -> float:
        """Its length."""
        return len(self.frames) / self.fps


@dataclass(frozen=True, slots=True, kw_only=True)
class Walker:
    """Somebody on a straight path. x, y: where the face is at `begin`, pixels. speed: pixels a second.

    size: width of the face in pixels; the larger of two faces is in front. masked: whether a mask is worn.
    sway: how far the face moves to either side of its path, pixels, and in how many seconds there and back.
    """

    x: float
    y: float
    size: float
    speed: tuple[float, float]
    begin: float
    end: float
    masked: bool = True
    sway: tuple[float, float] = (0.0, 1.0)

    def box(self, at: float) -> Box | None:
        """Return the true box at a time in seconds; None while nobody is there."""
        x = self.x + self.speed[0] * (at - self.begin) + self.sway[0] * math.sin(2 * math.pi * at / self.sway[1])
        y = self.y + self.speed[1] * (at - self.begin)
        half = self.size / 2
        inside = half < x < WIDTH - half and half < y < HEIGHT - half
        return (x - half, y - 1.2 * half, x + half, y + 1.2 * half) if inside and self.begin <= at < self.end else None


def crossing(fps: float, seed: int) -> TrackScene:
    """Return a minute in which pairs of people cross each other, every five seconds, one in front of the other."""
    rng, walkers = random.Random(seed), []
    for begin in range(0, 55, 5):
        y, masked = rng.uniform(200, 500), rng.random() < 0.5
        for left in (True, False):
            speed, size = rng.uniform(150, 320), rng.uniform(55, 110)
            start = 90.0 if left else WIDTH - 90.0
            walkers.append(
                Walker(
                    x=start, y=y + rng.uniform(-15, 15), size=size, speed=(speed if left else -speed, 0),
                    begin=begin, end=60, masked=masked == left,
                )
            )  # fmt: skip
    return _made(f"crossing, {fps:g}/s", walkers, fps, rng, pillar=None)


def pillar(fps: float, seed: int) -> TrackScene:
    """Return a minute in which people walk behind a pillar that hides each of them for 2 s."""
    rng, walkers = random.Random(seed), []
    for begin in range(0, 52, 4):
        left, speed, size = rng.random() < 0.5, rng.uniform(120, 150), rng.uniform(60, 90)
        walkers.append(
            Walker(
                x=PILLAR[0] - 250 if left else PILLAR[1] + 250, y=rng.uniform(200, 500), size=size,
                speed=(speed if left else -speed, rng.uniform(-10, 10)), begin=begin, end=begin + 7.5,
                masked=rng.random() < 0.5,
            )
        )  # fmt: skip
    return _made(f"pillar, {fps:g}/s", walkers, fps, rng, pillar=PILLAR)


def queue(fps: float, seed: int) -> TrackScene:
    """Return a minute of people who wait side by side, and sway, while others pass in front of them."""
    rng = random.Random(seed)
    walkers = [
        Walker(x=200.0 + 150 * place, y=350, size=70, speed=(0, 0), begin=0, end=60, masked=place % 2 == 0)
        for place in range(6)
    ]
    for begin in range(3, 55, 6):
        speed = rng.uniform(200, 350)
        walkers.append(Walker(x=80, y=370, size=100, speed=(speed, 0), begin=begin, end=60, masked=rng.random() < 0.5))
    return _made(f"queue, {fps:g}/s", walkers, fps, rng, pillar=None)


def turning(fps: float, seed: int) -> TrackScene:
    """Return a minute of people who walk to and fro, each in a row of their own, at speeds that change all the time."""
    rng = random.Random(seed)
    walkers = [
        Walker(
            x=rng.uniform(400, 800), y=120 + 110 * row, size=rng.uniform(55, 80), speed=(0, 0), begin=0, end=60,
            masked=rng.random() < 0.5, sway=(rng.uniform(60, 200), rng.uniform(4, 8)),
        )
        for row in range(5)
    ]  # fmt: skip
    return _made(f"turning, {fps:g}/s", walkers, fps, rng, pillar=None)


def demo(fps: int, seconds: int, models: Models) -> TrackScene:
    """Return what is found in the demo scene; the person of a face is the actor who is nearest."""
    scene = Scene(fps=fps, seed=0)

    def whose(found: Sequence[Face], index: int) -> list[int | None]:
        poses = [scene.pose(number, index)[:2] for number in range(len(ACTORS))]
        return [_nearest(_middle(face.box), poses, face.box[2] - face.box[0]) for face in found]

    images = (scene.render(index) for index in range(fps * seconds))
    return _recorded(f"demo, {fps}/s", fps, images, models, whose, len(ACTORS))


def to_and_fro(clip: Path, seconds: int, every: int, models: Models) -> TrackScene:
    """Return what is found in a clip of one person, played forth and back for some time.

    every: 1 for all its frames, 6 for every sixth. The person is the surest face of a frame.
    """
    source = parse_source(str(clip)).open()
    images = [np.asarray(frame.image) for frame in source]
    source.close()
    fps = 30 / every
    once = _recorded(
        f"{clip.stem}, {fps:g}/s", fps, images, models, lambda found, _: _surest(found), 1
    )  # fmt: skip
    there_and_back = [*once.frames, *once.frames[-2:0:-1]]
    wanted = range(0, round(seconds * fps) * every, every)
    frames = [there_and_back[index % len(there_and_back)] for index in wanted]
    return TrackScene(name=once.name, fps=fps, frames=frames, people=1)


def _recorded(
    name: str,
    fps: float,
    images: Iterator[Image] | Sequence[Image],
    models: Models,
    whose: Callable[[Sequence[Face], int], list[int | None]],
    people: int,
) -> TrackScene:
    frames = []
    for index, image in enumerate(images):
        _, found = label_image(image, *models)
        frames.append(list(zip(found, whose(found, index), strict=True)))
    return TrackScene(name=name, fps=fps, frames=frames, people=people)


def _made(
    name: str, walkers: Sequence[Walker], fps: float, rng: random.Random, pillar: tuple[float, float] | None
) -> TrackScene:
    """Return what a detector would find of some people."""
    frames = []
    for index in range(round(60 * fps)):
        boxes = {number: box for number, one in enumerate(walkers) if (box := one.box(index / fps))}
        seen: list[Seen] = []
        for number, box in boxes.items():
            hidden = pillar is not None and pillar[0] < (box[0] + box[2]) / 2 < pillar[1]
            in_front = [boxes[other] for other in boxes if walkers[other].size > walkers[number].size]
            hidden = hidden or (bool(in_front) and bool(iou([box], in_front).max() > HIDING_IOU))
            if not hidden and rng.random() >= MISSED:
                seen.append((_jittered(box, walkers[number].masked, rng), number))
        rng.shuffle(seen)
        frames.append(seen)
    return TrackScene(name=name, fps=fps, frames=frames, people=len(walkers))


def _jittered(box: Box, masked: bool, rng: random.Random) -> Face:
    by = JITTER * (box[2] - box[0])
    x1, y1, x2, y2 = (side + rng.gauss(0, by) for side in box)
    label: Label = "mask" if masked != (rng.random() < WRONG) else "no_mask"
    return Face(box=(x1, y1, x2, y2), score=0.9, label=label, confidence=rng.uniform(0.85, 0.99))


def _middle(box: Box) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def _nearest(middle: tuple[float, float], poses: Sequence[tuple[float, float]], within: float) -> int | None:
    distances = [np.hypot(middle[0] - x, middle[1] - y) for x, y in poses]
    return int(np.argmin(distances)) if min(distances) < within else None


def _surest(found: Sequence[Face]) -> list[int | None]:
    surest = max(range(len(found)), key=lambda number: found[number].score, default=None)
    return [0 if number == surest else None for number in range(len(found))]
