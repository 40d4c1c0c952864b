"""Intervals against published numbers, against scipy, and against their own definition."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest

from graftline.intervals import bootstrap, paired_difference, unpaired_difference, wilson, wilson_of_groups
from graftline.records import Interval

Z2 = 3.841458820694124


def answers(both: int, gained: int, lost: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    new = [True] * both + [True] * gained + [False] * lost + [False] * neither
    old = [True] * both + [False] * gained + [True] * lost + [False] * neither
    return np.array(new, dtype=bool), np.array(old, dtype=bool)


@pytest.mark.parametrize(("successes", "n"), [(587, 656), (0, 5), (5, 5), (1, 3), (50, 100)])
def test_wilson_is_scipys(successes, n):
    theirs = binomtest(successes, n).proportion_ci(method="wilson")
    ours = wilson(successes, n)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert (ours.value, ours.n) == (successes / n, n)


def test_wilson_by_hand():
    # Newcombe 1998, table I: 81 of 263 and 15 of 148
    assert (round(wilson(81, 263).low, 4), round(wilson(81, 263).high, 4)) == (0.2553, 0.3662)
    assert (round(wilson(15, 148).low, 4), round(wilson(15, 148).high, 4)) == (0.0624, 0.1605)


def test_wilson_of_nothing_knows_nothing():
    assert wilson(0, 0) == Interval(value=0.0, low=0.0, high=1.0, n=0)


def test_unpaired_difference_by_hand():
    # Newcombe 1998, table II, method 10: 56/70 - 48/80
    gap = unpaired_difference(wilson(56, 70), wilson(48, 80))
    assert (round(gap.low, 4), round(gap.high, 4)) == (0.0524, 0.3339)


def score_statistic(delta: float, gained: int, lost: int, n: int) -> float:
    """Squared score statistic; the share of losses under `delta` is found by maximising the likelihood."""

    def minus_log_likelihood(share: float) -> float:
        cells = ((gained, share + delta), (lost, share), (n - gained - lost, 1 - 2 * share - delta))
        return -sum(count * np.log(max(p, 1e-300)) for count, p in cells if count)

    low, high = max(0.0, -delta), (1 - delta) / 2
    share = minimize_scalar(minus_log_likelihood, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x
    return (gained - lost - n * delta) ** 2 / (n * (2 * share + delta - delta**2))


@pytest.mark.parametrize("counts", [(500, 40, 21, 95), (36, 12, 2, 0), (43, 0, 1, 0), (10, 3, 0, 7)])
def test_paired_ends_are_where_the_score_test_turns(counts):
    gap = paired_difference(*answers(*counts))
    n = sum(counts)
    assert gap.value == pytest.approx((counts[1] - counts[2]) / n)
    assert gap.n == n
    for end in (gap.low, gap.high):
        assert score_statistic(end, counts[1], counts[2], n) == pytest.approx(Z2, rel=1e-3)


def test_paired_difference_turns_its_sign_with_the_models():
    new, old = answers(500, 40, 21, 95)
    there, back = paired_difference(new, old), paired_difference(old, new)
    assert (there.value, there.low, there.high) == pytest.approx((-back.value, -back.high, -back.low))


def test_paired_difference_of_equal_answers_is_not_certain():
    gap = paired_difference(*answers(18, 0, 0, 2))
    half = Z2 / (20 + Z2)  # the score equation has this closed form without discordant images
    assert (gap.value, gap.low, gap.high) == pytest.approx((0.0, -half, half))


def test_paired_difference_at_its_extremes():
    won = paired_difference(*answers(0, 3, 0, 0))
    assert (won.value, won.high) == (1.0, 1.0)
    assert won.low < 0
    nothing = np.zeros(0, dtype=bool)
    assert paired_difference(nothing, nothing) == Interval(value=0.0, low=-1.0, high=1.0, n=0)


def test_paired_difference_wants_the_same_images():
    with pytest.raises(ValueError, match="3 images and correct_old 2"):
        paired_difference(np.ones(3, dtype=bool), np.ones(2, dtype=bool))


def test_bootstrap_of_a_mean_is_its_standard_error():
    values = np.random.default_rng(1).normal(5, 2, 400)
    low, high = bootstrap(lambda rows: values[rows].mean(axis=1), np.zeros(400), seed=0)
    half = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.03)
    assert (low, high) == bootstrap(lambda rows: values[rows].mean(axis=1), np.zeros(400), seed=0)


def test_bootstrap_draws_inside_strata():
    strata = np.array([2, 0, 1, 0, 2, 2, 0])
    seen = []
    bootstrap(lambda rows: seen.append(rows) or np.zeros(len(rows)), strata, seed=3)
    drawn = strata[np.concatenate(seen)]
    assert drawn.shape == (2000, 7)
    assert ((drawn == 0).sum(axis=1) == 3).all() and ((drawn == 2).sum(axis=1) == 3).all()
    assert len(np.unique(np.concatenate(seen))) == 7


def test_an_interval_of_groups_covers_the_truth_where_one_of_images_does_not() -> None:
    """Thirty scenes of ten images; the model is right in all or none of most scenes, 80 % in the long run."""
    random = np.random.default_rng(0)
    groups = np.repeat(np.arange(30), 10)
    covered = {"images": 0, "groups": 0}
    for _ in range(300):
        correct = random.random(300) < random.beta(0.8, 0.2, 30)[groups]
        for name, interval in (
            ("images", wilson(int(correct.sum()), 300)),
            ("groups", wilson_of_groups(correct, groups)),
        ):
            covered[name] += interval.low <= 0.8 <= interval.high
    assert covered["images"] < 200 < 270 <= covered["groups"]
    alone = random.random(300) < 0.8
    one, other = wilson(int(alone.sum()), 300), wilson_of_groups(alone, range(300))
    assert (other.low, other.high) == pytest.approx((one.low, one.high), abs=1e-3)
    assert wilson_of_groups(np.ones(300, dtype=bool), groups).low == pytest.approx(wilson(30, 30).low)
