"""A user's changes to a plan, and what the loop makes of them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import a_plan

from graftline import augment, evaluate, export_onnx, fine_tune, select_strategy
from graftline.cli.find_lr import find_lr
from graftline.errors import GraftlineError
from graftline.records import TransferPlan
from graftline.runs.local import run
from graftline.training.mixing import Mix, draw_mix, mix_images
from graftline.training.sampling import balanced_weights, make_batches, view_seeds
from graftline.training.schedules import is_on_plateau, schedule_factor
from graftline.transfer.settings import change_plan


@pytest.fixture
def plan() -> TransferPlan:
    return a_plan(image_size=64, epochs=2, batch_size=8, learning_rate=1e-4, frozen_groups=3, warmup_steps=2)


def test_settings_replace_those_of_the_plan(plan: TransferPlan) -> None:
    changed = change_plan(
        plan,
        "dropout=0.2, mixup=0.4,balance=class_weights,schedule=one_cycle,group-rates=[1e-5;1e-4],from_scratch=true",
    )
    assert (changed.dropout, changed.mixup, changed.balance, changed.schedule) == (
        0.2,
        0.4,
        "class_weights",
        "one_cycle",
    )
    assert changed.group_rates == [1e-5, 1e-4] and changed.from_scratch
    assert change_plan(plan) == plan
    assert change_plan(plan, "epochs=5").epochs == change_plan(plan, epochs=5).epochs == 5


@pytest.mark.parametrize(
    "settings",
    [
        "dropout: 0.2, group_rates: [0, 0, 1e-5]",
        "{dropout: 0.2, group_rates: [0, 0, 1e-5]}",
        '{"dropout": 0.2, "group-rates": [0, 0, 1e-5]}',
        "dropout:0.2,group_rates:[0,0,1e-5],",
        "dropout=0.2,group_rates=[0;0;1e-5]",
        ",dropout = 0.2, group_rates: [0; 0; 1e-5]",
    ],
)
def test_settings_are_a_yaml_mapping_with_or_without_braces(plan: TransferPlan, settings: str) -> None:
    wanted = plan.model_copy(update={"dropout": 0.2, "group_rates": [0.0, 0.0, 1e-5]})
    assert change_plan(plan, settings) == wanted


def test_no_settings_change_nothing(plan: TransferPlan) -> None:
    assert change_plan(plan, " ") == change_plan(plan, "{}") == plan


def test_a_plan_of_before_keeps_its_text_and_a_change_is_all_that_differs(plan: TransferPlan) -> None:
    """Checkpoints are named by it: an interrupted training is found again, whatever settings have come since."""
    content = json.loads(plan.json_text)
    since = ("views", "mixup", "ema_decay")
    old = {name: content[name] for name in ("reasons", *reversed(content)) if name not in since}
    text = json.dumps(old, separators=(",", ":"))
    read = TransferPlan.model_validate_json(text)
    assert read.json_text == text != plan.json_text
    assert (read.views, read.mixup, read.ema_decay) == (1, 0, 0), "what came since is left out of it"
    assert change_plan(read).json_text == text
    assert change_plan(read, "learning_rate: 3e-4").json_text == text.replace("0.0001", "0.0003")
    assert json.loads(change_plan(read, "views=2").json_text) == {**old, "views": 2}


def test_random_weights_are_all_trained_unless_some_are_asked_to_stay(plan: TransferPlan) -> None:
    frozen = plan.model_copy(update={"frozen_groups": 3, "champion": "c"})
    changed = change_plan(frozen, "from_scratch=true")
    assert (changed.frozen_groups, changed.champion) == (0, "")
    assert change_plan(frozen, "from_scratch=true,frozen_groups=2").frozen_groups == 2
    extraction = plan.model_copy(update={"strategy": "feature_extraction", "epochs": 0})
    with pytest.raises(GraftlineError, match="from_scratch=true has nothing to extract features with"):
        change_plan(extraction, "from_scratch=true")


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_no_generator_takes_is_refused_by_every_step(seed: int, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    for call in (
        lambda: run("nowhere", seed=seed),
        lambda: augment(nowhere, nowhere, seed=seed),
        lambda: select_strategy(nowhere, nowhere, nowhere, seed=seed),
        lambda: fine_tune(nowhere, nowhere, nowhere, nowhere, seed=seed),
        lambda: find_lr(nowhere, nowhere, nowhere, nowhere, seed=seed),
        lambda: evaluate(nowhere, nowhere, nowhere, seed=seed),
        lambda: export_onnx(nowhere, nowhere, nowhere, seed=seed),
    ):
        with pytest.raises(GraftlineError, match=f"seed is {seed}: give a whole number from 0 to 4294967295"):
            call()
    with pytest.raises(GraftlineError, match="image_size is -1: give the side in pixels"):
        select_strategy(nowhere, nowhere, nowhere, image_size=-1)


def test_a_plateau_lowers_the_rate_and_then_waits_again() -> None:
    losses = [9.0, 5.0, 6.0, 6.0, 6.0, 6.0, 4.0, 4.5, 4.5]
    assert _lowered(losses, []) == [3, 5, 8]
    assert _lowered(losses, [5, 7]) == [3, 5], "each stage waits anew, whatever the ones before it have reached"
    assert _lowered([5.0, 9.0, 8.0, 7.0, 6.0], []) == [], "the start is no epoch"


def _lowered(losses: list[float], stages: list[int]) -> list[int]:
    """Returns the epochs after which the rate is lowered; a stage ends after each of `stages`."""
    lowered = [0]
    for epoch in range(1, len(losses)):
        history = [{"epoch": float(e), "validation_loss": loss} for e, loss in enumerate(losses[: epoch + 1])]
        if is_on_plateau(history, max((end for end in stages if end < epoch), default=0), lowered[-1]):
            lowered.append(epoch)
    return lowered[1:]


def test_epochs_and_stages_fit_each_other_and_the_strategy(plan: TransferPlan) -> None:
    gradual = plan.model_copy(update={"strategy": "progressive_unfreezing", "epochs": 4, "stage_epochs": [1, 1, 2]})
    assert change_plan(gradual, "stage_epochs=[2;3]").epochs == 5
    assert change_plan(gradual, epochs=9).stage_epochs == [2, 2, 5]
    assert [change_plan(gradual, epochs=few).stage_epochs for few in (3, 2, 1)] == [[1, 1, 1], [0, 1, 1], [0, 0, 1]]
    assert change_plan(gradual, "epochs=0").stage_epochs == [0, 0, 0]
    assert change_plan(plan, "epochs=0").stage_epochs == []
    assert change_plan(gradual, "stage_epochs=[2;3]", epochs=9).epochs == 5
    extraction = plan.model_copy(update={"strategy": "feature_extraction", "epochs": 0})
    assert change_plan(extraction, "epochs=3,stage_epochs=[1;2]") == extraction


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("dropuot=0.2", "did you mean dropout"),
        ("colour=red", "there are .*dropout"),
        ("dropout", "write dropout=VALUE"),
        ("dropout=1.5", "dropout=1.5 is not possible.*less than 1"),
        ("schedule=wavy", "schedule=wavy is not possible.*cosine"),
        ("mixup=much", "mixup=much is not possible"),
        ("backbone=resnet50", "no setting 'backbone'"),
        ("strategy=feature_extraction", "no setting 'strategy'"),
        ("epochs=five", "epochs=five is not possible.*integer"),
        ("dropuot: 0.2", "did you mean dropout"),
        ("{dropout: }", "dropout has no value"),
        ("dropout: {rate: 0.2}", "dropout has values within values: give one value"),
        ("group_rates: [[1e-5], [1e-4]]", "group_rates has values within values"),
        ("{dropout: 0.2", "cannot be read .*expected ',' or '}'.*: write name: value, name: value"),
        ("dropout: 0.2}", "cannot be read"),
        ("group_rates=[1;2", "cannot be read"),
        ("dropout=0.1 mixup=0.2", "cannot be read"),
        ("{{dropout: 0.2}}", "no setting 'a list or mapping'"),
        ("dropout: [0.2]", "dropout=.*is not possible"),
        ("group_rates: 1e-5", "group_rates=1e-5 is not possible.*list"),
        ("group_rates: [0, -1]", "group_rates=-1 is not possible.*greater than or equal to 0"),
        ("learning_rate: inf", "learning_rate=inf is not possible.*finite"),
        ("group_rates: [1], group-rates: [2]", "group_rates is given twice"),
        ("dropout: \x07", "cannot be read"),
    ],
)
def test_a_wrong_setting_is_one_clear_line(plan: TransferPlan, settings: str, message: str) -> None:
    with pytest.raises(GraftlineError, match=message) as error:
        change_plan(plan, settings)
    assert "\n" not in str(error.value)


def test_balanced_batches_show_rare_classes_as_often() -> None:
    labels = np.array([0] * 90 + [1] * 10)
    plain, balanced = (
        np.mean([labels[np.concatenate(make_batches(labels, 10, 0, epoch, wanted))].mean() for epoch in range(20)])
        for wanted in (False, True)
    )
    assert plain == pytest.approx(0.1)
    assert balanced == pytest.approx(0.5, abs=0.05)


def test_class_weights_are_inverse_to_frequency_and_one_on_average() -> None:
    labels = np.array([0] * 90 + [1] * 10)
    weights = balanced_weights(labels, 2)
    assert weights[1] / weights[0] == pytest.approx(9)
    assert weights[labels].mean() == pytest.approx(1)


def test_no_view_shares_its_seed_with_another() -> None:
    seeds = [
        seed
        for run in (0, 1)
        for epoch in range(3)
        for batch in range(4)
        for seed in view_seeds(run, epoch, batch, range(5), 5)
    ]
    assert len(set(seeds)) == len(seeds)


def test_mixed_images_hold_the_share_they_say() -> None:
    black, white = torch.zeros(2, 3, 20, 20), torch.ones(2, 3, 20, 20)
    mixed, share = mix_images(black, white, Mix(0.7))
    assert share == 0.7 and torch.allclose(mixed, torch.full_like(mixed, 0.3))
    cut, share = mix_images(black, white, Mix(1.0, (0.0, 0.5, 0.5, 1.0)))
    assert share == 0.75 and cut.mean().item() == pytest.approx(0.25)
    assert cut[:, :, :10, 10:].min() == 1 and black.max() == 0


def test_both_ways_of_mixing_are_drawn_and_none_when_none_is_wanted() -> None:
    assert draw_mix(0.0, 0.0, 0) is None
    draws = [draw_mix(0.2, 1.0, seed) for seed in range(30)]
    assert {draw is not None and draw.box is None for draw in draws} == {True, False}
    assert draw_mix(0.2, 1.0, 3) == draws[3]


def test_one_cycle_rises_and_falls() -> None:
    course = [schedule_factor("one_cycle", step, 100, 0) for step in range(100)]
    top = int(np.argmax(course))
    assert 25 <= top <= 35 and course[top] == pytest.approx(1.0, abs=0.01)
    assert course[:top] == sorted(course[:top]) and course[top:] == sorted(course[top:], reverse=True)
    assert course[0] < 0.1 and course[-1] < 0.05
