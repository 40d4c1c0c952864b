"""Metrics against scikit-learn and hand-computed numbers."""

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, f1_score, precision_score, recall_score

from graftline.errors import GraftlineError
from graftline.evaluation.answers import Answers
from graftline.evaluation.calibration import calibration_error, reliability_table
from graftline.evaluation.measurements import evaluate_predictions
from graftline.evaluation.mistakes import confident_mistakes
from graftline.evaluation.overall import macro_f1
from graftline.intervals import wilson
from graftline.records import Interval


def synthetic(n: int, k: int, skill: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, k, n)
    logits = rng.normal(size=(n, k))
    logits[np.arange(n), labels] += skill
    odds = np.exp(logits)
    return (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32), labels


def certain(labels: np.ndarray, predictions: np.ndarray) -> Answers:
    """Answers given with certainty."""
    return Answers(np.eye(1 + max(labels.max(), predictions.max()))[predictions], labels)


def sure(confidence: np.ndarray, correct: np.ndarray) -> Answers:
    """Answers of two classes with that top probability, of at least a half: always the first."""
    return Answers(np.stack([confidence, 1 - confidence], axis=1), np.where(correct, 0, 1))


def test_agrees_with_scikit_learn():
    probabilities, labels = synthetic(300, 4, 1.5)
    predictions = probabilities.argmax(axis=1)
    measured = evaluate_predictions(probabilities, labels, [""] * 300, list("abcd"))
    assert measured.confusion.tolist() == confusion_matrix(labels, predictions).tolist()
    assert measured.accuracy == wilson(int((predictions == labels).sum()), 300)
    assert measured.metrics["macro_f1"].value == pytest.approx(f1_score(labels, predictions, average="macro"))
    assert [c.metrics["precision"].value for c in measured.classes] == pytest.approx(
        precision_score(labels, predictions, average=None).tolist()
    )
    assert [c.metrics["recall"].value for c in measured.classes] == pytest.approx(
        recall_score(labels, predictions, average=None).tolist()
    )
    assert [c.metrics["recall"].n for c in measured.classes] == np.bincount(labels).tolist()
    assert measured.accuracy_by_domain == {}


def test_macro_f1_interval_covers_resampled_truth():
    labels = np.repeat([0, 1], [300, 100])
    rng = np.random.default_rng(5)
    right = rng.random(400) < np.where(labels == 0, 0.95, 0.7)
    predictions = np.where(right, labels, 1 - labels)
    # true rates 0.95 and 0.7: tp 285, fn 15, fp 30 and tp 70, fn 30, fp 15
    truth = (2 * 285 / (570 + 45) + 2 * 70 / (140 + 45)) / 2
    interval = macro_f1(certain(labels, predictions))
    assert interval.low < truth < interval.high
    assert 0.05 < interval.high - interval.low < 0.15
    assert interval == macro_f1(certain(labels, predictions))


def test_a_class_never_predicted():
    labels = np.array([0, 0, 0, 1])
    probabilities = np.array([[0.9, 0.1]] * 4)
    measured = evaluate_predictions(probabilities, labels, [""] * 4, ["cat", "dog"])
    dog = measured.classes[1].metrics
    assert dog["precision"] == Interval(value=0.0, low=0.0, high=1.0, n=0)
    assert (dog["recall"].value, dog["recall"].n) == (0.0, 1)
    assert measured.metrics["macro_f1"].value == pytest.approx((6 / 7) / 2)


def test_a_class_without_test_images_does_not_lower_macro_f1():
    labels = np.array([0, 2, 0, 2, 0])
    predictions = np.array([0, 2, 0, 0, 0])
    assert macro_f1(certain(labels, predictions)).value == pytest.approx(f1_score(labels, predictions, average="macro"))


def test_all_right_is_not_certain():
    labels = np.array([0, 1] * 10)
    assert macro_f1(certain(labels, labels)) == wilson(20, 20)


def test_accuracy_by_domain():
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]])
    labels = np.array([0, 1, 1, 0])
    measured = evaluate_predictions(probabilities, labels, ["poly", "mono", "mono", ""], ["a", "b"])
    assert measured.accuracy_by_domain == {"(none)": wilson(1, 1), "mono": wilson(1, 2), "poly": wilson(1, 1)}


def test_calibration_error_by_hand():
    confidence = np.array([0.95, 0.95, 0.55, 0.55])
    correct = np.array([True, True, True, False])
    # |1 - 0.95| in one bin of two images, |0.5 - 0.55| in another
    assert calibration_error(sure(confidence, correct)).value == pytest.approx(0.05)
    table = reliability_table(confidence, correct)
    assert len(table) == 15
    assert table[8].accuracy == wilson(1, 2) and table[14].accuracy == wilson(2, 2)
    assert sum(b.accuracy.n for b in table) == 4
    assert reliability_table(np.array([1.0]), np.array([True]))[14].accuracy.n == 1


@pytest.mark.parametrize("boast", [0.0, 0.2])
def test_calibration_interval_holds_the_truth_nearly_always(boast):
    rng = np.random.default_rng(2)
    held = 0
    for _ in range(30):
        confidence = rng.uniform(0.5, 1, 300)
        interval = calibration_error(sure(confidence, rng.random(300) < confidence - boast))
        held += interval.low <= boast <= interval.high
    assert held >= 27


def test_calibration_interval_tells_boasting():
    rng = np.random.default_rng(2)
    confidence = rng.uniform(0.5, 1, 1000)
    assert calibration_error(sure(confidence, rng.random(1000) < confidence)).low == 0
    assert calibration_error(sure(confidence, rng.random(1000) < confidence - 0.2)).low > 0.1


def test_confident_mistakes_come_first():
    probabilities = np.array([[0.6, 0.4], [0.9, 0.1], [0.2, 0.8], [0.3, 0.7], [0.1, 0.9]])
    labels = np.array([1, 1, 1, 0, 0])
    assert confident_mistakes(probabilities, labels).tolist() == [1, 4, 3, 0]
    assert confident_mistakes(probabilities, labels, most=2).tolist() == [1, 4]
    assert confident_mistakes(probabilities, probabilities.argmax(axis=1)).tolist() == []


def test_probabilities_that_are_not_numbers():
    probabilities = np.array([[np.nan, np.nan], [0.5, 0.5]])
    with pytest.raises(GraftlineError, match=r"for 1 of 2 images.*diverged"):
        evaluate_predictions(probabilities, np.array([0, 1]), ["", ""], ["a", "b"])
