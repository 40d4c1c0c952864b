"""What predictions are worth: accuracy, macro-F1, per-class precision and recall, each with its 95 % interval."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graftline.errors import GraftlineError
from graftline.evaluation.calibration import ReliabilityBin, calibration_error, reliability_table
from graftline.intervals import bootstrap, wilson, wilson_of_groups
from graftline.records import ClassMetrics, Interval

NO_DOMAIN = "(none)"


@dataclass(frozen=True)
class Measurements:
    """Everything measured on one split.

    Attributes:
        accuracy: Wilson interval.
        macro_f1: Stratified bootstrap interval.
        calibration_error: Of the top probability, 15 bins.
        mean_confidence: Mean top probability.
        classes: Per-class metrics in label order.
        confusion: int64 [k, k], rows are true classes, columns predictions.
        accuracy_by_domain: Accuracy for each domain, sorted by name; empty when there are none.
        reliability: The 15 bins behind the calibration error.
        groups: Number of groups that the images are of; each image its own where the source names none.
        accuracy_of_groups: Accuracy, its interval as wide as groups of dependent images make it.
    """

    accuracy: Interval
    macro_f1: Interval
    calibration_error: Interval
    mean_confidence: float
    classes: list[ClassMetrics]
    confusion: np.ndarray
    accuracy_by_domain: dict[str, Interval]
    reliability: list[ReliabilityBin]
    groups: int
    accuracy_of_groups: Interval


def evaluate_predictions(
    probabilities: np.ndarray,
    labels: np.ndarray,
    domains: Sequence[str],
    classes: Sequence[str],
    seed: int = 0,
    groups: Sequence[str] = (),
) -> Measurements:
    """Measures predictions against the truth.

    Args:
        probabilities: float [n, k], rows sum to 1, n > 0.
        labels: int64 [n], indices of the true classes.
        domains: Domain of each image, '' where there is none.
        classes: The k class names in label order.
        seed: Of the bootstrap.
        groups: Group of each image; empty: each is its own.

    Raises:
        GraftlineError: Some probabilities are not numbers: the model's training has diverged.
    """
    broken = int((~np.isfinite(probabilities)).any(axis=1).sum())
    if broken:
        raise GraftlineError(
            f"the model gives no valid probabilities for {broken} of {len(labels)} images: its training has diverged, "
            "run `graftline fine_tune` again with a lower --learning_rate"
        )
    predictions = probabilities.argmax(axis=1)
    confidence = probabilities.max(axis=1).astype(np.float64)
    correct = predictions == labels
    confusion = confusion_matrix(labels, predictions, len(classes))
    return Measurements(
        accuracy=wilson(int(correct.sum()), len(labels)),
        macro_f1=macro_f1(labels, predictions, seed),
        calibration_error=calibration_error(confidence, correct, seed),
        mean_confidence=float(confidence.mean()),
        classes=_by_class(confusion, classes),
        confusion=confusion,
        accuracy_by_domain=_by_domain(correct, domains),
        reliability=reliability_table(confidence, correct),
        groups=len(set(groups)) or len(labels),
        accuracy_of_groups=wilson_of_groups(correct, groups or range(len(labels))),
    )


def confusion_matrix(labels: np.ndarray, predictions: np.ndarray, k: int) -> np.ndarray:
    """Counts images by true class (row) and predicted class (column), int64 [k, k]."""
    return np.bincount(labels * k + predictions, minlength=k * k).reshape(k, k)


def macro_f1(labels: np.ndarray, predictions: np.ndarray, seed: int) -> Interval:
    """Returns the unweighted mean of the classes' F1 with a bootstrap interval, stratified by true class.

    The mean is over the classes that occur among labels or predictions, as in scikit-learn's `f1_score`. When every
    image is right a bootstrap has nothing to vary and would claim certainty; macro-F1 is 1 exactly when accuracy is,
    so the Wilson interval of the accuracy stands in.

    Args:
        labels: int64 [n], n > 0.
        predictions: int64 [n].
        seed: Of the bootstrap.
    """
    _, both = np.unique(np.concatenate([labels, predictions]), return_inverse=True)
    true, predicted = both[: len(labels)], both[len(labels) :]
    k, correct = int(both.max()) + 1, labels == predictions
    if correct.all():
        return wilson(len(labels), len(labels))
    support = np.bincount(true, minlength=k)

    def mean_f1(rows: np.ndarray) -> np.ndarray:
        base = k * np.arange(len(rows))[:, None]
        hits = np.bincount((true[rows] + base).ravel(), weights=correct[rows].ravel(), minlength=k * len(rows))
        calls = np.bincount((predicted[rows] + base).ravel(), minlength=k * len(rows))
        sums = calls.reshape(-1, k) + support
        return np.divide(2 * hits.reshape(-1, k), sums, out=np.zeros(sums.shape), where=sums > 0).mean(axis=1)

    value = float(mean_f1(np.arange(len(labels))[None])[0])
    low, high = bootstrap(mean_f1, true, seed)
    return Interval(value=value, low=min(low, value), high=max(high, value), n=len(labels))


def _by_class(confusion: np.ndarray, classes: Sequence[str]) -> list[ClassMetrics]:
    hits, calls, support = np.diagonal(confusion), confusion.sum(axis=0), confusion.sum(axis=1)
    return [
        ClassMetrics(
            name=name,
            precision=wilson(int(hits[i]), int(calls[i])),
            recall=wilson(int(hits[i]), int(support[i])),
        )
        for i, name in enumerate(classes)
    ]


def _by_domain(correct: np.ndarray, domains: Sequence[str]) -> dict[str, Interval]:
    if not any(domains):
        return {}
    names = np.array([domain or NO_DOMAIN for domain in domains])
    return {
        str(name): wilson(int(correct[names == name].sum()), int((names == name).sum())) for name in np.unique(names)
    }
