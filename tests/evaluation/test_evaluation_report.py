"""The report and the figures, from synthetic predictions: nothing from outside, legible, hostile names tame."""

import dataclasses
import functools
import io
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from builders import a_plan
from PIL import Image

from graftline.evaluation import figures
from graftline.evaluation.cautions import calibration_in_words, list_cautions
from graftline.evaluation.choice import choose_among
from graftline.evaluation.measurements import Measurements, evaluate_predictions
from graftline.evaluation.metrics import CLASS_METRICS, METRICS
from graftline.evaluation.mistakes import confident_mistakes, show_mistakes
from graftline.evaluation.outputs import Predictions
from graftline.evaluation.report import Report, frequent_confusions, render_report
from graftline.intervals import wilson
from graftline.records import DataVersion, FileEntry, TrainedModel


def data_of(classes: list[str], labels: np.ndarray) -> DataVersion:
    counts = dict(zip(classes, np.bincount(labels, minlength=len(classes)).tolist(), strict=True))
    return DataVersion(
        version="d0123456789abcdef",
        classes=classes,
        domains=[],
        counts={"train": counts, "validation": counts, "test": counts},
        images=3 * len(labels),
        median_width=300,
        median_height=200,
        grey=False,
        shards=[],
    )


def model_of(classes: list[str], validation: tuple[int, int] = (80, 100), **changes: Any) -> TrainedModel:
    plan = a_plan(
        **{
            "strategy": "progressive_unfreezing",
            "learning_rate": 0.001,
            "layer_decay": 0.8,
            "frozen_groups": 2,
            "warmup_steps": 20,
            "weight_decay": 0.01,
            "label_smoothing": 0.05,
            "stage_epochs": [2, 4],
            "reasons": ["medium size, and the domain differs"],
            **changes,
        }
    )
    return TrainedModel(
        data_version="d0123456789abcdef",
        policy="a" * 64,
        plan=plan,
        pretrained="b" * 64,
        classes=classes,
        image_size=224,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        interpolation="bicubic",
        parameters=3_400_000,
        seed=0,
        kept_epoch=5,
        validation_accuracy=wilson(*validation),
        weights=FileEntry(file="model.safetensors", sha256="c" * 64, bytes=1),
    )


def predictions(k: int, n: int, skill: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(k), rng.integers(0, k, n - k)])
    logits = rng.normal(size=(n, k))
    logits[np.arange(n), labels] += skill
    odds = np.exp(logits)
    return (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32), labels


def report_of(classes: list[str], n: int = 120, skill: float = 1.5, curves: bytes | None = None) -> Report:
    probabilities, labels = predictions(len(classes), n, skill)
    measured = evaluate_predictions(probabilities, labels, [""] * n, classes)
    names = [(f"{i:064x}", f"{i + 1000:064x}") for i in range(n)]
    images = (np.full((20, 40, 3), i, dtype=np.uint8) for i in range(n))
    chosen = confident_mistakes(probabilities, labels)
    model = model_of(classes)
    return Report(
        measured=measured,
        data=data_of(classes, labels),
        model=model,
        split="test",
        cautions=list_cautions(measured, model, "test"),
        mistakes=show_mistakes(chosen, probabilities, labels, classes, names, images),
        confusion=figures.draw_confusion(measured.confusion, classes),
        reliability=figures.draw_reliability(measured.reliability, measured.metrics["calibration_error"], len(classes)),
        curves=curves,
    )


class Page(HTMLParser):
    """Collects what a browser would load and what a screen reader would read."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.links, self.tags, self.texts, self.images = [], [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.tags.append(tag)
        self.links += [given[name] for name in ("src", "href", "srcset", "action") if name in given]
        if tag == "img":
            self.images.append(given)

    def handle_data(self, data):
        self.texts.append(data)


def test_report_is_self_contained_and_accessible():
    report = report_of(["cat", "dog", "fox"], curves=b"\x89PNG")
    html = render_report(report)
    page = Page(html)
    assert all(link.startswith("data:image/") for link in page.links)
    assert not re.search(r"https?://|url\(|@import", html)
    assert "script" not in page.tags and "link" not in page.tags
    assert all(image["alt"] for image in page.images)
    assert len(page.images) == len(report.mistakes) + 3
    assert page.tags.count("th") > 10 and "caption" in page.tags


def test_report_names_the_candidates_and_why_one_was_chosen():
    classes, ids = ["cat", "dog"], [str(i) for i in range(60)]
    probabilities, labels = predictions(2, 60, 2.0)
    answers = [Predictions(ids, labels, probabilities), Predictions(ids, labels, probabilities[:, ::-1])]
    models = [model_of(classes), model_of(classes).model_copy(update={"seed": 1})]
    choice = choose_among(models, answers)
    html = render_report(dataclasses.replace(report_of(classes), choice=choice))
    assert "Chosen of 2 candidates" in html
    assert choice.reason in html
    worse = choice.candidates[1].difference
    assert f"{100 * worse.value:+.1f} points, 95\u202f% interval {100 * worse.low:+.1f}" in html
    assert html.count(" px, chosen") == 1
    assert "candidates" not in render_report(report_of(classes)), "there was nothing to choose"


def test_report_tells_what_was_measured():
    report = report_of(["cat", "dog", "fox"])
    text = " ".join(Page(render_report(report)).texts)
    accuracy = report.measured.accuracy
    assert f"{np.trace(report.measured.confusion)} of 120 test images right" in text
    assert f"{100 * accuracy.low:.1f}\u202f% to {100 * accuracy.high:.1f}\u202f%" in text
    for metric in METRICS:
        shown = metric.title[0].upper() + metric.title[1:] in text
        assert shown == (metric.key in report.measured.metrics), metric.key
    for metric in CLASS_METRICS:
        one = report.measured.classes[0].metrics[metric.key]
        assert f"{100 * one.low:.1f}\u202f% to {100 * one.high:.1f}\u202f%, n = {one.n}" in text, metric.key
    for told in ("tf_efficientnet_lite0", "progressive unfreezing", "medium size, and the domain differs"):
        assert told in text
    for digest in (report.model.sha256, report.data.sha256, report.data.version, "a" * 64, "b" * 64, "c" * 64):
        assert digest in text
    assert report.mistakes[0].id[:12] in text and report.mistakes[0].file_sha256[:12] in text


@functools.cache
def one_report() -> Report:
    return report_of(["cat", "dog", "fox"])


def settings_in(**changes: Any) -> dict[str, str]:
    """Returns the report's table of settings, name to value."""
    html = render_report(dataclasses.replace(one_report(), model=model_of(["cat", "dog", "fox"], **changes)))
    return dict(re.findall(r"<code>(\w+)</code></th><td>(.*?)</td>", html))


def test_report_names_every_setting_in_force_and_no_other():
    basic = {"image_size", "epochs", "batch_size", "learning_rate", "layer_decay", "schedule"}
    given = {"frozen_groups", "warmup_steps", "weight_decay", "label_smoothing", "stage_epochs"}
    plain = settings_in()
    assert set(plain) == basic | given
    assert (plain["learning_rate"], plain["stage_epochs"], plain["schedule"]) == ("0.001", "[2, 4]", "cosine")
    more = {"dropout": 0.2, "mixup": 0.4, "cutmix": 1, "l2_sp": 0.01, "ema_decay": 0.97, "balance": "class_weights"}
    told = {"dropout": "0.2", "mixup": "0.4", "cutmix": "1", "l2_sp": "0.01", "ema_decay": "0.97"}
    assert settings_in(**more) == plain | told | {"balance": "class_weights"}


def test_report_leaves_out_settings_that_others_put_out_of_force():
    rates = settings_in(group_rates=[0, 1e-5])
    assert rates["group_rates"] == "[0, 1e-05]" and not {"learning_rate", "layer_decay"} & set(rates)
    scratch = settings_in(from_scratch=True, views=3, schedule="one_cycle")
    assert scratch["from_scratch"] == "true" and not {"views", "warmup_steps"} & set(scratch)
    assert "stage_epochs" not in settings_in(strategy="fine_tuning")
    solved = settings_in(strategy="feature_extraction", epochs=0, stage_epochs=[], dropout=0.2, views=3)
    assert solved == {"image_size": "224", "views": "3"}


def test_report_says_of_one_rate_only_that_it_is_the_last_blocks():
    text = " ".join(Page(render_report(one_report())).texts)
    assert "at the head" not in text
    assert "Peak rate of the last layers before the head" in text and "the head is solved beforehand" in text


def test_hostile_class_names_stay_text():
    names = ["<script>alert(1)</script>", "$x^{", '"><img src=x>', "猫"]
    html = render_report(report_of(names))
    page = Page(html)
    assert "script" not in page.tags
    assert all(link.startswith("data:image/") for link in page.links)
    assert "猫" in html


def test_a_perfect_model_has_no_mistakes_to_show():
    report = report_of(["cat", "dog"], skill=50)
    assert report.mistakes == []
    assert "every test image was classified rightly" in render_report(report)


def test_mistakes_come_with_their_own_picture():
    report = report_of(["cat", "dog", "fox"])
    for mistake in report.mistakes:
        assert mistake.picture.size == (40, 20)
        assert mistake.picture.getpixel((0, 0))[0] == int(mistake.id, 16)
    sheet = Image.open(io.BytesIO(figures.draw_mistakes(report.mistakes)))
    assert sheet.width > sheet.height > 300


def test_large_pictures_are_made_small():
    image = np.zeros((1000, 2000, 3), dtype=np.uint8)
    one = np.array([0])
    (mistake,) = show_mistakes(one, np.array([[0.9, 0.1]]), np.array([1]), ["a", "b"], [("i", "f")], iter([image]))
    assert mistake.picture.size == (320, 160)


@pytest.mark.parametrize("k", [2, 25, 110])
def test_figures_have_room_for_all_classes(k):
    probabilities, labels = predictions(k, 20 * k, 3)
    classes = [f"species {i}" for i in range(k)]
    measured = evaluate_predictions(probabilities, labels, [""] * len(labels), classes)
    confusion = Image.open(io.BytesIO(figures.draw_confusion(measured.confusion, classes)))
    bars = Image.open(io.BytesIO(figures.draw_per_class(measured.classes)))
    assert min(confusion.size) >= min(1600, 12 * k)
    assert bars.height >= 25 * min(k, 100)


def test_names_for_figures():
    assert figures.shown_name("défaut", 0) == "défaut"
    assert figures.shown_name("猫", 3) == "class #3"
    assert len(figures.shown_name("x" * 60, 0)) == 24


def test_frequent_confusions():
    confusion = np.array([[5, 3, 0], [1, 7, 0], [4, 0, 0]])
    assert frequent_confusions(confusion, ["a", "b", "c"]) == [
        ("c", "a", 4, 1.0),
        ("a", "b", 3, 3 / 8),
        ("b", "a", 1, 1 / 8),
    ]


def measured_of(labels: list[int], answers: list[int], sure: float = 0.9, domains: list[str] | None = None):
    probabilities = np.full((len(labels), 2), 1 - sure)
    probabilities[np.arange(len(labels)), answers] = sure
    names = domains or [""] * len(labels)
    return evaluate_predictions(probabilities, np.array(labels), names, ["cat", "dog"])


def cautions_of(measured: Measurements, split: str = "test", validation: tuple[int, int] = (80, 100)) -> str:
    return "\n".join(list_cautions(measured, model_of(["cat", "dog"], validation), split))


def test_a_good_large_test_needs_no_caution():
    labels = [0, 1] * 200
    assert cautions_of(measured_of(labels, [1, 0] * 20 + labels[40:]), validation=(90, 100)) == ""


def test_cautions_name_what_is_thin():
    told = cautions_of(measured_of([0] * 30 + [1] * 5, [0] * 35))
    assert "only 35 images" in told
    assert "never answers “dog”" in told
    assert "Fewer than 20 images of “dog”" in told
    assert "Always answering “cat” would be right on 85.7 %" in told


def test_a_class_without_images_is_named():
    assert "No image of “dog” is in this split" in cautions_of(measured_of([0] * 200, [0] * 190 + [1] * 10))


def test_gap_between_validation_and_test():
    labels = [0, 1] * 200
    measured = measured_of(labels, [1, 0] * 60 + labels[120:])
    assert "70.0 % on test images, more than chance" in cautions_of(measured, validation=(190, 200))
    assert "more than chance" not in cautions_of(measured, validation=(8, 10))
    assert "flatter" in cautions_of(measured, split="validation", validation=(190, 200))


def test_a_weak_domain_is_named():
    labels = [0, 1] * 200
    measured = measured_of(labels, [1, 0] * 50 + labels[100:], domains=["poly"] * 200 + ["mono"] * 200)
    assert "“poly” (50.0 %, n=200) is lower than on “mono” (100.0 %, n=200)" in cautions_of(measured)


def test_the_extremes_of_many_equal_domains_are_not_called_different():
    random = np.random.default_rng(0)
    alarms = 0
    for _ in range(40):
        labels = random.integers(0, 2, 400).tolist()
        answers = [label if random.random() < 0.8 else 1 - label for label in labels]
        measured = measured_of(labels, answers, domains=[f"site {i % 20}" for i in range(400)])
        alarms += "is lower than on" in cautions_of(measured)
    assert alarms <= 6


def test_images_that_come_in_groups_are_known_to_say_less():
    labels = [0, 1] * 200
    wrong_scenes = [1 - label for label in labels[:80]] + labels[80:]
    by_scene = evaluate_predictions(
        np.eye(2)[wrong_scenes] * 0.8 + 0.1,
        np.array(labels),
        [""] * 400,
        ["cat", "dog"],
        groups=[i // 20 for i in range(400)],
    )
    assert "The 400 images come in 20 groups" in cautions_of(by_scene)
    assert "come in" not in cautions_of(measured_of(labels, wrong_scenes))


def test_calibration_in_words():
    labels = [0, 1] * 200
    eighty = [1, 0] * 40 + labels[80:]
    assert "cannot be told from" in calibration_in_words(measured_of(labels, eighty, sure=0.8))
    assert "too sure of itself" in calibration_in_words(measured_of(labels, eighty, sure=0.99))
    assert "more cautious" in calibration_in_words(measured_of(labels, eighty, sure=0.6))
