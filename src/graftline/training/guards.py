"""What is watched while training, each finding an event in the record and the report."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from graftline.intervals import wilson
from graftline.records import TrainingEvent

FEW_TO_CHOOSE_BY = 100
_RISE = 1.5
_WINDOW = 8
_OVERFITTING_EPOCHS = 3


class RateTooHigh(Exception):
    """The loss rises or is no longer a number: the caller goes back to the last good state with half the rate."""


class LossWatch:
    """Compares the training loss with the lowest it has been.

    A solved head starts low, so the loss of the first steps is the mark: a rate that does no harm stays near it.

    Args:
        lowest: Lowest mean loss over a window of steps so far.
        window: Losses of the steps since the last whole window.
    """

    def __init__(self, lowest: float = float("inf"), window: Sequence[float] = ()) -> None:
        self._lowest, self._window = lowest, list(window)

    def state(self) -> dict[str, Any]:
        """Returns the arguments that make an equal one."""
        return {"lowest": self._lowest, "window": list(self._window)}

    def add(self, loss: float) -> None:
        """Takes the loss of one step.

        Raises:
            RateTooHigh: It is not a number, or the mean of the last steps is half as high again as the lowest.
        """
        if not np.isfinite(loss):
            raise RateTooHigh(f"the training loss is {loss}")
        self._window.append(loss)
        if len(self._window) < _WINDOW:
            return
        mean = float(np.mean(self._window))
        self._window.clear()
        if mean > _RISE * self._lowest:
            raise RateTooHigh(f"the training loss has risen from {self._lowest:.3f} to {mean:.3f}")
        self._lowest = min(self._lowest, mean)


def watch_validation_size(images: int) -> list[TrainingEvent]:
    """Says when the validation split is too small to choose weights by.

    Args:
        images: In the validation split.
    """
    if images >= FEW_TO_CHOOSE_BY:
        return []
    typical = wilson(round(0.85 * images), images)
    width = (typical.high - typical.low) * 50
    message = (
        f"{images} validation images are few to choose weights by: accuracies near 85 % are known to ±{width:.0f} %"
    )
    return [TrainingEvent(epoch=0, kind="small_validation", message=message)]


def watch_overfitting(history: Sequence[dict[str, float]]) -> list[TrainingEvent]:
    """Says when the training loss has fallen for three epochs while the validation loss was above its lowest.

    Args:
        history: Rows of the loop; row 0 is the state before any epoch.
    """
    rows = [row for row in history if "train_loss" in row]
    recent = rows[-_OVERFITTING_EPOCHS:]
    if len(rows) <= _OVERFITTING_EPOCHS:
        return []
    lowest = min(row["validation_loss"] for row in history[: -len(recent)])
    falls = all(
        b["train_loss"] < a["train_loss"] for a, b in zip(rows[-_OVERFITTING_EPOCHS - 1 :], recent, strict=False)
    )
    if not falls or any(row["validation_loss"] <= lowest for row in recent):
        return []
    gap = recent[-1]["validation_loss"] - recent[-1]["train_loss"]
    message = (
        f"for {_OVERFITTING_EPOCHS} epochs the training loss falls while the validation loss stays above its lowest "
        f"(now {gap:+.3f} apart): more augmentation, weight decay or fewer epochs may help"
    )
    return [TrainingEvent(epoch=int(recent[-1]["epoch"]), kind="overfitting", message=message)]


def watch_classes(epoch: int, predictions: np.ndarray, labels: np.ndarray) -> list[TrainingEvent]:
    """Says which classes are never predicted although validation holds them.

    Args:
        epoch: Of the weights.
        predictions: int [n].
        labels: int [n].
    """
    missing = sorted(set(labels.tolist()) - set(predictions.tolist()))
    if not missing:
        return []
    names = ", ".join(map(str, missing))
    message = f"never predicted on validation: class number {names}; balance=class_weights or sampling may help"
    return [TrainingEvent(epoch=epoch, kind="class_never_predicted", message=message)]
