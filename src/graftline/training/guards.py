"""What is watched while training, each finding an event in the record and the report."""

import math
from collections import deque
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

    Augmentation, dropout and mixing move the loss of a sound model too, but not above that of one that guesses, or of
    the first step, which no rate had a part in: random weights are worse than guessing.

    Args:
        classes: Number of classes.
        first: Loss of the first step.
        lowest: Lowest mean loss over a window of steps so far.
        losses: Of the last steps of the epoch, at most a window of them.
        new: How many of them have not been judged.
        passed: Whether any of this epoch has been judged good.
    """

    def __init__(
        self,
        classes: int,
        first: float = 0.0,
        lowest: float = float("inf"),
        losses: Sequence[float] = (),
        new: int = 0,
        passed: bool = False,
    ) -> None:
        self._guessing, self._first = _GUESSING * math.log(classes), first
        self._lowest, self._losses, self._new, self._passed = lowest, deque(losses, _WINDOW), new, passed

    @property
    def doubts_start(self) -> bool:
        """Whether nothing has shown yet that the state at the start of this epoch is sound."""
        return not self._passed

    def state(self) -> dict[str, Any]:
        """Returns what changes from step to step, as arguments."""
        window = {"losses": list(self._losses), "new": self._new, "passed": self._passed}
        return {"first": self._first, "lowest": self._lowest, **window}

    def add(self, loss: float) -> None:
        """Takes the loss of one step.

        Raises:
            RateTooHigh: It is no number, or the mean of the last steps is above guessing and far above the lowest.
        """
        if not math.isfinite(loss):
            raise RateTooHigh(loss, min(self._lowest, self._limit))
        self._first = self._first or loss
        self._losses.append(loss)
        self._new += 1
        if self._new >= _WINDOW:
            self._judge()

    def end_epoch(self, validation_loss: float) -> None:
        """Judges the last steps of an epoch, however few they are: the state after them is what others go back to.

        Raises:
            RateTooHigh: As `add`, or the validation loss is no number.
        """
        if not math.isfinite(validation_loss):
            raise RateTooHigh(validation_loss, min(self._lowest, self._limit))
        if self._new:
            self._judge()
        self._losses.clear()
        self._passed = False

    @property
    def _limit(self) -> float:
        return max(self._guessing, self._first)

    def _judge(self) -> None:
        self._new = 0
        mean, lowest = float(np.mean(self._losses)), min(self._lowest, self._limit)
        if mean > max(_RISE * lowest, self._limit):
            raise RateTooHigh(mean, lowest)
        self._lowest, self._passed = min(self._lowest, mean), True


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
