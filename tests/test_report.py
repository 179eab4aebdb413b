"""A report says what was measured, in numbers and on a page that stands alone, whatever the test sets hold."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from base64 import b64decode
from dataclasses import replace
from html.parser import HTMLParser
from itertools import count
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest

from models.classifier.card import INT8_NAME, Card
from pipeline.vision.arrays import Floats, Image
from trainer.data.prepare import EvaluationFaces
from trainer.reports.evaluate import ScoredTestSet
from trainer.reports.findings import Epoch, Findings, Report, compute_findings
from trainer.reports.latency import BATCHES, WARM_UP_CALLS, Latency, measure_latency
from trainer.reports.report import REPORT_FOLDER, write_report
from trainer.reports.shares import wilson_share
from trainer.reports.slices import slices, worst_mistakes

CARD = Card(
    version="lite-0123abcd",
    arch="lite",
    size_px=32,
    margin=0.05,
    threshold=0.5,
    data={"toy/Train: training": 48, "left out": 3},
    settings={"epochs": 2, "seed": 7},
    measured={},
    files={},
    created="2025-01-02T03:04:05+00:00",
)
EPOCHS = tuple(
    Epoch(epoch=number, loss=1 / number, accuracy=0.9, validation_loss=2 / number, validation_accuracy=0.8)
    for number in (1, 2)
)


def toy_set(name: str, has_mask: list[bool], probabilities: list[float], side_px: float = 40.0) -> ScoredTestSet:
    """Return a test set whose float network differs from int8 by 0.01; each crop is of one colour."""
    faces = len(has_mask)
    crops = np.empty((faces, 32, 32, 3), np.uint8)
    crops[:] = np.arange(faces, dtype=np.uint8)[:, None, None, None] + (100, 50, 0)
    served = np.array(probabilities, np.float32)
    return ScoredTestSet(
        set_name=name,
        faces=EvaluationFaces(
            crops=crops,
            has_mask=np.array(has_mask),
            side_px=np.full(faces, side_px, np.float32),
            sources=(name,) * faces,
            names=tuple(f"{name}-{place}.png" for place in range(faces)),
        ),
        probabilities={"int8": served, "float": np.clip(served - 0.01, 0, 1)},
    )


STREET = toy_set("street", [True, True, False, False], [0.9, 0.2, 0.1, 0.97])
HANDS = toy_set("hands", [False, False, False], [0.1, 0.8, 0.2], side_px=12.0)
LATENCY = Latency(runtime="onnx int8", threads=1, batch=1, ms_a_face=0.75)


def toy_report(*tests: ScoredTestSet) -> Report:
    return Report(
        card=CARD,
        command="maskwatch train toy/Train",
        epochs=EPOCHS,
        temperature=1.5,
        tests=tests,
        relations={"street": "same folder"},
        latencies=(LATENCY,),
        size_bytes={INT8_NAME: 2_890_000},
    )


class Page(HTMLParser):
    """The words of a page, and every address that it asks for."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.words = ""
        self.addresses: list[str] = []
        self.tags: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]

    def handle_data(self, data: str) -> None:
        self.words += data


def page_of(run: Path) -> Page:
    return Page((run / REPORT_FOLDER / "report.html").read_text())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with the report of two sets, which tests only read."""
    folder = tmp_path_factory.mktemp("run")
    write_report(folder, toy_report(STREET, HANDS))
    return folder


def test_a_report_is_a_page_its_pictures_and_its_numbers(run: Path) -> None:
    names = {path.name for path in (run / REPORT_FOLDER).iterdir()}
    assert names == {
        "report.html",
        "report.json",
        *("training.png", "confusion.png", "ranking.png", "reliability.png", "slices.png"),
        *("mistake-01.png", "mistake-02.png", "mistake-03.png"),
    }
    assert all(cv2.imread(str(run / REPORT_FOLDER / name)) is not None for name in names if name.endswith(".png"))


def test_the_page_asks_for_nothing_beside_it(run: Path) -> None:
    page = page_of(run)

    inside = {b64decode(address.removeprefix("data:image/png;base64,")) for address in page.addresses}
    assert inside == {path.read_bytes() for path in (run / REPORT_FOLDER).glob("*.png")}
    assert not page.tags & {"script", "link", "iframe"}


def test_the_numbers_are_those_found_and_can_be_read_back(run: Path) -> None:
    read = msgspec.json.decode((run / REPORT_FOLDER / "report.json").read_bytes(), type=Findings)

    assert read == compute_findings(toy_report(STREET, HANDS))
    numbers = msgspec.json.decode((run / REPORT_FOLDER / "report.json").read_bytes())
    assert [(one["place"], one["said"]) for one in numbers["mistakes"]] == [(3, "mask"), (1, "mask"), (1, "no_mask")]


def test_the_page_says_what_the_numbers_say(run: Path) -> None:
    words = re.sub(r"\s+", " ", page_of(run).words)

    assert "street the same folder 4 50.0 % 50.0 % 50.0 % 50.0 % 0.5000" in words
    assert "hands neither 3 – – – 66.7 % –" in words
    assert "is no mask, predicted mask (97.0 %)street-3.png" in words
    assert "onnx int8 1 thread0.75" in words
    assert f"{INT8_NAME}2.89" in words
    assert "left out3" in words
    assert "maskwatch train toy/Train" in words


def test_the_same_input_gives_the_same_files(run: Path, tmp_path: Path) -> None:
    write_report(tmp_path, toy_report(STREET, HANDS))

    one, other = (
        {path.name: path.read_bytes() for path in (folder / REPORT_FOLDER).iterdir()} for folder in (run, tmp_path)
    )

    assert one == other


def test_names_of_files_and_settings_are_only_text(tmp_path: Path) -> None:
    nasty = r"<script>alert(1)</script> $\frac$"
    faces = replace(HANDS.faces, names=(nasty,) * 3, sources=(nasty,) * 3)

    write_report(tmp_path, replace(toy_report(replace(HANDS, set_name=nasty, faces=faces)), command=nasty))

    page = page_of(tmp_path)
    assert "script" not in page.tags
    assert page.words.count(nasty) > 3


def test_a_name_in_signs_that_the_pictures_font_lacks_is_on_the_page(tmp_path: Path) -> None:
    write_report(tmp_path, toy_report(replace(STREET, set_name="口罩"), HANDS))

    assert "口罩" in page_of(tmp_path).words
    assert (tmp_path / REPORT_FOLDER / "confusion.png").exists()


def test_a_set_where_nobody_wears_a_mask_has_no_ranking(tmp_path: Path) -> None:
    write_report(tmp_path, toy_report(HANDS))

    assert not (tmp_path / REPORT_FOLDER / "ranking.png").exists()
    assert "At every threshold" not in page_of(tmp_path).words


def test_a_report_without_mistakes_epochs_or_times_says_so_or_nothing(tmp_path: Path) -> None:
    right = toy_set("right", [True, False], [0.9, 0.1])
    only_int8 = replace(right, probabilities={"int8": right.served})

    write_report(tmp_path, replace(toy_report(only_int8), epochs=(), latencies=(), size_bytes={}))

    words = page_of(tmp_path).words
    assert "None: every face was labelled correctly." in words
    assert "Training" not in words
    assert "Agreement" not in words


def test_faces_that_are_no_mistakes_any_more_do_not_stay(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path, dirs_exist_ok=True)

    write_report(tmp_path, toy_report(toy_set("right", [True, False], [0.9, 0.1])))

    assert not list((tmp_path / REPORT_FOLDER).glob("mistake-*"))


def test_losses_may_be_numpy_numbers_or_not_finite(tmp_path: Path) -> None:
    odd = replace(EPOCHS[0], loss=np.float32(0.5), accuracy=np.float64(0.25), validation_loss=float("nan"))

    write_report(tmp_path, replace(toy_report(STREET), epochs=(odd,)))

    written = msgspec.json.decode((tmp_path / REPORT_FOLDER / "report.json").read_bytes())
    assert written["epochs"][0] == msgspec.to_builtins(EPOCHS[0]) | {
        "loss": 0.5,
        "accuracy": 0.25,
        "validation_loss": None,
    }


def test_many_sets_are_drawn_too(tmp_path: Path) -> None:
    write_report(tmp_path, toy_report(*(replace(STREET, set_name=f"street {number}") for number in range(7))))

    confusion = cv2.imread(str(tmp_path / REPORT_FOLDER / "confusion.png"))
    assert confusion is not None
    assert confusion.shape[0] == pytest.approx(confusion.shape[1], rel=0.01)  # 7 panels in three rows of three


def test_the_calibration_error_is_reported_without_and_with_the_temperature() -> None:
    found = compute_findings(toy_report(STREET)).tests[0]

    without = [one.confidence for one in found.before.bins]
    after = [one.confidence for one in found.after.bins]

    assert max(without) > max(after)  # a temperature above 1 took confidence away
    assert found.after.ece == pytest.approx(found.figures["ece_int8"], abs=1e-4)


def test_headlines_show_the_worst_set() -> None:
    headlines = {one.title: one for one in compute_findings(toy_report(STREET, HANDS)).headlines}

    assert (headlines["No-mask recall"].value, headlines["Mask recall"].about) == (0.5, "street")
    assert headlines["No-mask recall"].about == "street, the lowest of 2 test sets"
    assert (headlines["Time a face"].value, headlines["Size"].value) == (0.75, 2.89)


def test_intervals_are_those_of_wilson() -> None:
    none, most = wilson_share(0, 10), wilson_share(8, 10)

    assert (none.low, none.high) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert (most.share, most.low, most.high) == pytest.approx((0.8, 0.4902, 0.9433), abs=1e-4)


def test_slices_cut_all_sets_by_source_and_by_size() -> None:
    edge = toy_set("edge", [True], [0.9], side_px=16.0)

    found = {(one.cut_by, one.name): one for one in slices([STREET, HANDS, edge])}

    assert list(found) == [
        *(("source", name) for name in ("edge", "hands", "street")),
        *(("face size", name) for name in ("below 16 px", "16 to 32 px", "32 to 64 px")),
    ]
    hands = found["source", "hands"]
    assert hands.mask_recall is None
    assert (hands.no_mask_recall, hands.accuracy) == (wilson_share(2, 3), wilson_share(2, 3))
    assert found["face size", "16 to 32 px"].mask_recall == wilson_share(1, 1)


def test_the_surest_mistakes_come_first() -> None:
    found = worst_mistakes([STREET, HANDS], 2)

    assert [(one.set_name, one.index, one.predicted, one.picture) for one in found] == [
        ("street", 3, "mask", "mistake-01.png"),
        ("hands", 1, "mask", "mistake-02.png"),
    ]


def test_mistakes_are_shown_in_their_colours(run: Path) -> None:
    shown = cv2.imread(str(run / REPORT_FOLDER / "mistake-01.png"))

    assert shown is not None
    np.testing.assert_array_equal(shown[..., ::-1], STREET.faces.crops[3])


def test_a_latency_is_the_median_of_calls_after_a_warm_up() -> None:
    ticks = count()
    shapes: list[tuple[int, ...]] = []

    def network(crops: Image) -> Floats:
        shapes.append(crops.shape)
        return np.zeros(len(crops), np.float32)

    found = measure_latency("toy", network, 16, threads=1, calls=6, clock=lambda: next(ticks) * 0.032)

    assert [(one.batch, one.ms_a_face) for one in found] == [(1, 32.0), (8, 4.0), (32, 1.0)]
    assert len(shapes) == len(BATCHES) * (WARM_UP_CALLS + 6)
    assert shapes[-1] == (32, 16, 16, 3)


def test_matplotlib_is_loaded_only_to_write() -> None:
    program = (
        "import sys, trainer.reports.report, trainer.reports.latency; "
        "print({'matplotlib', 'seaborn', 'keras'} & set(sys.modules))"
    )

    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert result.stdout == "set()\n"
