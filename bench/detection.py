"""Measure face detectors on annotated photographs, all faces as one class, and on clips that show one face.

    python -m bench.detection FOLDER [DETECTOR...] [--only HASHES] [--px 640] [--px 800] [--clips FOLDER]

In: a folder with images and Pascal VOC annotations, and ONNX files of YuNet that was trained on; the published detector
with its outlines is always measured too, at 640 px and as it is served. Out: a line for each detector and size. With
--clips, also in how many frames a second, false face is found. Folders that cannot be used fail with status 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import click

from bench.accuracy import only_option, select_pictures
from models.detector.face_detector import FIRST_PX, FaceDetector, load_detector, trained_detector
from models.files import ModelUnusable
from trainer.data.annotations import read_annotations
from trainer.data.decoding import clip_frames
from trainer.detection.fit import LOWEST_SCORE, find_all
from trainer.detection.pictures import measured_picture
from trainer.detection.precision import SERVED_SCORE, detection_figures

COLUMNS = ("ap", "ap_16px", "recall_at_95", "precision", "recall", "recall_mask", "recall_no_mask")


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("detectors", nargs=-1, type=click.Path(path_type=Path))
@only_option
@click.option("--px", "sizes_px", type=int, multiple=True, default=(640, 800), show_default=True, help="Long side.")
@click.option("--clips", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Of one face each.")
def main(
    folder: Path, detectors: tuple[Path, ...], only: Path | None, sizes_px: tuple[int, ...], clips: Path | None
) -> None:
    """Print average precision, precision and recall of DETECTORS on the photographs in FOLDER."""
    try:
        pictures = read_annotations(folder)
        if only is not None:
            pictures = select_pictures(pictures, only)
        measured = [measured_picture(folder.name, picture.path, picture.faces) for picture in pictures]
        click.echo(
            f"{len(measured)} pictures".ljust(30) + "".join(name.rjust(15) for name in COLUMNS) + "  second faces"
        )
        for name, detector in _detectors(detectors, sizes_px).items():
            figures = detection_figures(measured, find_all(detector, measured))
            second = "" if clips is None else f"{sum(map(int, _second_faces(detector, clips)))}".rjust(15)
            click.echo(name.ljust(30) + "".join(_number(figures, column).rjust(15) for column in COLUMNS) + second)
    except (ModelUnusable, ValueError, OSError) as error:
        raise click.ClickException(str(error)) from error


def _detectors(files: tuple[Path, ...], sizes_px: tuple[int, ...]) -> dict[str, FaceDetector]:
    found = {f"published, {FIRST_PX} px": load_detector(input_px=FIRST_PX, score_threshold=LOWEST_SCORE)}
    found["published, two looks"] = load_detector(score_threshold=LOWEST_SCORE)
    for file in files:
        for px in sizes_px:
            name = f"{file.parent.name}/{file.name}, {px} px"
            found[name] = trained_detector(file.read_bytes(), input_px=px, score_threshold=LOWEST_SCORE)
    return found


def _second_faces(detector: FaceDetector, clips: Path) -> Iterator[bool]:
    """Yield for each frame of all clips whether more than one face is found."""
    for clip in sorted(clips.iterdir()):
        for _, frame in clip_frames(clip):
            yield int((detector.find(frame).scores >= SERVED_SCORE).sum()) > 1


def _number(figures: Mapping[str, float], name: str) -> str:
    return f"{figures[name]:.3f}" if name in figures else "-"


if __name__ == "__main__":
    main()
