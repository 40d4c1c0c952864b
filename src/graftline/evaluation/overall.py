"""Metrics of a split as a whole: one number with its 95 % interval. `metrics.py` lists them."""

import math

import numpy as np

from graftline.evaluation.answers import Answers
from graftline.intervals import bootstrap, wilson, wilson_of_strata
from graftline.records import Interval

TOP = 5


def accuracy(answers: Answers) -> Interval:
    """Returns the share of images whose most probable class is the true one, with its Wilson interval."""
    return wilson(int(answers.correct.sum()), len(answers.labels))


def balanced_accuracy(answers: Answers) -> Interval:
    """Returns the unweighted mean of the recalls of the classes that have images, each class a stratum."""
    support = answers.confusion.sum(axis=1)
    seen = support > 0
    return wilson_of_strata(np.diagonal(answers.confusion)[seen], support[seen])


def top_accuracy(answers: Answers) -> Interval:
    """Returns the share of images whose true class is among the five most probable, with its Wilson interval.

    Of classes that are equally probable the later ones come first, as in scikit-learn's `top_k_accuracy_score`.
    """
    of_truth = np.take_along_axis(answers.probabilities, answers.labels[:, None], axis=1)
    later = np.arange(answers.k) > answers.labels[:, None]
    before = (answers.probabilities > of_truth) | ((answers.probabilities == of_truth) & later)
    return wilson(int((before.sum(axis=1) < TOP).sum()), len(answers.labels))


def has_more_than_the_top(answers: Answers) -> bool:
    """Whether the true class can fail to be among the five most probable."""
    return answers.k > TOP


def log_loss(answers: Answers) -> Interval:
    """Returns the mean loss of `Answers.losses` with a bootstrap interval over all images.

    Where all losses are alike a bootstrap has nothing to vary and would claim certainty. But up to a share w of images,
    the Wilson limit of none in n, may be unlike those seen, with any loss from none to the highest there is.
    """
    losses, n = answers.losses, len(answers.labels)
    value = float(losses.mean())
    if losses.min() == losses.max():
        unseen, highest = wilson(0, n).high, -math.log(np.finfo(answers.probabilities.dtype).eps)
        return Interval(value=value, low=value * (1 - unseen), high=value + unseen * (highest - value), n=n)
    low, high = bootstrap(lambda rows: losses[rows].mean(axis=1), np.zeros(n), answers.seed)
    return Interval(value=value, low=min(low, value), high=max(high, value), n=n)


def macro_f1(answers: Answers) -> Interval:
    """Returns the unweighted mean of the classes' F1 with a bootstrap interval, stratified by true class.

    The mean is over the classes that occur among labels or predictions, as in scikit-learn's `f1_score`. When every
    image is right a bootstrap has nothing to vary and would claim certainty; macro-F1 is 1 exactly when accuracy is,
    so the Wilson interval of the accuracy stands in.
    """
    labels, correct = answers.labels, answers.correct
    _, both = np.unique(np.concatenate([labels, answers.predictions]), return_inverse=True)
    true, predicted = both[: len(labels)], both[len(labels) :]
    k = int(both.max()) + 1
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
    low, high = bootstrap(mean_f1, true, answers.seed)
    return Interval(value=value, low=min(low, value), high=max(high, value), n=len(labels))
