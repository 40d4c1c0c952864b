"""The table of metrics: each value against scikit-learn on usual and on awkward answers, each interval against luck."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from registry_inputs import as_before
from sklearn import metrics as sklearn

from graftline.errors import GraftlineError
from graftline.evaluation import by_class, overall
from graftline.evaluation.answers import Answers
from graftline.evaluation.measurements import evaluate_predictions
from graftline.evaluation.metrics import CLASS_METRICS, METRICS
from graftline.evaluation.outputs import write_metrics
from graftline.files import sha256_bytes
from graftline.intervals import wilson
from graftline.records import ClassMetrics, Evaluation, Interval, read_record, with_ends

RESAMPLED = {"macro_f1", "calibration_error"}  # where all images of a class fare alike, nothing is left to vary
UNKNOWN = Interval(value=0.0, low=0.0, high=1.0, n=0)


def drawn(n: int, k: int, skill: float = 1.5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, k, n)
    logits = rng.normal(size=(n, k)) + skill * np.eye(k)[labels]
    odds = np.exp(logits)
    return (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32), labels


def never_predicted() -> tuple[np.ndarray, np.ndarray]:
    probabilities, labels = drawn(200, 7)
    probabilities[:, 3] = 0
    return probabilities / probabilities.sum(axis=1, keepdims=True), labels


def without_images() -> tuple[np.ndarray, np.ndarray]:
    probabilities, labels = drawn(200, 7)
    return probabilities, np.where(labels == 2, 5, labels)


def all_right() -> tuple[np.ndarray, np.ndarray]:
    labels = np.arange(60) % 6
    return np.full((60, 6), 0.02) + 0.88 * np.eye(6)[labels], labels


def all_wrong_and_certain() -> tuple[np.ndarray, np.ndarray]:
    labels = np.arange(60) % 6
    return np.eye(6, dtype=np.float32)[(labels + 1) % 6], labels


CASES = {
    "two classes": drawn(300, 2),
    "six classes": drawn(500, 6),
    "many classes": drawn(400, 40, 3),
    "all right": all_right(),
    "all wrong with certainty": all_wrong_and_certain(),
    "a class never predicted": never_predicted(),
    "a class without images": without_images(),
    "ties": (np.full((40, 8), 0.125), np.arange(40) % 8),
    "coarse ties": (
        np.round(drawn(300, 6)[0] * 4 + 0.5) / np.round(drawn(300, 6)[0] * 4 + 0.5).sum(1)[:, None],
        drawn(300, 6)[1],
    ),
    "one image": drawn(1, 7),
}


@pytest.fixture(params=CASES, scope="module")
def answers(request: pytest.FixtureRequest) -> Answers:
    return Answers(*CASES[request.param])


def close(expected: object) -> object:
    return pytest.approx(expected, rel=1e-12, abs=1e-15)


def test_metrics_of_the_whole_are_those_of_scikit_learn(answers: Answers) -> None:
    truth, said, p, names = answers.labels, answers.predictions, answers.probabilities, range(answers.k)
    measured = {metric.key: metric.measure(answers).value for metric in METRICS if metric.applies(answers)}
    assert ("top_5_accuracy" in measured) == (answers.k > 5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # classes that are never seen
        expected = {
            "accuracy": sklearn.accuracy_score(truth, said),
            "macro_f1": sklearn.f1_score(truth, said, average="macro"),
            "balanced_accuracy": sklearn.balanced_accuracy_score(truth, said),
        }
        if answers.k > 5:
            expected["top_5_accuracy"] = sklearn.top_k_accuracy_score(truth, p, k=5, labels=list(names))
        loss = sklearn.log_loss(truth, p, labels=list(names))
    assert {key: measured[key] for key in expected} == close(expected)
    assert measured["log_loss"] == pytest.approx(
        loss, rel=1e-6 if p.dtype == np.float32 else 1e-12
    )  # scikit-learn's sum is float32


def test_metrics_by_class_are_those_of_scikit_learn(answers: Answers) -> None:
    truth, said, k = answers.labels, answers.predictions, answers.k
    measured = {metric.key: metric.measure(answers) for metric in CLASS_METRICS}
    each = {"labels": list(range(k)), "average": None, "zero_division": 0}
    expected = {
        "recall": sklearn.recall_score(truth, said, **each),
        "precision": sklearn.precision_score(truth, said, **each),
        "f1": sklearn.f1_score(truth, said, **each),
        "average_precision": [
            sklearn.average_precision_score(truth == c, answers.probabilities[:, c]) if (truth == c).any() else 0
            for c in range(k)
        ],
    }
    assert {key: [one.value for one in measured[key]] for key in expected} == {
        key: close(list(column)) for key, column in expected.items()
    }
    support, calls = np.bincount(truth, minlength=k), np.bincount(said, minlength=k)
    hits = np.bincount(truth[truth == said], minlength=k)
    ns = {"recall": support, "precision": calls, "f1": support + calls - hits, "average_precision": support}
    assert {key: [one.n for one in measured[key]] for key in ns} == {key: n.tolist() for key, n in ns.items()}


def test_every_interval_holds_its_value_and_leaves_room(answers: Answers) -> None:
    of_whole = [(m, m.measure(answers)) for m in METRICS if m.applies(answers)]
    of_classes = [(m, one) for m in CLASS_METRICS for one in m.measure(answers)]
    for metric, one in of_whole + of_classes:
        assert one.low <= one.value <= one.high, metric.key
        if metric.key not in RESAMPLED:
            assert one.low < one.high, f"{metric.key} claims certainty"
        assert one.low >= 0 and (one.high <= 1 or not metric.is_share), metric.key
        if one.n == 0:
            assert one == UNKNOWN, metric.key
    assert {one.n for _, one in of_whole} == {len(answers.labels)}


def test_a_class_without_images_is_unknown_but_for_the_answers_it_gets() -> None:
    answers = Answers(np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0]]), np.array([0, 0]))
    measured = {metric.key: metric.measure(answers) for metric in CLASS_METRICS}
    assert measured["recall"][1] == measured["average_precision"][1] == UNKNOWN
    assert measured["precision"][1] == wilson(0, 1)
    assert (measured["f1"][1].value, measured["f1"][1].n) == (0, 1)
    assert all(column[2] == UNKNOWN for column in measured.values())


def test_keys_and_titles_are_told_apart() -> None:
    for table in (METRICS, CLASS_METRICS):
        assert len({metric.key for metric in table}) == len({metric.title for metric in table}) == len(table)
    assert all(len(metric.title) <= 8 for metric in METRICS if metric.in_table)
    by_key = {metric.key: metric for metric in METRICS}
    assert by_key["log_loss"].show(0.31234) == "0.312" and by_key["accuracy"].show(0.31234) == "31.2 %"
    assert (by_key["log_loss"].better, by_key["accuracy"].better) == ("lower", "higher")


@pytest.mark.parametrize(
    ("recalls", "sizes"),
    [([0.9, 0.7], [300, 100]), ([0.95] * 10, [10] * 10), ([0.99] * 10, [30] * 10), ([0.3, 0.99], [5, 500])],
)
def test_balanced_accuracys_interval_holds_the_truth_nearly_always(recalls: list[float], sizes: list[int]) -> None:
    rng, labels, held = np.random.default_rng(3), np.repeat(np.arange(len(sizes)), sizes), 0
    for _ in range(300):
        right = rng.random(len(labels)) < np.array(recalls)[labels]
        said = np.where(right, labels, (labels + 1) % len(sizes))
        interval = overall.balanced_accuracy(Answers(np.eye(len(sizes))[said], labels))
        held += interval.low <= np.mean(recalls) <= interval.high
    assert held >= 0.92 * 300


@pytest.mark.parametrize("skill", [0.5, 3.0])
@pytest.mark.parametrize("images", [20, 100])
def test_average_precisions_interval_holds_the_truth_nearly_always(images: int, skill: float) -> None:
    rng, labels = np.random.default_rng(4), np.repeat([0, 1], [images, 3 * images])

    def draw(true: np.ndarray) -> Interval:
        odds = 1 / (1 + np.exp(-rng.normal(size=len(true)) - skill * (true == 0)))
        return by_class.average_precision(Answers(np.stack([odds, 1 - odds], axis=1), true))[0]

    truth = draw(np.repeat([0, 1], [20_000, 60_000])).value
    intervals = [draw(labels) for _ in range(200)]
    assert sum(one.low <= truth <= one.high for one in intervals) >= 0.92 * 200


def test_f1s_interval_holds_the_truth_nearly_always() -> None:
    rng, held = np.random.default_rng(5), 0
    truth = 2 * 0.2 * 0.8 / (0.2 * 0.8 + 0.8 * 0.1 + 0.2)
    for _ in range(300):
        labels = (rng.random(150) >= 0.2).astype(int)  # a fifth is of class 0
        said = np.where(rng.random(150) < np.where(labels == 0, 0.8, 0.1), 0, 1)
        interval = by_class.f1(Answers(np.eye(2)[said], labels))[0]
        held += interval.low <= truth <= interval.high
    assert held >= 0.92 * 300


def test_log_losss_interval_holds_the_truth_nearly_always() -> None:
    rng, held = np.random.default_rng(6), 0
    truth = -(0.9 * np.log(0.8) + 0.1 * np.log(0.2))
    for _ in range(100):
        labels = (rng.random(200) >= 0.9).astype(int)
        interval = overall.log_loss(Answers(np.tile([0.8, 0.2], (200, 1)), labels))
        held += interval.low <= truth <= interval.high
    assert held >= 90


# Records: what is measured is in them by key, and those of before are read


def evaluated(answers: Answers) -> Evaluation:
    measured = evaluate_predictions(answers.probabilities, answers.labels, [""] * len(answers.labels), "abcdef")
    return Evaluation(
        data_version="d1",
        model="a" * 64,
        split="test",
        metrics=measured.metrics,
        classes=measured.classes,
        confusion=measured.confusion.tolist(),
        files=[],
    )


def test_records_and_metrics_json_hold_every_metric(tmp_path: Path) -> None:
    answers = Answers(*CASES["six classes"])
    record = evaluated(answers).write(tmp_path)
    assert read_record(tmp_path, Evaluation) == record
    assert record.metrics == {metric.key: metric.measure(answers) for metric in METRICS}
    assert [set(one.metrics) for one in record.classes] == [{metric.key for metric in CLASS_METRICS}] * 6
    measured = evaluate_predictions(answers.probabilities, answers.labels, [""] * 500, "abcdef")
    write_metrics(tmp_path / "metrics.json", measured)
    assert json.loads((tmp_path / "metrics.json").read_text()) == with_ends(record.metrics) | {"n": 500}


def test_a_record_of_schema_1_is_read_and_keeps_its_hash(tmp_path: Path) -> None:
    record = evaluated(Answers(*CASES["six classes"])).write(tmp_path)
    text = (as_before(tmp_path) / "record.json").read_text()
    read = read_record(tmp_path, Evaluation)
    assert (read.accuracy, read.macro_f1) == (record.accuracy, record.macro_f1)
    assert list(read.metrics) == ["accuracy", "macro_f1", "calibration_error"]
    assert read.classes == [
        ClassMetrics(name=one.name, metrics={key: one.metrics[key] for key in ("precision", "recall")})
        for one in record.classes
    ]
    assert read.confusion == record.confusion
    assert read.sha256 == sha256_bytes(json.dumps(json.loads(text), separators=(",", ":")).encode()) != record.sha256
    assert read.write(tmp_path / "copy").sha256 == read_record(tmp_path / "copy", Evaluation).sha256 == read.sha256


@pytest.mark.parametrize("missing", ["macro_f1", "classes", "kind of class"])
def test_a_record_of_schema_1_that_is_not_whole_is_refused(tmp_path: Path, missing: str) -> None:
    evaluated(Answers(*CASES["six classes"])).write(tmp_path)
    record = json.loads((as_before(tmp_path) / "record.json").read_text())
    if missing in record:
        del record[missing]
    else:
        record["classes"][0] = "a"
    (tmp_path / "record.json").write_text(json.dumps(record))
    with pytest.raises(GraftlineError, match="is not a Evaluation record of this version"):
        read_record(tmp_path, Evaluation)
