"""Rules, evidence and plans."""

from pathlib import Path
from typing import Literal

import pytest

from graftline import select_strategy
from graftline.errors import GraftlineError
from graftline.records import AugmentationPolicy, Interval, ProbeEvidence, TransferPlans, read_record
from graftline.transfer.evidence import BackboneEvidence
from graftline.transfer.plans import candidate_ranks, rank_plans
from graftline.transfer.rules import rank_strategies
from graftline.transfer.settings import change_plan
from graftline.transfer.strategies import make_stages


@pytest.mark.parametrize(
    ("images", "differs", "probe", "expected"),
    [
        (500, False, 0.8, "feature_extraction"),
        (500, True, 0.8, "feature_extraction"),
        (5_000, False, 0.8, "fine_tuning"),
        (5_000, True, 0.8, "progressive_unfreezing"),
        (50_000, True, 0.8, "fine_tuning"),
        (5_000, False, 0.99, "feature_extraction"),
    ],
)
def test_rules_follow_size_domain_and_evidence(images: int, differs: bool, probe: float, expected: str) -> None:
    ranked = rank_strategies(images, differs, probe)
    assert ranked[0].strategy == expected
    assert len({choice.strategy for choice in ranked}) == 3
    assert [choice.strategy for choice in ranked if choice.bold] == ["fine_tuning"]
    assert all(choice.reason for choice in ranked)


def _evidence(name: str, accuracy: float, parameters: int, gain: float = -0.02) -> BackboneEvidence:
    interval = Interval(value=accuracy, low=accuracy - 0.02, high=accuracy + 0.02, n=1500)
    probe = ProbeEvidence(accuracy=interval, macro_f1=accuracy, folds=5, regularisation=0.01)
    return BackboneEvidence(name, probe, parameters, Interval(value=gain, low=gain - 0.01, high=gain + 0.01, n=1500))


def test_the_better_backbone_goes_first_and_the_smaller_of_equals() -> None:
    better = [_evidence("tf_efficientnet_lite0", 0.80, 4), _evidence("tf_efficientnet_lite2", 0.90, 6)]
    equal = [_evidence("tf_efficientnet_lite2", 0.805, 6), _evidence("tf_efficientnet_lite0", 0.80, 4)]
    assert rank_plans(better, 1500)[0].backbone == "tf_efficientnet_lite2"
    plans = rank_plans(equal, 1500)
    assert plans[0].backbone == "tf_efficientnet_lite0"
    assert [plan.backbone for plan in plans].count("tf_efficientnet_lite0") == 4
    assert plans[-1].backbone == "tf_efficientnet_lite2"


def test_middle_layers_that_beat_the_last_ask_for_progressive_unfreezing() -> None:
    plan = rank_plans([_evidence("tf_efficientnet_lite0", 0.8, 4, gain=0.05)], 1500)[0]
    assert plan.strategy == "progressive_unfreezing"
    assert sum(plan.stage_epochs) == plan.epochs
    assert any("differs from the backbone's domain" in reason for reason in plan.reasons)


def test_the_bold_plan_trains_all_layers_at_a_higher_rate() -> None:
    plans = [p for p in rank_plans([_evidence("tf_efficientnet_lite0", 0.8, 4)], 1500) if p.strategy == "fine_tuning"]
    usual, bold = plans
    assert bold.learning_rate > usual.learning_rate
    assert (bold.frozen_groups, usual.frozen_groups) == (0, 3)
    assert any(f"{bold.learning_rate:g}" in reason for reason in bold.reasons)


@pytest.mark.parametrize(
    ("images", "probe", "wanted", "asked", "expected"),
    [
        (500, 0.8, "auto", 0, ["feature_extraction", "fine_tuning"]),
        (500, 1.0, "auto", 0, ["feature_extraction"]),
        (500, 0.8, "feature_extraction", 0, ["feature_extraction"]),
        (5_000, 0.8, "auto", 0, ["fine_tuning"]),
        (500, 0.8, "auto", 1, ["feature_extraction"]),
        (500, 0.8, "auto", 3, ["feature_extraction", "fine_tuning", "fine_tuning"]),
    ],
)
def test_a_baseline_that_leaves_something_to_gain_is_not_trained_alone(
    images: int, probe: float, wanted: Literal["auto", "feature_extraction"], asked: int, expected: list[str]
) -> None:
    plans = rank_plans([_evidence("tf_efficientnet_lite0", probe, 4)], images, wanted)
    ranks = candidate_ranks(plans, asked, wanted)
    assert [plans[rank - 1].strategy for rank in ranks] == expected


def test_stages_unfreeze_from_the_head_down() -> None:
    plan = rank_plans([_evidence("tf_efficientnet_lite0", 0.8, 4)], 1500, "progressive_unfreezing")[0]
    deep = plan.model_copy(update={"frozen_groups": 50})
    assert {stage.frozen_groups for stage in make_stages(deep, 9)} == {8}, "the head trains"
    frozen = [stage.frozen_groups for stage in make_stages(plan, 9)]
    assert frozen[0] == 7  # all but the last block and the head
    assert frozen == sorted(frozen, reverse=True)
    assert frozen[-1] == 0


@pytest.mark.parametrize(("images", "epochs"), [(100, 24), (500, 20), (1600, 6), (50_000, 6)])
def test_few_images_get_more_epochs_not_fewer_steps(images: int, epochs: int) -> None:
    for plan in rank_plans([_evidence("tf_efficientnet_lite0", 0.8, 4)], images):
        assert plan.epochs == (0 if plan.strategy == "feature_extraction" else epochs)
        assert plan.warmup_steps <= plan.epochs * images // plan.batch_size / 6
        assert sum(plan.stage_epochs) in (0, plan.epochs)


def test_other_numbers_of_epochs_are_spread_over_the_stages() -> None:
    plan = rank_plans([_evidence("tf_efficientnet_lite0", 0.8, 4)], 1500, "progressive_unfreezing")[0]
    changed = change_plan(plan, epochs=8)
    assert sum(changed.stage_epochs) == 8
    assert changed.batch_size == plan.batch_size


def test_plans_carry_evidence_measured_on_this_data(plans: Path) -> None:
    record = read_record(plans, TransferPlans)
    assert record.plans[0].strategy == "feature_extraction"
    assert record.plans[0].evidence is not None
    assert record.plans[0].evidence.accuracy.n == 60  # 80 images, a quarter of them test
    assert "60 images are under 1,000" in record.plans[0].reasons[0]


def test_what_the_user_asks_for_goes_first(solar_dataset: Path, policy: Path, tmp_path: Path) -> None:
    names = {"backbones": "tf_efficientnet_lite0", "image_size": 96}
    record = select_strategy(solar_dataset, policy, tmp_path / "out", strategy="fine_tuning", **names)  # type: ignore[arg-type]
    assert record.plans[0].strategy == "fine_tuning"
    assert record.plans[0].reasons[0] == "asked for"


def test_unknown_backbone_is_one_clear_line(solar_dataset: Path, policy: Path, tmp_path: Path) -> None:
    with pytest.raises(GraftlineError, match=r"no backbone is called 'resnet5O'"):
        select_strategy(solar_dataset, policy, tmp_path / "out", backbones="resnet5O")
    assert not (tmp_path / "out").exists()


def test_policy_of_other_data_is_refused(solar_dataset: Path, policy: Path, tmp_path: Path) -> None:
    other = read_record(policy, AugmentationPolicy).model_copy(update={"data_version": "d0"})
    (tmp_path / "policy").mkdir()
    other.write(tmp_path / "policy")
    with pytest.raises(GraftlineError, match="chosen for other data"):
        select_strategy(solar_dataset, tmp_path / "policy", tmp_path / "out")
