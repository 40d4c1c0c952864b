"""What is watched while training, each finding an event in the record and the report."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from graftline.intervals import wilson
from graftline.records import TrainingEvent

FEW_TO_CHOOSE_BY = 100
_RISE, _GUESSING = 1.2, 1.1
_WINDOW = 8
_OVERFITTING_EPOCHS = 3


class RateTooHigh(Exception):
    """The loss rises or is no longer a number: the caller goes back to the last good state with half the rate.

    Args:
        loss: What it is.
        lowest: What it has been.
    """

    def __init__(self, loss: float, lowest: float) -> None:
        super().__init__(f"the training loss has risen from {lowest:.3f} to {loss:.3f}")
        self.is_number = math.isfinite(loss)


class LossWatch:
    """Compares the training loss with the lowest it has been, and with that of guessing.

    Augmentation, dropout and mixing move the loss of a sound model too, but not above that of one that guesses.

    Args:
        classes: Number of classes.
        lowest: Lowest mean loss over a window of steps so far.
        window: Losses of the steps since the last whole window.
    """

    def __init__(self, classes: int, lowest: float = float("inf"), window: Sequence[float] = ()) -> None:
        self._guessing = _GUESSING * math.log(classes)
        self._lowest, self._window = lowest, list(window)

    def state(self) -> dict[str, Any]:
        """Returns what changes from step to step, as arguments."""
        return {"lowest": self._lowest, "window": list(self._window)}

    def add(self, loss: float) -> None:
        """Takes the loss of one step.

        Raises:
            RateTooHigh: It is no number, or the mean of the last steps is above guessing and far above the lowest.
        """
        if not math.isfinite(loss):
            raise RateTooHigh(loss, min(self._lowest, self._guessing))
        self._window.append(loss)
        if len(self._window) < _WINDOW:
            return
        mean = float(np.mean(self._window))
        self._window.clear()
        lowest = min(self._lowest, self._guessing)
        if mean > max(_RISE * lowest, self._guessing):
            raise RateTooHigh(mean, lowest)
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
    """Says when the training loss, now below the validation loss, falls while that stays above its lowest for 3 epochs.

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
    if gap <= 0:  # augmentation and label smoothing make the training loss the higher one
        return []
    message = (
        f"for {_OVERFITTING_EPOCHS} epochs the training loss falls while the validation loss stays above its lowest "
        f"(now {gap:+.3f} apart): more augmentation, weight decay or fewer epochs may help"
    )
    return [TrainingEvent(epoch=int(recent[-1]["epoch"]), kind="overfitting", message=message)]


def watch_classes(
    epoch: int, predictions: np.ndarray, labels: np.ndarray, classes: Sequence[str]
) -> list[TrainingEvent]:
    """Says which classes are never predicted although validation holds them.

    Args:
        epoch: Of the weights.
        predictions: int [n].
        labels: int [n].
        classes: Their names.
    """
    missing = sorted(set(labels.tolist()) - set(predictions.tolist()))
    if not missing:
        return []
    names = ", ".join(classes[number] for number in missing)
    message = f"never predicted on validation: {names}; balance=class_weights or sampling may help"
    return [TrainingEvent(epoch=epoch, kind="class_never_predicted", message=message)]
