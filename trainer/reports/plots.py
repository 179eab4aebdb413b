"""Draw the pictures of a training report: findings and scored test sets in, PNG files' bytes by file name out.

Matplotlib and seaborn are imported here, so import this module only to write a report. Figures use the Agg backend
directly, without pyplot: no global state is changed, no display is needed. The same input gives the same bytes.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import astuple
from io import BytesIO
from typing import Any

import numpy as np
import seaborn as sns
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from trainer.reports.calibrate import Reliability
from trainer.reports.evaluate import ScoredTestSet
from trainer.reports.findings import Confusion, Epoch, Findings
from trainer.reports.ranking import Curve, precision_recall, roc
from trainer.reports.shares import CorrectShare
from trainer.reports.slices import FaceSlice

DOTS_PER_INCH = 110
PANEL_INCHES = 3.6
PANELS_A_ROW = 3

BLUE, ORANGE, FAINT = "#0b5f8a", "#d9822b", "#8b98a5"
PALETTE = "colorblind"
STYLE = {
    "axes.edgecolor": "#c5ced6",
    "grid.color": "#e6eaee",
    "font.size": 9,
    "text.parse_math": False,  # a dollar sign in a folder's name is text
}
ERROR_BARS: dict[str, Any] = {"fmt": "o", "markersize": 4, "elinewidth": 1, "capsize": 2}


def draw_plots(findings: Findings, tests: Sequence[ScoredTestSet]) -> dict[str, bytes]:
    """Draw all pictures for which there are findings: PNG bytes by file name."""
    with rc_context(sns.axes_style("whitegrid") | STYLE), warnings.catch_warnings():
        # A character that the font lacks is drawn as a box; the page has the full name.
        warnings.filterwarnings("ignore", r"(?s)Glyph \d+ .* missing from font", UserWarning)
        figures = {"confusion.png": _confusions(findings), "reliability.png": _reliabilities(findings)}
        both_labels = [test for test in tests if 0 < np.count_nonzero(test.faces.has_mask) < len(test.faces)]
        if both_labels:
            figures["ranking.png"] = _rankings(both_labels)
        if findings.epochs:
            figures["training.png"] = _training(findings.epochs)
        figures["slices.png"] = _slices(findings.slices)
        return {name: _png(figure) for name, figure in figures.items()}


def _training(epochs: Sequence[Epoch]) -> Figure:
    figure, (losses, accuracies) = _panels(2, width=5.4)
    numbers = [epoch.epoch for epoch in epochs]
    marker = "o" if len(epochs) < 40 else None
    for axes, name, title in ((losses, "loss", "Loss"), (accuracies, "accuracy", "Accuracy")):
        for label, field, colour in (("training", name, ORANGE), ("validation", f"validation_{name}", BLUE)):
            values = [getattr(epoch, field) for epoch in epochs]
            axes.plot(numbers, values, color=colour, label=label, marker=marker, markersize=3.5)
        axes.set(title=title, xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend()
    accuracies.yaxis.set_major_formatter(PercentFormatter(1.0))
    return figure


def _confusions(findings: Findings) -> Figure:
    figure, panels = _panels(len(findings.tests))
    for axes, test in zip(panels, findings.tests, strict=True):
        _confusion(axes, test.confusion)
        axes.set_title(test.name)
    return figure


def _confusion(axes: Any, found: Confusion) -> None:
    counts = np.array(astuple(found)).reshape(2, 2)
    totals = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(1, totals)
    texts = [f"{count:,}\n{share:.1%}" for count, share in zip(counts.flat, shares.flat, strict=True)]
    names = ["mask", "no mask"]
    sns.heatmap(
        shares,
        ax=axes,
        annot=np.array(texts).reshape(2, 2),
        mask=np.broadcast_to(totals == 0, (2, 2)),  # no shares for a label that does not occur
        fmt="",
        cmap="Blues",
        vmin=0,
        vmax=1,
        cbar=False,
        square=True,
        linewidths=1,
        xticklabels=names,
        yticklabels=names,
    )
    axes.grid(visible=False)
    axes.set(xlabel="predicted", ylabel="true")


def _rankings(tests: Sequence[ScoredTestSet]) -> Figure:
    figure, (rocs, masks, bare) = _panels(3)
    for colour, test in zip(sns.color_palette(PALETTE, len(tests)), tests, strict=True):
        has_mask, scores = test.faces.has_mask, test.served
        _curve(rocs, roc(scores, has_mask), f"{test.set_name}: AUC", colour)
        _curve(masks, precision_recall(scores, has_mask), f"{test.set_name}: AP", colour)
        _curve(bare, precision_recall(-scores, ~has_mask), f"{test.set_name}: AP", colour)
    rocs.plot([0, 1], [0, 1], color=FAINT, linestyle=":", linewidth=1)
    rocs.set(title="ROC", xlabel="no-mask faces predicted mask", ylabel="mask faces predicted mask")
    masks.set(title="Precision and recall of mask", xlabel="recall", ylabel="precision")
    bare.set(title="Precision and recall of no mask", xlabel="recall", ylabel="precision")
    for axes in (rocs, masks, bare):
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        axes.legend(loc="lower center", fontsize=8)
    return figure


def _curve(axes: Any, curve: Curve, name: str, colour: Any) -> None:
    # Precision falls in steps: there is no point between two thresholds.
    axes.plot(curve.x, curve.y, color=colour, label=f"{name} {curve.area:.4f}", drawstyle="steps-pre")


def _reliabilities(findings: Findings) -> Figure:
    figure, panels = _panels(len(findings.tests))
    for axes, test in zip(panels, findings.tests, strict=True):
        axes.plot([0.5, 1], [0.5, 1], color=FAINT, linestyle=":", linewidth=1)
        _reliability(axes, test.before, "before", ORANGE)
        _reliability(axes, test.after, "after", BLUE)
        axes.set(
            title=test.name,
            xlabel="confidence",
            ylabel="share of correct labels",
            xlim=(0.47, 1.02),
            ylim=(-0.03, 1.03),
        )
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, fontsize=8)
    return figure


def _reliability(axes: Any, found: Reliability, name: str, colour: str) -> None:
    confidences, shares = [one.confidence for one in found.bins], [one.right for one in found.bins]
    middles, reaches = _intervals(shares)
    faces = np.array([share.faces for share in shares])
    axes.bar(confidences, faces / faces.sum(), width=0.02, color=colour, alpha=0.2)
    label = f"{name}: ECE {found.ece:.1%}"
    axes.errorbar(confidences, middles, yerr=reaches, color=colour, label=label, **ERROR_BARS)


def _slices(found: Sequence[FaceSlice]) -> Figure:
    figure = _figure(11, 1.1 + 0.42 * len(found))
    axes = figure.subplots()
    for shift, field, label, colour in (
        (-0.18, "mask_recall", "mask recall", BLUE),
        (0.18, "no_mask_recall", "no-mask recall", ORANGE),
    ):
        shares = {row: share for row, one in enumerate(found) if (share := getattr(one, field)) is not None}
        middles, reaches = _intervals(list(shares.values()))
        rows = [row + shift for row in shares]
        axes.errorbar(middles, rows, xerr=reaches, color=colour, label=label, **ERROR_BARS)
    axes.set_yticks(range(len(found)), [f"{one.cut_by}: {one.name}" for one in found])
    axes.set_ylim(len(found) - 0.5, -0.5)
    axes.set(title="Faces labelled correctly, with 95 % intervals")
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _intervals(shares: Sequence[CorrectShare]) -> tuple[list[float], Any]:
    """Return the shares and the lengths of their intervals below and above, 2 x n."""
    middles = [share.share for share in shares]
    reaches = [[share.share - share.low for share in shares], [share.high - share.share for share in shares]]
    return middles, np.maximum(0, reaches)  # rounding may put a bound slightly past its share


def _panels(count: int, width: float = PANEL_INCHES) -> tuple[Figure, list[Any]]:
    """Create a figure with `count` panels, PANELS_A_ROW in a row."""
    columns = min(count, PANELS_A_ROW)
    rows = -(-count // columns)
    figure = _figure(width * columns, PANEL_INCHES * rows)
    panels = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for unused in panels[count:]:
        unused.remove()
    return figure, panels[:count]


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _png(figure: Figure) -> bytes:
    content = BytesIO()
    figure.savefig(content, format="png", dpi=DOTS_PER_INCH)
    return content.getvalue()
