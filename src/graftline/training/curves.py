"""Draws a training history."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator


def draw_curves(path: Path, history: Sequence[dict[str, float]], kept_epoch: int) -> None:
    """Writes a PNG of losses, validation accuracy and learning rate by epoch.

    Args:
        path: File to write.
        history: Rows as the loop keeps them; row 0 is the state before any epoch.
        kept_epoch: Marked by a dotted line.
    """
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    panels = figure.subplots(1, 3)
    _panel(panels[0], history, {"train_loss": "training", "validation_loss": "validation"}, "cross-entropy")
    _panel(panels[1], history, {"validation_accuracy": "validation"}, "accuracy")
    _panel(panels[2], history, {"learning_rate": "at the end of the epoch"}, "learning rate of the head")
    for panel in panels:
        panel.axvline(kept_epoch, color="grey", linestyle=":", label=f"kept: epoch {kept_epoch}")
        panel.legend(frameon=False)
    figure.savefig(path, dpi=120)


def _panel(panel: Axes, history: Sequence[dict[str, float]], series: dict[str, str], title: str) -> None:
    for key, label in series.items():
        rows = [(row["epoch"], row[key]) for row in history if key in row]
        panel.plot(*zip(*rows, strict=True), marker="o", label=label)
    panel.set_title(title)
    panel.set_xlabel("epoch")
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.spines[["top", "right"]].set_visible(False)
