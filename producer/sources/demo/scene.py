"""The demo's scene: five people in a softly lit room, some masked, some taking the mask off and putting it on.

It needs no camera and no data. `Scene.render` is a pure function of the frame's index: the same seed, rate and index
give the same frame.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import pi, sin

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.vision.arrays import Image
from producer.sources.demo.frame_number import write_number
from producer.sources.demo.masks import BLACK, SURGICAL, WHITE
from producer.sources.demo.people import Look, Person, load_photograph
from producer.sources.source import Kind, SourceFrame

WIDTH, HEIGHT = 1280, 720
COUNTER_Y = 432  # upper edge of the counter, which hides the lower part of the people behind it
CHANGE_S = 0.6  # how long it takes to put a mask on or off


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """A person in the scene: where they move, and when the mask is on.

    x, y: the middle of the face's path, pixels. sway: how far it goes to either side, pixels.
    bare_s, masked_s: how long the mask is off and on, alternating; masked_s 0 for never on, bare_s 0 for never off.
    """

    look: Look
    behind_counter: bool
    x: float
    y: float
    sway: tuple[float, float]
    bare_s: float
    masked_s: float


# Those in the back first: the counter is drawn over them, and then those in front of it.
ACTORS = (
    Actor(
        look=Look(face_px=72, mirrored=True, suit_hue=100, hair=(0.6, 0.5, 0.46), light=0.86, warmth=-0.6, cloth=WHITE),
        behind_counter=True, x=120, y=322, sway=(48, 5), bare_s=0, masked_s=1,
    ),
    Actor(
        look=Look(
            face_px=64, mirrored=False, suit_hue=40, hair=(0.85, 0.72, 0.9), light=0.8, warmth=0.2, cloth=SURGICAL
        ),
        behind_counter=True, x=672, y=330, sway=(52, 4), bare_s=1, masked_s=0,
    ),
    Actor(
        look=Look(face_px=92, mirrored=False, suit_hue=165, hair=(0.45, 0.40, 0.38), light=1, warmth=0.5, cloth=BLACK),
        behind_counter=True, x=1168, y=296, sway=(36, 6), bare_s=5, masked_s=7,
    ),
    Actor(
        look=Look(face_px=200, mirrored=False, suit_hue=0, hair=(1, 1, 1), light=1.02, warmth=0.1, cloth=SURGICAL),
        behind_counter=False, x=392, y=372, sway=(46, 10), bare_s=4, masked_s=8,
    ),
    Actor(
        look=Look(
            face_px=150, mirrored=True, suit_hue=85, hair=(0.66, 0.62, 0.7), light=0.92, warmth=-0.3, cloth=BLACK
        ),
        behind_counter=False, x=926, y=436, sway=(54, 9), bare_s=1, masked_s=0,
    ),
)  # fmt: skip


class Scene:
    """The scene at a frame rate. seed: shifts the times at which people move and change."""

    def __init__(self, *, fps: float, seed: int) -> None:
        photograph = load_photograph()
        self._fps = fps
        self._room = _room()
        self._counter = self._room[COUNTER_Y:].copy()
        self.people = [Person(photograph, actor.look) for actor in ACTORS]
        self._phases = np.random.default_rng(seed).uniform(0, 1, (len(ACTORS), 4))

    def render(self, index: int) -> Image:
        """Return frame `index`, BGR uint8 720 x 1280 x 3."""
        frame = self._room.copy()
        for number, actor in enumerate(ACTORS):
            if number and ACTORS[number - 1].behind_counter and not actor.behind_counter:
                frame[COUNTER_Y:] = self._counter
            x, y, rotation = self.pose(number, index)
            mask_off = self.mask_off(number, index)
            self.people[number].draw(frame, x=x, y=y, rotation_degrees=rotation, mask_off=mask_off)
        return frame

    def pose(self, number: int, index: int) -> tuple[float, float, float]:
        """Return where a person's face is and how far it is rotated, degrees."""
        actor, phases, at_s = ACTORS[number], self._phases[number], index / self._fps
        x = actor.x + actor.sway[0] * sin(2 * pi * (at_s / (9 + 2 * number) + phases[0]))
        y = actor.y + actor.sway[1] * sin(2 * pi * (at_s / (3.5 + 0.4 * number) + phases[1]))
        return x, y, 4.0 * sin(2 * pi * (at_s / (5 + 0.7 * number) + phases[2]))

    def mask_off(self, number: int, index: int) -> float:
        """Return 0 for a mask that is on, 1 for off, and a value between while it moves."""
        actor = ACTORS[number]
        if not actor.bare_s or not actor.masked_s:
            return 0.0 if actor.masked_s else 1.0
        period_s = actor.masked_s + actor.bare_s
        at_s = (index / self._fps + self._phases[number][3] * period_s) % period_s
        leaving, coming = (at_s - actor.masked_s) / CHANGE_S, (period_s - at_s) / CHANGE_S
        progress = min(max(leaving, 0.0), max(coming, 0.0), 1.0)
        return float(progress * progress * (3 - 2 * progress))  # smooth at both ends


class DemoSource:
    """The scene as a source: it renders a frame whenever one is asked for."""

    kind: Kind = "demo"
    is_live = False

    def __init__(self, *, numbered: bool, frames: int | None, fps: float, seed: int) -> None:
        """Prepare the scene; see SourceSpec. A missing photograph raises SourceFailed."""
        self._numbered = numbered
        self.total = frames
        self._scene = Scene(fps=fps, seed=seed)

    def __iter__(self) -> Iterator[SourceFrame]:
        index = 0
        while self.total is None or index < self.total:
            image = self._scene.render(index)
            if self._numbered:
                write_number(image, index)
            yield SourceFrame(name=f"demo-{index:06d}", index=index, width=WIDTH, height=HEIGHT, image=image)
            index += 1

    def close(self) -> None:
        """Do nothing: nothing is open."""


def _room() -> Image:
    """Return the room, a little out of focus: a wall, a window, a door, shelves and a counter."""
    room = np.full((HEIGHT, WIDTH, 3), (168, 182, 190), np.float32)
    cv2.rectangle(room, (500, 40), (860, 300), (232, 226, 214), -1)  # window
    for x in (500, 620, 740, 860):
        cv2.line(room, (x, 40), (x, 300), (150, 158, 164), 9)
    for y in (40, 300):
        cv2.line(room, (496, y), (864, y), (150, 158, 164), 11)
    cv2.rectangle(room, (1030, 60), (1260, 460), (122, 146, 160), -1)  # door
    cv2.rectangle(room, (1052, 86), (1238, 250), (134, 158, 171), -1)
    cv2.rectangle(room, (30, 120), (330, 134), (108, 128, 142), -1)  # shelves with books
    cv2.rectangle(room, (30, 214), (330, 228), (108, 128, 142), -1)
    books = np.random.default_rng(7)
    for shelf_y in (120, 214):
        x = 40
        while x < 300:
            width, height = int(books.integers(10, 24)), int(books.integers(42, 74))
            colour = books.uniform(70, 190, 3) * np.array([0.9, 0.95, 1.0])
            cv2.rectangle(room, (x, shelf_y - height), (x + width, shelf_y - 1), colour.tolist(), -1)
            x += width + 2
    room = cv2.GaussianBlur(room, (0, 0), 7)
    cv2.rectangle(room, (0, COUNTER_Y), (WIDTH, HEIGHT), (98, 118, 134), -1)
    cv2.rectangle(room, (0, COUNTER_Y), (WIDTH, COUNTER_Y + 22), (140, 160, 174), -1)
    for x in range(-60, WIDTH, 160):
        cv2.line(room, (x, COUNTER_Y + 26), (x, HEIGHT), (84, 102, 118), 4)
    room[COUNTER_Y + 6 :] = cv2.GaussianBlur(room[COUNTER_Y + 6 :], (0, 0), 3)
    return _lit(room)


def _lit(room: NDArray[np.float32]) -> Image:
    """Return the room with light from the window, darker corners, and a little grain, which hides banding."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    away = ((x - 680) / 760) ** 2 + ((y - 220) / 560) ** 2
    light = 0.70 + 0.36 * np.exp(-away)
    grain = np.random.default_rng(3).normal(0, 1.2, (HEIGHT, WIDTH)).astype(np.float32)
    return np.asarray(np.clip(room * light[:, :, None] + grain[:, :, None], 0, 255), np.uint8)
