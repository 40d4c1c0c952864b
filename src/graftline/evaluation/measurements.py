"""All that is measured on a split: metrics, numbers by domain and group, the table behind the calibration error."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graftline.errors import GraftlineError
from graftline.evaluation.answers import Answers
from graftline.evaluation.calibration import ReliabilityBin, reliability_table
from graftline.evaluation.metrics import CLASS_METRICS, METRICS
from graftline.intervals import wilson, wilson_of_groups
from graftline.records import ClassMetrics, Interval

NO_DOMAIN = "(none)"


@dataclass(frozen=True)
class Measurements:
    """Everything measured on one split.

    Attributes:
        metrics: Those of `METRICS` that apply, by key.
        mean_confidence: Mean top probability.
        classes: Per-class metrics in label order.
        confusion: int64 [k, k], rows are true classes, columns predictions.
        accuracy_by_domain: Accuracy for each domain, sorted by name; empty when there are none.
        reliability: The 15 bins behind the calibration error.
        groups: Number of groups that the images are of; each image its own where the source names none.
        accuracy_of_groups: Accuracy, its interval as wide as groups of dependent images make it.
    """

    metrics: dict[str, Interval]
    mean_confidence: float
    classes: list[ClassMetrics]
    confusion: np.ndarray
    accuracy_by_domain: dict[str, Interval]
    reliability: list[ReliabilityBin]
    groups: int
    accuracy_of_groups: Interval

    @property
    def accuracy(self) -> Interval:
        """The share of right answers."""
        return self.metrics["accuracy"]


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
    answers = Answers(probabilities, labels, seed)
    return Measurements(
        metrics={metric.key: metric.measure(answers) for metric in METRICS if metric.applies(answers)},
        mean_confidence=float(answers.confidence.mean()),
        classes=_by_class(answers, classes),
        confusion=answers.confusion,
        accuracy_by_domain=_by_domain(answers.correct, domains),
        reliability=reliability_table(answers.confidence, answers.correct),
        groups=len(set(groups)) or len(labels),
        accuracy_of_groups=wilson_of_groups(answers.correct, groups or range(len(labels))),
    )


def _by_class(answers: Answers, classes: Sequence[str]) -> list[ClassMetrics]:
    columns = {metric.key: metric.measure(answers) for metric in CLASS_METRICS if metric.applies(answers)}
    return [
        ClassMetrics(name=name, metrics={key: column[index] for key, column in columns.items()})
        for index, name in enumerate(classes)
    ]


def _by_domain(correct: np.ndarray, domains: Sequence[str]) -> dict[str, Interval]:
    if not any(domains):
        return {}
    names = np.array([domain or NO_DOMAIN for domain in domains])
    return {
        str(name): wilson(int(correct[names == name].sum()), int((names == name).sum())) for name in np.unique(names)
    }
