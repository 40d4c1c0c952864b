"""Draws a training history."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator


def draw_curves(path: Path, history: Sequence[dict[str, float]], rates: Sequence[float], kept_epoch: int) -> None:
    """Writes a PNG of losses and validation accuracy by epoch, and of the learning rate by step.

    Args:
        path: File to write.
        history: Rows as the loop keeps them; row 0 is the state before any epoch.
        rates: Peak learning rate of every step.
        kept_epoch: Marked by a dotted line.
    """
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    panels = figure.subplots(1, 3)
    _panel(panels[0], history, {"train_loss": "training", "validation_loss": "validation"}, "cross-entropy")
    _panel(panels[1], history, {"validation_accuracy": "validation"}, "accuracy")
    last = history[-1]["epoch"]
    panels[2].plot([last * (step + 1) / len(rates) for step in range(len(rates))], rates, label="of every step")
    _dress(panels[2], "peak learning rate")
    for panel in panels:
        panel.axvline(kept_epoch, color="grey", linestyle=":", label=f"kept: epoch {kept_epoch}")
        panel.legend(frameon=False)
    figure.savefig(path, dpi=120)


def _panel(panel: Axes, history: Sequence[dict[str, float]], series: dict[str, str], title: str) -> None:
    for key, label in series.items():
        rows = [(row["epoch"], row[key]) for row in history if key in row]
        panel.plot(*zip(*rows, strict=True), marker="o", label=label)
    _dress(panel, title)


def _dress(panel: Axes, title: str) -> None:
    panel.set_title(title)
    panel.set_xlabel("epoch")
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.spines[["top", "right"]].set_visible(False)
