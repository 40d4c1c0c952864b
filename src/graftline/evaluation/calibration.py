"""Whether a probability means what it says: expected calibration error and the table behind a reliability diagram."""

from dataclasses import dataclass

import numpy as np

from graftline.evaluation.answers import Answers
from graftline.intervals import RESAMPLES, bootstrap, wilson
from graftline.records import Interval

BINS = 15


@dataclass(frozen=True)
class ReliabilityBin:
    """Images whose top probability falls into one bin.

    Attributes:
        low: Lower edge, included.
        high: Upper edge.
        confidence: Mean top probability of the images in it; the bin's middle when there are none.
        accuracy: Share of right answers among them, with its Wilson interval.
    """

    low: float
    high: float
    confidence: float
    accuracy: Interval


def reliability_table(confidence: np.ndarray, correct: np.ndarray) -> list[ReliabilityBin]:
    """Groups images into 15 bins of equal width by their top probability.

    Source: C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, "On Calibration of Modern Neural Networks", ICML 2017.

    Args:
        confidence: float [n], the top probability of each image.
        correct: bool [n], whether the top class is the true one.
    """
    bins = _bin(confidence)
    table = []
    for index in range(BINS):
        inside = bins == index
        low, high = index / BINS, (index + 1) / BINS
        mean = float(confidence[inside].mean()) if inside.any() else (low + high) / 2
        table.append(ReliabilityBin(low, high, mean, wilson(int(correct[inside].sum()), int(inside.sum()))))
    return table


def calibration_error(answers: Answers) -> Interval:
    """Returns the expected calibration error (15 bins, Guo et al. 2017) with a 95 % interval.

    The error is an average of absolute values, so chance alone lifts it above 0, and a bootstrap lifts it once more:
    its plain percentile interval can lie wholly above the truth. So the upper end is the bootstrap's, and the lower end
    is the bootstrap's reflected at the estimate (the basic interval), or 0 where a perfectly calibrated model with the
    same probabilities would reach the measured error by chance (consistency resampling: J. Bröcker, L. A. Smith,
    "Increasing the Reliability of Reliability Diagrams", Weather and Forecasting 22, 2007).
    """
    confidence, seed = answers.confidence, answers.seed
    bins = _bin(confidence)
    gap = answers.correct.astype(np.float64) - confidence
    value = float(_error_of(bins, gap))
    low, high = bootstrap(lambda rows: _errors_of(bins[rows], gap[rows]), np.zeros(len(gap)), seed)
    reflected = 0.0 if value <= _by_chance(bins, confidence, seed) else max(0.0, 2 * value - high)
    return Interval(value=value, low=min(reflected, low, value), high=max(high, value), n=len(gap))


def _by_chance(bins: np.ndarray, confidence: np.ndarray, seed: int) -> float:
    """The error that a perfectly calibrated model with these probabilities stays below 97.5 % of the time."""
    rng = np.random.default_rng(seed)
    errors = [_error_of(bins, (rng.random(len(bins)) < confidence) - confidence) for _ in range(RESAMPLES)]
    return float(np.quantile(errors, 0.975))


def _bin(confidence: np.ndarray) -> np.ndarray:
    return np.minimum((confidence * BINS).astype(np.int64), BINS - 1)


def _error_of(bins: np.ndarray, gap: np.ndarray) -> float:
    return float(np.abs(np.bincount(bins, weights=gap, minlength=BINS)).sum() / len(gap))


def _errors_of(bins: np.ndarray, gap: np.ndarray) -> np.ndarray:
    """As `_error_of` for many resamples at once: int64 [r, n] and float [r, n] to float [r]."""
    rows = len(bins)
    keys = bins + BINS * np.arange(rows)[:, None]
    sums = np.bincount(keys.ravel(), weights=gap.ravel(), minlength=rows * BINS).reshape(rows, BINS)
    return np.abs(sums).sum(axis=1) / bins.shape[1]
