"""Training that starts from the champion's weights: its answers at first, its head for the same classes, no leaks."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from kfp import dsl
from safetensors.torch import load_file
from torch import Tensor

from graftline import fine_tune, select_strategy
from graftline.components.fetch_champion import fetch_champion
from graftline.components.select_strategy import select_strategy as select_strategy_component
from graftline.data.dataset import load_images
from graftline.errors import GraftlineError
from graftline.export.lineage import describe_lineage
from graftline.models.predict import predict
from graftline.models.trained import WEIGHTS_FILE, load_trained, save_weights
from graftline.records import DataVersion, TrainedModel, TransferPlans, read_record
from graftline.training.checkpoints import Checkpoints
from graftline.transfer.settings import change_plan

pytestmark = pytest.mark.slow
Change = Callable[[dict[str, Tensor]], None]
HEAD = "classifier"


@pytest.fixture
def champion(trained_model: Path, tmp_path: Path) -> Path:
    """A champion whose backbone is not the pretrained one, and whose head is not the solved one."""

    def stir(weights: dict[str, Tensor]) -> None:
        noise = torch.Generator().manual_seed(0)
        for name in ("conv_head.weight", "blocks.6.0.conv_pwl.weight"):
            weights[name] *= 1 + 0.02 * torch.randn(weights[name].shape, generator=noise)
        weights[f"{HEAD}.weight"] *= 0.9

    return altered(trained_model, tmp_path / "champion", stir)


def altered(model: Path, out: Path, change: Change, **record: object) -> Path:
    """Writes a model that another one becomes by changing its tensors in place, and fields of its record."""
    old, net = load_trained(model)
    weights = net.state_dict()
    with torch.no_grad():
        change(weights)
    out.mkdir()
    entry = save_weights_of(weights, net, out)
    old.model_copy(update={"weights": entry, **record}).write(out)
    return out


def save_weights_of(weights: dict[str, Tensor], net: torch.nn.Module, out: Path) -> object:
    head = net.get_submodule(HEAD)
    assert isinstance(head, torch.nn.Linear)
    if len(weights[f"{HEAD}.bias"]) != head.out_features:
        setattr(net, HEAD, torch.nn.Linear(head.in_features, len(weights[f"{HEAD}.bias"])))
    net.load_state_dict(weights)
    return save_weights(out, net)


def rank_with(champion: Path, dataset: Path, policy: Path, out: Path, **options: object) -> TransferPlans:
    names = {"backbones": "tf_efficientnet_lite0", "strategy": "feature_extraction", "image_size": 96}
    return select_strategy(dataset, policy, out, champion=champion, **{**names, **options})  # type: ignore[arg-type]


def carry_out_last(champion: Path, dataset: Path, policy: Path, place: Path) -> TrainedModel:
    """Carries out the last of the plans, the one from the champion."""
    rank = len(read_record(place / "plans", TransferPlans).plans)
    return fine_tune(dataset, policy, place / "plans", place / "out", rank=rank, champion=champion)


def answers(model: Path, dataset: Path) -> np.ndarray:
    record, net = load_trained(model)
    images = load_images(dataset, "validation", record.image_size, record.interpolation)
    return predict(net, images, record.mean, record.std)


def untouched(weights: dict[str, Tensor]) -> None:
    """Changes nothing."""


def test_a_plan_from_the_champion_is_trained_besides_the_best_one(
    champion: Path, solar_dataset: Path, policy: Path, tmp_path: Path
) -> None:
    record = rank_with(champion, solar_dataset, policy, tmp_path / "plans")
    plan, trained = record.plans[-1], read_record(champion, TrainedModel)
    assert not any(one.champion for one in record.plans[:-1])
    assert plan.champion == trained.sha256
    assert record.candidates == [1, len(record.plans)]
    assert (plan.backbone, plan.image_size, plan.evidence) == (trained.plan.backbone, 96, None)
    assert plan.reasons[0] == (
        f"from the weights of the champion, model {plan.champion[:16]}, trained on {trained.data_version}"
    )
    assert "the classes are the champion's: its head stays, unless" in plan.reasons[1]
    free = rank_with(champion, solar_dataset, policy, tmp_path / "free", strategy="auto", image_size=0)
    assert (free.plans[-1].strategy, free.plans[-1].frozen_groups, free.plans[-1].image_size) == ("fine_tuning", 3, 96)


def test_it_starts_with_the_champions_answers(
    champion: Path, solar_dataset: Path, policy: Path, tmp_path: Path
) -> None:
    plans = rank_with(champion, solar_dataset, policy, tmp_path / "plans")
    record = carry_out_last(champion, solar_dataset, policy, tmp_path)
    old = read_record(champion, TrainedModel)
    assert (record.kept_epoch, record.plan) == (0, plans.plans[-1])
    assert record.learned_before == [old.data_version]
    assert record.pretrained != old.pretrained, "the backbone it started from is the champion's"
    weights, before = load_file(tmp_path / "out" / WEIGHTS_FILE), load_file(champion / WEIGHTS_FILE)
    assert all(torch.equal(weights[name], tensor) for name, tensor in before.items())
    assert np.array_equal(answers(tmp_path / "out", solar_dataset), answers(champion, solar_dataset))
    lineage = describe_lineage(read_record(solar_dataset, DataVersion), record)["pretrained_weights"]
    assert (lineage["champion_model"], lineage["champion_learned_from"]) == (old.sha256, [old.data_version])
    assert lineage["sha256"] == record.pretrained


def test_classes_in_another_order_keep_their_answers(
    champion: Path, solar_dataset: Path, policy: Path, tmp_path: Path
) -> None:
    def turn(weights: dict[str, Tensor]) -> None:
        for part in ("weight", "bias"):
            weights[f"{HEAD}.{part}"].copy_(weights[f"{HEAD}.{part}"].flip(0))

    names = read_record(solar_dataset, DataVersion).classes
    turned = altered(champion, tmp_path / "turned", turn, classes=names[::-1])
    rank_with(turned, solar_dataset, policy, tmp_path / "plans")
    record = carry_out_last(turned, solar_dataset, policy, tmp_path)
    assert record.classes == names
    assert np.array_equal(answers(tmp_path / "out", solar_dataset), answers(champion, solar_dataset))
    assert np.array_equal(answers(turned, solar_dataset)[:, ::-1], answers(champion, solar_dataset))


def test_with_other_classes_only_the_backbone_is_taken(
    champion: Path, solar_dataset: Path, policy: Path, tmp_path: Path
) -> None:
    def widen(weights: dict[str, Tensor]) -> None:
        for part in ("weight", "bias"):
            rows = weights[f"{HEAD}.{part}"]
            weights[f"{HEAD}.{part}"] = torch.cat([rows, rows[:1]])

    names = read_record(solar_dataset, DataVersion).classes
    wider = altered(champion, tmp_path / "wider", widen, classes=[*names, "soiled"])
    plans = rank_with(wider, solar_dataset, policy, tmp_path / "plans")
    assert plans.plans[-1].reasons[1].startswith("the champion knows other classes (")
    carry_out_last(wider, solar_dataset, policy, tmp_path)
    weights, before = load_file(tmp_path / "out" / WEIGHTS_FILE), load_file(champion / WEIGHTS_FILE)
    moved = [name for name, tensor in before.items() if not torch.equal(weights[name], tensor)]
    assert moved == [f"{HEAD}.bias", f"{HEAD}.weight"]
    assert len(weights[f"{HEAD}.bias"]) == 2


def test_a_head_that_is_clearly_worse_than_a_solved_one_goes(
    champion: Path, solar_dataset: Path, policy: Path, tmp_path: Path
) -> None:
    def spoil(weights: dict[str, Tensor]) -> None:
        weights[f"{HEAD}.weight"] *= -5

    spoilt = altered(champion, tmp_path / "spoilt", spoil)
    rank_with(spoilt, solar_dataset, policy, tmp_path / "plans")
    record = carry_out_last(spoilt, solar_dataset, policy, tmp_path)
    assert record.validation_accuracy.value > 0.6
    assert (answers(spoilt, solar_dataset).argmax(1) != answers(tmp_path / "out", solar_dataset).argmax(1)).mean() > 0.5


def test_weights_that_are_not_those_of_the_plan_are_refused(
    champion: Path, trained_model: Path, solar_dataset: Path, policy: Path, tmp_path: Path
) -> None:
    rank = len(rank_with(champion, solar_dataset, policy, tmp_path / "plans").plans)
    inputs = (solar_dataset, policy, tmp_path / "plans", tmp_path / "out")
    with pytest.raises(GraftlineError, match=r"starts from the model \w{16}, but --champion is not given"):
        fine_tune(*inputs, rank=rank)
    with pytest.raises(GraftlineError, match=r"starts from the model \w{16}, but --champion holds \w{16}"):
        fine_tune(*inputs, rank=rank, champion=trained_model)
    with pytest.raises(GraftlineError, match="a plan has no setting 'champion'"):
        fine_tune(*inputs, rank=rank, champion=champion, settings="champion=x")
    weights = champion / WEIGHTS_FILE
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    for call in (
        lambda: fine_tune(*inputs, rank=rank, champion=champion),
        lambda: rank_with(champion, solar_dataset, policy, tmp_path / "again"),
    ):
        with pytest.raises(GraftlineError, match=r"model\.safetensors is missing or is not the file that its record"):
            call()
    with pytest.raises(GraftlineError, match="is not an output of `graftline fine_tune`"):
        rank_with(tmp_path / "nowhere", solar_dataset, policy, tmp_path / "again")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"data_version": "d1", "learned_before": ["d0"]}, "--previous d1,d0"),
        ({"mean": (0.1, 0.1, 0.1)}, "it wants its images otherwise than the weights of tf_efficientnet_lite0 do"),
        ({"plan": "tf_efficientnet_lite1"}, "its backbone tf_efficientnet_lite1 is not among tf_efficientnet_lite0"),
    ],
)
def test_weights_that_cannot_be_used_here_are_said_to_be_left_out(
    record: dict[str, object],
    reason: str,
    champion: Path,
    solar_dataset: Path,
    policy: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if backbone := record.pop("plan", ""):
        plan = read_record(champion, TrainedModel).plan
        record["plan"] = plan.model_copy(update={"backbone": backbone})
    other = altered(champion, tmp_path / "other", untouched, **record)
    plans = rank_with(other, solar_dataset, policy, tmp_path / "plans")
    assert plans.candidates == [1]
    assert not any(plan.champion for plan in plans.plans)
    said = capsys.readouterr()
    assert "training cannot start from the champion's weights: " in said.err + said.out
    assert reason in said.err + said.out


def test_an_empty_artifact_means_that_there_are_no_weights(solar_dataset: Path, policy: Path, tmp_path: Path) -> None:
    keys = {"code_version": "c", "inputs_version": ""}
    champion = dsl.Model(uri=str(tmp_path / "champion"))
    assert fetch_champion.python_func(champion, version="", **keys) == ""
    assert list((tmp_path / "champion").iterdir()) == []
    inputs = dsl.Dataset(uri=str(solar_dataset)), dsl.Artifact(uri=str(policy)), dsl.Artifact(uri=str(tmp_path / "out"))
    options = {"backbones": "tf_efficientnet_lite0", "image_size": 96, "data_version": "", **keys}
    (only,) = select_strategy_component.python_func(*inputs, champion, candidates=1, **options)
    assert only["rank"] == 1


def test_whoever_means_random_weights_gets_them(champion: Path, solar_dataset: Path, policy: Path) -> None:
    rank_with(champion, solar_dataset, policy, champion.parent / "plans")
    plan = read_record(champion.parent / "plans", TransferPlans).plans[-1]
    assert plan.champion
    assert change_plan(plan, "dropout=0.1").champion == plan.champion
    tuned = plan.model_copy(update={"strategy": "fine_tuning"})
    assert change_plan(tuned, "from_scratch=true").champion == ""


def test_training_goes_on_from_the_champion_and_resumes_exactly(
    champion: Path, solar_dataset: Path, policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans = rank_with(champion, solar_dataset, policy, tmp_path / "plans", strategy="fine_tuning")
    settings = "frozen_groups=4,warmup_steps=0,dropout=0.1,image_size=64,ema_decay=0"
    inputs = (solar_dataset, policy, tmp_path / "plans")
    how = {"rank": len(plans.plans), "champion": champion, "epochs": 2, "batch_size": 16, "settings": settings}

    def train(name: str, **other: object) -> TrainedModel:
        return fine_tune(*inputs, tmp_path / name, checkpoints=str(tmp_path / "saved"), **{**how, **other})  # type: ignore[arg-type]

    whole = train("whole")
    save = Checkpoints.save

    def save_and_stop(self: Checkpoints, state: dict[str, object], epoch: int, step: int = 0) -> None:
        save(self, state, epoch, step)
        if epoch == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Checkpoints, "save", save_and_stop)
        train("stopped")
    (newest,) = (tmp_path / "saved").rglob("epoch-0001-*.pt")
    weights, before = torch.load(newest, weights_only=True)["model"], load_file(champion / WEIGHTS_FILE)
    assert torch.equal(weights["conv_stem.weight"], before["conv_stem.weight"]), "the first groups stay frozen"
    assert not torch.equal(weights["conv_head.weight"], before["conv_head.weight"])
    assert train("stopped") == whole
    assert len(json.loads((tmp_path / "whole" / "history.json").read_text())) == 3
    assert whole.learned_before == [read_record(champion, TrainedModel).data_version]
