"""The guards of the loop."""

import numpy as np
import pytest

from graftline.training.guards import LossWatch, RateTooHigh, watch_classes, watch_overfitting, watch_validation_size


def test_a_loss_that_falls_or_trembles_raises_no_alarm() -> None:
    watch = LossWatch(3)
    random = np.random.default_rng(0)
    for step in range(400):
        watch.add(1.0 - step / 800 + random.normal(0, 0.1))
    assert watch.state()["lowest"] == pytest.approx(0.5, abs=0.15)


@pytest.mark.parametrize("then", [[1.5] * 16, [float("nan")], [float("inf")]])
def test_a_loss_that_rises_or_is_no_number_raises_the_alarm(then: list[float]) -> None:
    watch = LossWatch(3)
    for _ in range(16):
        watch.add(1.0)
    with pytest.raises(RateTooHigh):
        for loss in then:
            watch.add(loss)


def test_random_weights_are_no_alarm_as_long_as_they_do_not_get_worse() -> None:
    watch = LossWatch(2)
    for _ in range(16):
        watch.add(2.5)
    watch = LossWatch(2, **watch.state())
    with pytest.raises(RateTooHigh, match=r"from 2\.500 to 4\.000"):
        for _ in range(8):
            watch.add(4.0)


def test_the_watch_goes_on_where_it_was() -> None:
    whole, first = LossWatch(3), LossWatch(3)
    losses = [1.0] * 8 + [1.2] * 3
    for loss in losses:
        whole.add(loss)
        first.add(loss)
    second = LossWatch(3, **first.state())
    for watch in (whole, second):
        with pytest.raises(RateTooHigh, match=r"from 1\.000 to"):
            for _ in range(5):
                watch.add(3.0)


def test_the_end_of_an_epoch_is_judged_however_few_its_steps_are() -> None:
    watch = LossWatch(3)
    for loss in [0.5] * 12:
        watch.add(loss)
    assert not watch.doubts_start
    watch.end_epoch(0.5)
    for loss in [3.0] * 4:
        watch.add(loss)
    assert watch.doubts_start, "it may be the end of the epoch before that ruined the weights"
    with pytest.raises(RateTooHigh, match=r"from 0\.500 to 3\.000"):
        watch.end_epoch(0.5)
    with pytest.raises(RateTooHigh, match="to nan"):
        LossWatch(3).end_epoch(float("nan"))


def _row(epoch: int, train: float, validation: float) -> dict[str, float]:
    return {"epoch": epoch, "train_loss": train, "validation_loss": validation}


def test_overfitting_is_seen_when_only_the_training_loss_falls() -> None:
    start = {"epoch": 0, "validation_loss": 0.6}
    good = [start, *(_row(e, 0.6 - 0.05 * e, 0.6 - 0.04 * e) for e in range(1, 7))]
    bad = [start, *(_row(e, 0.6 - 0.05 * e, 0.5 + 0.04 * e) for e in range(1, 7))]
    assert not watch_overfitting(good)
    (event,) = watch_overfitting(bad)
    assert event.kind == "overfitting" and event.epoch == 6


def test_a_class_that_is_never_predicted_is_named() -> None:
    labels, classes = np.array([0, 1, 2, 2]), ["break", "crack", "fray"]
    assert not watch_classes(1, labels, labels, classes)
    (event,) = watch_classes(1, np.array([0, 1, 1, 1]), labels, classes)
    assert "never predicted on validation: fray;" in event.message


def test_few_validation_images_are_said() -> None:
    assert not watch_validation_size(500)
    (event,) = watch_validation_size(30)
    assert "30 validation images" in event.message
