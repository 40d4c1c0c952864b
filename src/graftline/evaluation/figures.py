"""The pictures of an evaluation as PNG: confusion matrix, reliability diagram, per-class bars, sheet of mistakes.

Drawn with matplotlib's object interface: nothing global is touched, no display is needed, and the same numbers give the
same bytes. Made for 2 to about 100 classes; beyond that the single names are left out.
"""

import io
import math
from collections.abc import Sequence
from functools import cache

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font

from graftline.evaluation.calibration import BINS, ReliabilityBin
from graftline.evaluation.mistakes import Mistake
from graftline.records import ClassMetrics, Interval
from graftline.words import percent

INK, MUTED, GRID = "#1f2933", "#616e7c", "#e4e7eb"
RECALL, PRECISION = "#1f6f8b", "#c2571a"
_MOST_NAMES = 100
_MOST_CELL_TEXTS = 30


def draw_confusion(confusion: np.ndarray, classes: Sequence[str]) -> bytes:
    """Draws counts by true class (row) and prediction (column), shaded by the share of the row.

    Shading by row keeps rare classes as visible as frequent ones.

    Args:
        confusion: int [k, k].
        classes: The k names.

    Returns:
        A PNG.
    """
    k = len(classes)
    longest = max(len(shown_name(name, index)) for index, name in enumerate(classes))
    side = min(15.0, max(3.2, 1.4 + 0.42 * k if k <= _MOST_CELL_TEXTS else 3 + 0.12 * k)) + 0.06 * longest
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.subplots()
    share = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    # Among many classes a mistake is a faint single cell: lift the low shares.
    norm = PowerNorm(1.0 if k <= _MOST_CELL_TEXTS else 0.6, vmin=0, vmax=1)
    image = axes.imshow(share, cmap="Blues", norm=norm, interpolation="nearest")
    if k <= _MOST_CELL_TEXTS:
        _write_cells(axes, confusion, share)
    _name_confusion_axes(axes, classes)
    bar = figure.colorbar(image, ax=axes, shrink=0.7, pad=0.02)
    bar.set_label("share of the true class", color=MUTED)
    bar.outline.set_visible(False)
    return _png(figure)


def _write_cells(axes: Axes, confusion: np.ndarray, share: np.ndarray) -> None:
    few = len(confusion) <= 6
    for row, column in np.argwhere(confusion > 0):
        text = f"{confusion[row, column]:,}"
        text += f"\n{percent(share[row, column], 0)}" if few else ""
        colour = "white" if share[row, column] > 0.55 else INK
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=12 if few else 7)


def _name_confusion_axes(axes: Axes, classes: Sequence[str]) -> None:
    k = len(classes)
    axes.set_xlabel("predicted", color=MUTED)
    axes.set_ylabel("true", color=MUTED)
    axes.tick_params(length=0, colors=INK)
    axes.spines[:].set_visible(False)
    if k > _MOST_NAMES:
        return
    names = [shown_name(name, index) for index, name in enumerate(classes)]
    size = 11 if k <= 6 else 8 if k <= _MOST_CELL_TEXTS else 6
    flat = k <= 6 and max(map(len, names)) <= 14
    turned = {} if flat else {"rotation": 90}
    axes.set_xticks(range(k), names, fontsize=size, parse_math=False, **turned)
    axes.set_yticks(range(k), names, fontsize=size, parse_math=False)
    axes.set_xticks(np.arange(k + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(k + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white" if k <= _MOST_CELL_TEXTS else GRID, linewidth=1.5 if k <= 6 else 0.4)
    axes.tick_params(which="minor", length=0)


def draw_per_class(classes: Sequence[ClassMetrics]) -> bytes:
    """Draws recall and precision of each class with their intervals, the lowest recall on top.

    Args:
        classes: In label order; of more than 100 the 100 with the lowest recall are drawn.

    Returns:
        A PNG.
    """
    worst = sorted(enumerate(classes), key=lambda pair: pair[1].metrics["recall"].value)[:_MOST_NAMES]
    figure = Figure(figsize=(7.5, 1.4 + (0.5 if len(worst) <= 12 else 0.24) * len(worst)), layout="constrained")
    axes = figure.subplots()
    position = np.arange(len(worst))
    _draw_intervals(axes, [c.metrics["recall"] for _, c in worst], position - 0.16, RECALL, "o", "recall")
    _draw_intervals(axes, [c.metrics["precision"] for _, c in worst], position + 0.16, PRECISION, "D", "precision")
    names = [f"{shown_name(c.name, index)}  (n={c.metrics['recall'].n:,})" for index, c in worst]
    axes.set_yticks(position, names, fontsize=10 if len(worst) <= 12 else 7, parse_math=False)
    axes.set_ylim(len(worst) - 0.5, -0.5)
    axes.set_xlim(-0.01, 1.01)
    axes.set_xlabel("recall and precision with 95 % intervals", color=MUTED)
    _plain(axes)
    figure.legend(loc="outside upper right", ncols=2, frameon=False)
    return _png(figure)


def _draw_intervals(
    axes: Axes, intervals: Sequence[Interval], at: np.ndarray, colour: str, marker: str, label: str
) -> None:
    axes.hlines(at, [i.low for i in intervals], [i.high for i in intervals], color=colour, linewidth=1.6, alpha=0.55)
    known = [index for index, interval in enumerate(intervals) if interval.n]
    values = [intervals[index].value for index in known]
    axes.plot(values, at[known], marker, color=colour, markersize=5, label=label)


def draw_reliability(table: Sequence[ReliabilityBin], error: Interval, k: int) -> bytes:
    """Draws accuracy against confidence with Wilson intervals, above the number of images in each bin.

    Args:
        table: The 15 bins.
        error: The expected calibration error.
        k: Number of classes: the top probability cannot fall below 1/k.

    Returns:
        A PNG.
    """
    figure = Figure(figsize=(5.6, 5.8), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    left = math.floor(BINS / k) / BINS
    used = [b for b in table if b.accuracy.n]
    x = [b.confidence for b in used]
    above.plot([left, 1], [left, 1], "--", color=MUTED, linewidth=1, label="perfectly calibrated")
    above.vlines(x, [b.accuracy.low for b in used], [b.accuracy.high for b in used], color=RECALL, alpha=0.55)
    above.plot(x, [b.accuracy.value for b in used], "o-", color=RECALL, markersize=5, label="this model")
    above.set_ylim(-0.02, 1.02)
    above.set_xlim(left - 0.01, 1.01)
    above.set_ylabel("share right", color=MUTED)
    above.set_title(f"calibration error {error.value:.3f} [{error.low:.3f}, {error.high:.3f}]", color=INK, fontsize=11)
    above.legend(frameon=False, loc="upper left")
    below.bar([b.low for b in table], [b.accuracy.n for b in table], 0.92 / BINS, align="edge", color=RECALL, alpha=0.6)
    below.set_ylabel("images", color=MUTED)
    below.set_xlabel("probability of the predicted class", color=MUTED)
    _plain(above)
    _plain(below)
    return _png(figure)


def draw_mistakes(mistakes: Sequence[Mistake]) -> bytes:
    """Draws a sheet of wrongly classified images with their true and predicted class and its probability.

    Args:
        mistakes: At least one, six in a row.

    Returns:
        A PNG.
    """
    columns = min(6, len(mistakes))
    rows = math.ceil(len(mistakes) / columns)
    width, height = max(4.0, 2.1 * columns), 2.75 * rows
    figure = Figure(figsize=(width, height))  # laid out by hand: constrained layout takes seconds for 24 pictures
    figure.subplots_adjust(0.1 / width, 0.1 / height, 1 - 0.1 / width, 1 - 0.6 / height, wspace=0.06, hspace=0.35)
    grid = np.ravel(figure.subplots(rows, columns, squeeze=False))
    for axes in grid:
        axes.set_axis_off()
    for axes, mistake in zip(grid, mistakes, strict=False):
        axes.imshow(mistake.picture)
        true, predicted = shown_name(mistake.true, mistake.label), shown_name(mistake.predicted, mistake.prediction)
        text = f"labelled {true}\npredicted {predicted}\nwith {percent(mistake.probability)}"
        axes.set_title(text, fontsize=8, color=INK, loc="left", parse_math=False)
    return _png(figure)


def shown_name(name: str, index: int) -> str:
    """Shortens a class name for a figure; one in a script that the font lacks becomes its number."""
    if not all(ord(letter) in _letters() for letter in name):
        return f"class #{index}"
    return name if len(name) <= 24 else f"{name[:23]}…"


@cache
def _letters() -> frozenset[int]:
    return frozenset(get_font(findfont("DejaVu Sans")).get_charmap())


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(MUTED)
    axes.grid(axis="both", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, colors=INK)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()
