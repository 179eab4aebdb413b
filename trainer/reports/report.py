"""Write the report of a trained model: measurements in, a folder with a page, its pictures and its numbers out.

`report/` in the run folder gets report.html, a self-contained page, report.json with every number of the page, and the
page's pictures as PNG files. The page shows the faces that were mislabelled with the highest confidence: they come from
the user's test data and are written only into this folder. A folder that cannot be written raises OSError. The same
input gives the same files.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import msgspec
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipeline.vision.arrays import Image
from trainer.reports.evaluate import ScoredTestSet
from trainer.reports.findings import Findings, Report, compute_findings
from trainer.reports.slices import Mistake

REPORT_FOLDER = "report"
PAGE_NAME = "report.html"
NUMBERS_NAME = "report.json"


def write_report(run: Path, report: Report) -> None:
    """Write the report of a run into REPORT_FOLDER of its folder, over an older one."""
    from trainer.reports import plots  # matplotlib takes a second to import

    findings = compute_findings(report)
    pictures = plots.draw_plots(findings, report.tests) | _faces(findings.mistakes, report.tests)
    folder = run / REPORT_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for older in folder.glob("*.png"):
        older.unlink()  # faces that are no longer on the page must not stay in the folder
    for name, content in pictures.items():
        (folder / name).write_bytes(content)
    numbers = msgspec.json.encode(findings, enc_hook=_plain)
    (folder / NUMBERS_NAME).write_bytes(msgspec.json.format(numbers, indent=2) + b"\n")
    (folder / PAGE_NAME).write_text(_page(findings, pictures), encoding="utf-8")


def _page(findings: Findings, pictures: Mapping[str, bytes]) -> str:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # names of files and data sets are untrusted text
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    inline = {name: "data:image/png;base64," + b64encode(content).decode() for name, content in pictures.items()}
    return environment.get_template(PAGE_NAME).render(findings=findings, pictures=inline)


def _plain(value: object) -> object:
    """Convert a numpy scalar, which a loss may be, into a Python number."""
    if isinstance(value, np.generic):
        return value.item()
    raise NotImplementedError(f"{type(value).__name__} cannot be written to {NUMBERS_NAME}")


def _faces(mistakes: Sequence[Mistake], tests: Sequence[ScoredTestSet]) -> dict[str, bytes]:
    crops = {test.set_name: test.faces.crops for test in tests}
    return {mistake.picture: _png(crops[mistake.set_name][mistake.index]) for mistake in mistakes}


def _png(crop: Image) -> bytes:
    """Encode a crop, uint8 S x S x 3 RGB."""
    _, content = cv2.imencode(".png", cv2.cvtColor(crop, cv2.COLOR_RGB2BGR))
    return bytes(content)
