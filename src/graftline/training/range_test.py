"""The learning-rate range test (Smith 2017, "Cyclical Learning Rates for Training Neural Networks")."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from graftline.progress import track
from graftline.training.sampling import make_batches
from graftline.training.stepper import Stepper

_LOWEST, _HIGHEST = 1e-6, 1e-1
_STEPS = 100
_SMOOTHING = 0.9
_DIVERGED = 3.0
_FIRST = 10  # steps that make the loss of the start
_SAFETY = 10.0


@dataclass(frozen=True)
class RangeTest:
    """Training loss under a rate that grows from step to step.

    Attributes:
        rates: Peak rate of each step.
        losses: Smoothed training loss after it.
        suggestion: A tenth of the rate at which the loss was lowest.
    """

    rates: list[float]
    losses: list[float]
    suggestion: float


def try_rates(stepper: Stepper, labels: np.ndarray, batch_size: int, seed: int, balanced: bool = False) -> RangeTest:
    """Trains with a rate that grows geometrically until the smoothed loss is three times what it was at the start.

    Args:
        stepper: A model that can be stepped; it is changed.
        labels: int [n], labels of the training images.
        batch_size: Images per step.
        seed: Of the order of the images.
        balanced: Whether every class comes equally often.
    """
    rates: list[float] = []
    losses: list[float] = []
    smooth = 0.0
    for step in track(range(_STEPS), "learning-rate range test"):
        rate = _LOWEST * (_HIGHEST / _LOWEST) ** (step / (_STEPS - 1))
        stepper.set_rate(rate)
        epoch, batch = divmod(step, max(1, len(labels) // batch_size))
        loss = stepper.step(make_batches(labels, batch_size, seed, epoch, balanced)[batch], epoch, batch).item()
        smooth = _SMOOTHING * smooth + (1 - _SMOOTHING) * loss
        corrected = smooth / (1 - _SMOOTHING ** (step + 1))
        if not math.isfinite(loss) or (step >= _FIRST and corrected > _DIVERGED * losses[_FIRST - 1]):
            break
        rates.append(rate)
        losses.append(corrected)
    lowest = int(np.argmin(losses[_FIRST - 1 :])) + _FIRST - 1
    return RangeTest(rates, losses, rates[lowest] / _SAFETY)


def draw_range_test(path: Path, result: RangeTest) -> None:
    """Writes a PNG of the smoothed loss by rate, the suggestion marked."""
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    panel = figure.subplots()
    panel.plot(result.rates, result.losses)
    panel.axvline(result.suggestion, color="grey", linestyle=":", label=f"suggested: {result.suggestion:.1e}")
    panel.set_xscale("log")
    panel.set_xlabel("peak learning rate")
    panel.set_ylabel("training cross-entropy, smoothed")
    panel.legend(frameon=False)
    panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)
