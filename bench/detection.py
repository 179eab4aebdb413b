"""Measure face detectors on annotated photographs, all faces as one class, and on clips that show one face.

    python -m bench.detection FOLDER [DETECTOR...] [--only HASHES] [--px 640] [--px 800] [--clips FOLDER]
        [--map NAME=mask|no_mask|ignore]

In: a folder with annotated photographs, and ONNX files of YuNet that was trained on; the published detector
with its outlines is always measured too, with one look at 640 px and with two looks. Out: a line for each detector and
size: accuracy, processor time a frame, and with --clips in how many frames a second, false face is found. A folder that
cannot be used fails with status 1.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from pathlib import Path

import click
import cv2
import numpy as np

from bench.accuracy import map_option, only_option, select_pictures
from models.detector.face_detector import FaceDetector
from models.files import ModelUnusable
from pipeline.vision.arrays import Image
from trainer.data.annotations import read_annotations
from trainer.data.class_names import ClassNames
from trainer.data.decoding import decode_picture
from trainer.data.published_detector import FIRST_PX, published_detector
from trainer.detection.fit import LOWEST_SCORE, find_all, second_faces, trained_detector
from trainer.detection.pictures import measured_picture
from trainer.detection.precision import detection_figures

# The frames that are timed: how large, how many, and how many before.
WIDTH, HEIGHT, TIMED, WARM_UP = 1280, 720, 60, 3

COLUMNS = ("ap", "ap_16px", "recall_at_95", "precision", "recall", "recall_mask", "recall_no_mask")


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("detectors", nargs=-1, type=click.Path(path_type=Path))
@only_option
@map_option
@click.option("--px", "sizes_px", type=int, multiple=True, default=(640, 800), show_default=True, help="Long side.")
@click.option("--clips", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Of one face each.")
def main(
    folder: Path,
    detectors: tuple[Path, ...],
    only: Path | None,
    class_names: tuple[str, ...],
    sizes_px: tuple[int, ...],
    clips: Path | None,
) -> None:
    """Print average precision, precision and recall of DETECTORS on the photographs in FOLDER."""
    cv2.setNumThreads(1)
    try:
        pictures = read_annotations(folder, ClassNames(class_names))
        if only is not None:
            pictures = select_pictures(pictures, only)
        measured = [measured_picture(folder.name, picture.path, picture.faces) for picture in pictures]
        click.echo(
            f"{len(measured)} pictures".ljust(30)
            + "".join(name.rjust(15) for name in COLUMNS)
            + f"  ms {WIDTH}x{HEIGHT}  second faces"
        )
        paths = sorted(clips.iterdir()) if clips else []
        frames = [_frame(picture.path.read_bytes()) for picture in measured[:TIMED]]
        for name, detector in _detectors(detectors, sizes_px).items():
            figures = detection_figures(measured, find_all(detector, measured))
            second = "" if clips is None else f"{sum(sum(second_faces(detector, one)) for one in paths)}".rjust(15)
            cells = "".join(_number(figures, column).rjust(15) for column in COLUMNS)
            click.echo(name.ljust(30) + cells + f"{_milliseconds(detector, frames):.1f}".rjust(13) + second)
    except (ModelUnusable, ValueError, OSError) as error:
        raise click.ClickException(str(error)) from error


def _detectors(files: tuple[Path, ...], sizes_px: tuple[int, ...]) -> dict[str, FaceDetector]:
    found = {f"published, {FIRST_PX} px": published_detector(FIRST_PX, score_threshold=LOWEST_SCORE)}
    found["published, two looks"] = published_detector(score_threshold=LOWEST_SCORE)
    for file in files:
        for px in sizes_px:
            name = f"{file.parent.name}/{file.name}, {px} px"
            found[name] = trained_detector(file.read_bytes(), input_px=px)
    return found


def _frame(content: bytes) -> Image:
    return np.asarray(cv2.resize(decode_picture(content), (WIDTH, HEIGHT)), np.uint8)


def _milliseconds(detector: FaceDetector, frames: list[Image]) -> float:
    """Return the median processor time of a frame; the first ones warm up."""
    took_s = []
    for frame in [*frames[:WARM_UP], *frames]:
        began = time.process_time()
        detector.find(frame)
        took_s.append(time.process_time() - began)
    return 1000 * statistics.median(took_s[WARM_UP:])


def _number(figures: Mapping[str, float], name: str) -> str:
    return f"{figures[name]:.3f}" if name in figures else "-"


if __name__ == "__main__":
    main()
