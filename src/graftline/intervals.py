"""95 % intervals: for proportions, for the difference of two, and for any statistic of the images (bootstrap)."""

import math
from collections.abc import Callable, Iterator, Sequence
from statistics import NormalDist

import numpy as np
from scipy.optimize import brentq

from graftline.records import Interval

RESAMPLES = 2000
_Z = NormalDist().inv_cdf(0.975)
_BLOCK = 2_000_000


def wilson(successes: int, n: int) -> Interval:
    """Returns a proportion with its Wilson score interval.

    The interval stays inside [0, 1] and keeps its coverage for few images and for proportions near 0 and 1.
    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).

    Args:
        successes: Count in [0, n].
        n: Number of trials; with 0 nothing is known: value 0, interval [0, 1].
    """
    if n == 0:
        return Interval(value=0.0, low=0.0, high=1.0, n=0)
    return Interval(value=successes / n, **_wilson_limits(successes / n, n), n=n)


def _wilson_limits(share: float, n: float) -> dict[str, float]:
    centre = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    return {"low": centre - half if share else 0.0, "high": centre + half if share < 1 else 1.0}


def wilson_of_mean(mean: float, n: int) -> Interval:
    """Returns a mean of `n` numbers in [0, 1] with the Wilson interval of a share of so many trials.

    No numbers in [0, 1] with that mean vary more than those of trials that succeed or fail.

    Args:
        mean: In [0, 1].
        n: How many numbers; with 0 nothing is known: value 0, interval [0, 1].
    """
    return Interval(value=mean, **_wilson_limits(mean, n), n=n) if n else wilson(0, 0)


def wilson_of_strata(successes: np.ndarray, sizes: np.ndarray) -> Interval:
    """Returns the unweighted mean of the strata's proportions with a Wilson interval.

    Its n in the score is that of a plain proportion with the same variance (E. L. Korn and B. I. Graubard, "Confidence
    intervals for proportions with small expected number of positive counts", 1998). For the variance each stratum gets
    four trials more with the mean's share of successes (after A. Agresti and B. A. Coull, "Approximate is better than
    'exact' for interval estimation of binomial proportions", 1998): few trials that all end alike are not certain.

    Args:
        successes: int [s], s > 0.
        sizes: Trials of each stratum, int [s], each > 0.

    Returns:
        The interval; its n is the number of trials.
    """
    mean, n = float((successes / sizes).mean()), int(sizes.sum())
    shares = (successes + 4 * mean) / (sizes + 4)
    variance = float((shares * (1 - shares) / sizes).sum())
    alike = float((1 / sizes).sum())  # that of strata with one proportion, over its own: the limit at 0 and 1
    effective = len(sizes) ** 2 * (mean * (1 - mean) / variance if variance else 1 / alike)
    return Interval(value=mean, **_wilson_limits(mean, effective), n=n)


def wilson_of_groups(correct: np.ndarray, groups: Sequence[object]) -> Interval:
    """Returns a proportion with a Wilson interval that knows that answers within a group are alike.

    The number of images is divided by the design effect: how much larger the variance between groups is than that of as
    many independent images (L. Kish, "Survey Sampling", 1965; n_eff in the Wilson score of E. L. Korn and B. I.
    Graubard, "Confidence intervals for proportions with small expected number of positive counts", 1998).

    Args:
        correct: bool [n].
        groups: Group of each image.

    Returns:
        The interval; its n is the number of images.
    """
    n, mean = len(correct), float(correct.mean())
    _, members = np.unique(np.asarray(groups), return_inverse=True)
    sizes = np.bincount(members)
    excess = np.bincount(members, weights=correct - mean)
    spread = mean * (1 - mean) * n
    between = float((excess**2).sum()) * len(sizes) / max(1, len(sizes) - 1)
    effect = between / spread if spread else float((sizes**2).sum()) / n  # all answers alike: as if each group were one
    return Interval(value=mean, **_wilson_limits(mean, n / max(1.0, effect)), n=n)


def unpaired_difference(first: Interval, second: Interval) -> Interval:
    """Returns `first` minus `second`, two proportions measured on different images.

    Source: R. G. Newcombe, "Interval estimation for the difference between independent proportions", Statistics in
    Medicine 17 (1998), method 10: the distances to the two Wilson limits are added as squares.

    Args:
        first: A proportion with its Wilson interval.
        second: Another, from other images.

    Returns:
        The difference, in [-1, 1]; n is the smaller of the two.
    """
    value = first.value - second.value
    low = value - math.hypot(first.value - first.low, second.high - second.value)
    high = value + math.hypot(first.high - first.value, second.value - second.low)
    return Interval(value=value, low=low, high=high, n=min(first.n, second.n))


def paired_difference(correct_new: np.ndarray, correct_old: np.ndarray) -> Interval:
    """Returns the accuracy of a new model minus that of an old one on the same images, with Tango's score interval.

    Only images on which the two differ speak; the interval keeps its width when there are none, where a bootstrap
    would claim certainty. Nothing in it is random.
    Source: T. Tango, "Equivalence test and confidence interval for the difference in proportions for the
    paired-sample design", Statistics in Medicine 17 (1998).

    Args:
        correct_new: bool [n], whether the new model is right on each image.
        correct_old: bool [n], the old model on the same images in the same order.

    Returns:
        The difference, in [-1, 1]; without images the interval is [-1, 1].

    Raises:
        ValueError: The two have different lengths.
    """
    new, old = np.asarray(correct_new, dtype=bool), np.asarray(correct_old, dtype=bool)
    if new.shape != old.shape:
        raise ValueError(f"correct_new has {new.size} images and correct_old {old.size}: they must be the same images")
    n, gained, lost = new.size, int((new & ~old).sum()), int((~new & old).sum())
    if n == 0:
        return Interval(value=0.0, low=-1.0, high=1.0, n=0)
    low, high = _tango_low(gained, lost, n), -_tango_low(lost, gained, n)
    return Interval(value=(gained - lost) / n, low=low, high=high, n=n)


def _tango_low(gained: int, lost: int, n: int) -> float:
    """The lowest difference that the counts do not reject; the highest is that of the swapped models, negated."""
    if lost == n:
        return -1.0
    below = (gained - lost) / n - 1e-9  # at the estimate itself the variance, and so the excess, can be exactly 0
    return float(brentq(_tango_excess, -1.0, below, args=(gained, lost, n)))


def _tango_excess(delta: float, gained: int, lost: int, n: int) -> float:
    """The observed count above `delta`, beyond what chance explains if `delta` were the true difference."""
    b = -gained - lost + (2 * n - gained + lost) * delta
    c = -lost * delta * (1 - delta)
    lost_share = (math.sqrt(max(0.0, b * b - 8 * n * c)) - b) / (4 * n)
    variance = n * (2 * lost_share + delta * (1 - delta))
    return gained - lost - n * delta - _Z * math.sqrt(max(0.0, variance))


def bootstrap(statistic: Callable[[np.ndarray], np.ndarray], strata: np.ndarray, seed: int) -> tuple[float, float]:
    """Returns the 95 % percentile interval of a statistic over 2,000 resamples of the images.

    Source: B. Efron and R. Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13.

    Args:
        statistic: Takes indices of images, int64 [r, n], one resample a row, and returns float [r].
        strata: [n] with n > 0; images are drawn with replacement inside each stratum, whose sizes so stay as they are.
        seed: Of the draws.
    """
    values = np.concatenate([statistic(indices) for indices in _resample(strata, seed)])
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def _resample(strata: np.ndarray, seed: int) -> Iterator[np.ndarray]:
    """Yields the resamples in blocks that bound the memory."""
    rng = np.random.default_rng(seed)
    order = np.argsort(strata, kind="stable")
    _, start, size = np.unique(strata[order], return_index=True, return_counts=True)
    first, width = np.repeat(start, size), np.repeat(size, size)
    rows = max(1, _BLOCK // len(strata))
    for done in range(0, RESAMPLES, rows):
        draws = rng.random((min(rows, RESAMPLES - done), len(strata)))
        yield order[first + (draws * width).astype(np.int64)]
