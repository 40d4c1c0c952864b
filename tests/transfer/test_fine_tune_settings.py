"""Settings of a plan through the public door, on real images and weights."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders import write_plans
from safetensors.torch import load_file

from graftline import fine_tune
from graftline.cli.find_lr import find_lr
from graftline.errors import GraftlineError
from graftline.models.freezing import Freezer
from graftline.models.trained import WEIGHTS_FILE, load_trained
from graftline.records import TrainedModel
from graftline.training.device import Machine

pytestmark = pytest.mark.slow


@pytest.fixture
def inputs(solar_dataset: Path, policy: Path, plans: Path, tmp_path: Path) -> tuple[Path, Path, Path]:
    """Dataset, policy, and two plans: an epoch of many steps on small images, and feature extraction on them."""
    plan = {"image_size": 64, "epochs": 1, "batch_size": 4, "warmup_steps": 0, "frozen_groups": 4}
    fine_tuning, extraction = {"strategy": "fine_tuning"}, {"strategy": "feature_extraction", "epochs": 0}
    return solar_dataset, policy, write_plans(plans, tmp_path / "plans", plan | fine_tuning, plan | extraction)


@pytest.fixture
def pretrained(inputs: tuple[Path, Path, Path], tmp_path: Path) -> dict[str, torch.Tensor]:
    """The weights before any step."""
    fine_tune(*inputs, tmp_path / "start", rank=2, checkpoints=str(tmp_path / "c"))
    return load_file(tmp_path / "start" / WEIGHTS_FILE)


def _train(inputs: tuple[Path, Path, Path], out: Path, settings: str, **options: object) -> TrainedModel:
    return fine_tune(*inputs, out, settings=settings, checkpoints=str(out) + "-saved", **options)  # type: ignore[arg-type]


def _distance(folder: Path, start: dict[str, torch.Tensor], only: str = "blocks.6") -> float:
    weights = load_file(folder / WEIGHTS_FILE)
    moved = [(weights[n] - start[n]).square().sum() for n in start if n.startswith(only) and "running" not in n]
    return float(sum(moved))


def test_a_rate_that_is_too_high_is_halved_from_the_last_good_state(
    inputs: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    record = _train(inputs, tmp_path / "out", "epochs=2", learning_rate=1e-2)
    assert [event.kind for event in record.events].count("rate_lowered") >= 1
    assert all(tensor.isfinite().all() for tensor in load_file(tmp_path / "out" / WEIGHTS_FILE).values())
    rates = {row["learning_rate"] for row in json.loads((tmp_path / "out" / "history.json").read_text())[1:]}
    assert max(rates) <= 5e-3


def test_epochs_of_few_steps_go_back_to_what_was_sound_too(inputs: tuple[Path, Path, Path], tmp_path: Path) -> None:
    record = _train(inputs, tmp_path / "out", "epochs=4,batch_size=16,schedule=constant", learning_rate=1e-3)
    alarms = [event.message for event in record.events if event.kind == "rate_lowered"]
    assert alarms and "back to the end of epoch 0" in alarms[0]
    rows = json.loads((tmp_path / "out" / "history.json").read_text())
    assert [row["epoch"] for row in rows] == [0, 1, 2, 3, 4]
    assert rows[1]["train_loss"] < 1.2 * 1.1 * np.log(2), "an epoch that was ruined has not stayed"


def test_a_rate_beyond_saving_ends_with_one_line_and_no_model(inputs: tuple[Path, Path, Path], tmp_path: Path) -> None:
    with pytest.raises(GraftlineError, match=r"even at .* of the learning rate"):
        _train(inputs, tmp_path / "out", "epochs=2,schedule=constant", learning_rate=1e6)
    assert not (tmp_path / "out").exists()


def test_the_pull_of_l2_sp_keeps_weights_near_the_pretrained_ones(
    inputs: tuple[Path, Path, Path], pretrained: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    free, held = (
        _distance(_out(inputs, tmp_path, f"l2_sp={pull},ema_decay=0,epochs=2"), pretrained) for pull in (0, 10)
    )
    assert 0 < held < free


def _out(inputs: tuple[Path, Path, Path], folder: Path, settings: str) -> Path:
    out = folder / settings.replace("=", "-").replace(",", "_")
    _train(inputs, out, settings)
    return out


def test_explicit_group_rates_move_only_their_groups(
    inputs: tuple[Path, Path, Path], pretrained: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    rates = ";".join(["0"] * 7 + ["1e-4", "0"])
    out = _out(inputs, tmp_path, f"group_rates=[{rates}],frozen_groups=0,ema_decay=0,weight_decay=0")
    assert _distance(out, pretrained, "blocks.6") > 0
    for still in ("conv_stem", "blocks.0", "blocks.5", "classifier"):
        assert _distance(out, pretrained, still) == pytest.approx(0, abs=1e-9), still
    with pytest.raises(GraftlineError, match="group_rates has 2 rates, tf_efficientnet_lite0 has 9 groups"):
        _train(inputs, tmp_path / "wrong", "group_rates=[1e-4;1e-4]")


def test_a_batch_is_not_cut_into_more_parts_than_it_has_images(inputs: tuple[Path, Path, Path], tmp_path: Path) -> None:
    with pytest.raises(GraftlineError, match="a batch of 4 images cannot be cut into 5 parts"):
        _train(inputs, tmp_path / "out", "accumulation=5")


def test_what_is_frozen_is_remembered_where_it_will_be_compared(
    inputs: tuple[Path, Path, Path],
    pretrained: dict[str, torch.Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a GPU the comparison of tensors on two devices is an error; here only the order can be seen."""
    placed: list[torch.nn.Module] = []
    place = Machine.place

    class Watching(Freezer):
        def __init__(self, model: torch.nn.Module, *arguments: Any, **options: Any) -> None:
            assert model in placed, "features are cached, so nothing else has moved the model"
            super().__init__(model, *arguments, **options)

    def watched(machine: Machine, model: torch.nn.Module) -> None:
        placed.append(model)
        place(machine, model)

    monkeypatch.setattr(Machine, "place", watched)
    monkeypatch.setattr("graftline.transfer.strategies.Freezer", Watching)
    _train(inputs, tmp_path / "out", "", rank=2)
    assert placed


def test_from_scratch_starts_from_random_weights_and_learns_its_statistics(
    inputs: tuple[Path, Path, Path], pretrained: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    record = _train(inputs, tmp_path / "out", "from_scratch=true,ema_decay=0")
    weights = load_file(tmp_path / "out" / WEIGHTS_FILE)
    assert record.pretrained.startswith("random")
    assert not torch.allclose(weights["conv_stem.weight"], pretrained["conv_stem.weight"], atol=0.05)
    statistics = [name for name in weights if name.endswith(("running_mean", "running_var"))]
    assert len(statistics) > 50
    for name in statistics:
        fresh = torch.full_like(weights[name], float(name.endswith("running_var")))
        assert not torch.equal(weights[name], fresh), name
        assert not torch.allclose(weights[name], pretrained[name]), name


def test_more_views_give_another_head_on_the_same_backbone(
    inputs: tuple[Path, Path, Path], pretrained: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    _train(inputs, tmp_path / "out", "views=3", rank=2)
    weights = load_file(tmp_path / "out" / WEIGHTS_FILE)
    changed = {name for name in weights if not torch.equal(weights[name], pretrained[name])}
    assert changed == {"classifier.weight", "classifier.bias"}


def test_each_regularisation_changes_what_is_learned(inputs: tuple[Path, Path, Path], tmp_path: Path) -> None:
    """From random weights, as any epoch is better than those: what is kept is what has been trained."""

    def learn(number: int, setting: str = "") -> dict[str, torch.Tensor]:
        out = tmp_path / str(number)
        record = _train(inputs, out, f"from_scratch=true,ema_decay=0{setting and ','}{setting}", batch_size=16)
        assert record.kept_epoch == 1
        _, model = load_trained(out)
        with torch.inference_mode():
            assert model(torch.randn(2, 3, 64, 64)).isfinite().all()
        return load_file(out / WEIGHTS_FILE)

    def same(weights: dict[str, torch.Tensor]) -> bool:
        return all(torch.equal(weights[name], plain[name]) for name in plain)

    plain = learn(0)
    assert same(learn(1)), "without any, two trainings are the same"
    settings = ("dropout=0.5", "drop_path=0.2", "mixup=0.4", "cutmix=1", "balance=sampling")
    assert [setting for number, setting in enumerate(settings, 2) if same(learn(number, setting))] == []


def test_patience_ends_a_training_that_no_longer_gets_better(inputs: tuple[Path, Path, Path], tmp_path: Path) -> None:
    fast = "epochs=6,schedule=constant,ema_decay=0"  # at this rate some epoch is worse than the ones before it
    for patience, ends in ((0, False), (1, True)):
        out = tmp_path / str(patience)
        record = _train(inputs, out, f"{fast},patience={patience}", learning_rate=3e-4)
        assert ("stopped_early" in [event.kind for event in record.events]) == ends
        rows = json.loads((out / "history.json").read_text())
        assert (len(rows) < 7) == ends


def test_show_times_says_where_the_time_went(
    inputs: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _train(inputs, tmp_path / "out", "", show_times=True)
    said = capsys.readouterr().err
    assert all(word in said for word in ("augment", "forward", "backward", "optimizer", "GFLOP/s"))


def test_the_range_test_suggests_a_rate_below_the_one_that_ruins(
    inputs: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    find_lr(*inputs, tmp_path / "rates")
    text = find_lr(*inputs, tmp_path / "rates")
    assert {path.name for path in (tmp_path / "rates").iterdir()} == {"range_test.csv", "range_test.png"}
    rates, _ = np.loadtxt(tmp_path / "rates" / "range_test.csv", delimiter=",", skiprows=1).T
    assert (np.diff(rates) > 0).all() and len(rates) > 20
    suggestion = float(text.split("--learning_rate ")[1].split()[0])
    assert rates[0] / 10 <= suggestion < rates[-1]
    assert (tmp_path / "rates" / "range_test.png").stat().st_size > 1000
    with pytest.raises(GraftlineError, match="no rate to find"):
        find_lr(*inputs, tmp_path / "none", rank=2)
