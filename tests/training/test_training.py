"""The loop and its parts: schedules, probe, depthwise gradients, checkpoints, resuming."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from builders import write_plans

from graftline import fine_tune
from graftline.errors import GraftlineError
from graftline.models.trained import load_trained
from graftline.records import AugmentationPolicy, TrainedModel, read_record
from graftline.storage.store import Store
from graftline.training import loop
from graftline.training.checkpoints import Checkpoints, run_name
from graftline.training.depthwise import speed_up_depthwise
from graftline.training.probe import choose_strength, cross_validate, solve_head
from graftline.training.schedules import FINAL_SHARE, schedule_factor


def test_cosine_warms_up_and_ends_low() -> None:
    course = [schedule_factor("cosine", step, 100, 10) for step in range(100)]
    assert course[:10] == sorted(course[:10])
    assert max(course) == pytest.approx(1.0)
    assert course[-1] == pytest.approx(FINAL_SHARE, abs=0.01)


def test_warm_restarts_come_back_to_the_peak() -> None:
    course = [schedule_factor("warm_restarts", step, 70, 0) for step in range(70)]
    peaks = [step for step, factor in enumerate(course) if factor == pytest.approx(1.0)]
    assert peaks == [0, 10, 30]


@pytest.mark.parametrize("steps", range(71, 77))
def test_warm_restarts_end_low_however_many_steps_there_are(steps: int) -> None:
    course = [schedule_factor("warm_restarts", step, steps, 0) for step in range(steps)]
    assert sum(factor == pytest.approx(1.0, abs=0.03) for factor in course[40:]) == 0
    assert course[-1] < 0.02


def test_the_rise_of_one_cycle_is_its_warm_up() -> None:
    course = [schedule_factor("one_cycle", step, 100, 25) for step in range(100)]
    assert course == [schedule_factor("one_cycle", step, 100, 0) for step in range(100)]
    assert np.argmax(course) == 30


def _features(n: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    labels = np.arange(n) % 3
    return random.normal(size=(n, 20)) + 3 * np.eye(20)[labels] + 5, labels


def test_solved_head_separates_what_can_be_separated() -> None:
    features, labels = _features(300)
    weight, bias = solve_head(features, labels, 0.1)
    assert ((features @ weight.T + bias).argmax(1) == labels).mean() > 0.9
    result = cross_validate(features, labels, range(300))
    assert (result.predictions == labels).mean() > 0.85
    shuffled = np.random.default_rng(1).permutation(labels)
    assert (cross_validate(features, shuffled, range(300)).predictions == shuffled).mean() < 0.5


def test_cross_validation_does_not_recognise_groups() -> None:
    """Thirty patients, ten images of each: what tells the patients apart says nothing about the class."""
    random = np.random.default_rng(0)
    patients = np.repeat(np.arange(30), 10)
    features = 5 * random.normal(size=(30, 40))[patients] + random.normal(size=(300, 40))
    labels = (np.arange(30) % 2)[patients]
    assert (cross_validate(features, labels, range(300)).predictions == labels).mean() > 0.95
    assert (cross_validate(features, labels, patients).predictions == labels).mean() < 0.75
    assert cross_validate(features, labels, labels).folds == 5, "one group in each class: it cannot be held out"


def test_a_balanced_head_finds_the_rare_class() -> None:
    random = np.random.default_rng(0)
    labels = (np.arange(1000) % 20 == 0).astype(np.int64)
    features = random.normal(size=(1000, 5)) + labels[:, None]

    def recall(balanced: bool) -> float:
        weight, bias = solve_head(features, labels, 0.1, balanced)
        return float((features @ weight.T + bias).argmax(1)[labels == 1].mean())

    assert recall(False) < 0.6 < 0.75 < recall(True)


def test_a_class_with_a_single_image_leaves_nothing_to_cross_validate() -> None:
    features, labels = _features(31)
    assert choose_strength(features, labels, range(31)) == cross_validate(features, labels, range(31)).regularisation
    labels[labels == 2] = 1
    labels[0] = 2
    assert choose_strength(features, labels, range(31)) == 1e-2


def test_a_feature_that_is_silent_in_training_gets_no_huge_weight() -> None:
    features, labels = _features(300)
    silent = 1e-6 * (labels == 1)[:, None]
    weight, _ = solve_head(np.hstack([features, silent]), labels, 0.1)
    assert np.abs(weight[:, -1]).max() <= np.abs(weight[:, :-1]).max()


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "mobilenetv2_100"])
def test_fast_depthwise_has_the_gradients_of_the_ordinary_one(name: str) -> None:
    torch.manual_seed(0)
    ordinary = timm.create_model(name, num_classes=2).eval()
    fast = timm.create_model(name, num_classes=2).eval()
    fast.load_state_dict(ordinary.state_dict())
    speed_up_depthwise(fast)
    assert fast.state_dict().keys() == ordinary.state_dict().keys()
    images = torch.randn(4, 3, 64, 64)
    gradients = []
    for model in (ordinary, fast):
        with torch.autocast("cpu", torch.bfloat16):
            model(images).float().square().sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert torch.nn.functional.cosine_similarity(*gradients, dim=0) > 0.999


def test_damaged_checkpoint_falls_back_to_the_one_before(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for epoch in (1, 2, 3):
        checkpoints.save({"epoch": epoch, "weights": torch.full((100,), float(epoch))}, epoch)
    newest = tmp_path / "epoch-0003-000000.pt"
    newest.write_bytes(newest.read_bytes()[:200])
    state = checkpoints.latest()
    assert state is not None and state["epoch"] == 2
    assert len(list(tmp_path.iterdir())) == 2
    newest.write_bytes(np.random.default_rng(0).bytes(5_000))
    state = checkpoints.latest()
    assert state is not None and state["epoch"] == 2


def test_a_full_disk_is_one_line_and_leaves_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save({"epoch": 1}, 1)

    def fills_the_disk(state: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")

    monkeypatch.setattr(torch, "save", fills_the_disk)
    with pytest.raises(GraftlineError, match=r"cannot be written to .* GB free.*run the same again"):
        checkpoints.save({"epoch": 2}, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["epoch-0001-000000.pt"]


def test_checkpoints_of_another_version_are_another_run(monkeypatch: pytest.MonkeyPatch) -> None:
    name = run_name(["data", "plan"])
    assert name == run_name(["data", "plan"]) != run_name(["data", "other plan"])
    monkeypatch.setattr("graftline.training.checkpoints.version", lambda tool: f"{tool} of tomorrow")
    assert name != run_name(["data", "plan"])


def test_steps_that_were_taken_back_leave_no_checkpoint(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for epoch, step in [(0, 0), (1, 0), (1, 8), (1, 16)]:
        checkpoints.save({"at": [epoch, step]}, epoch, step)
    assert checkpoints.latest() == {"at": [1, 16]}
    assert checkpoints.latest_whole() == {"at": [1, 0]}
    assert checkpoints.latest_whole(before_last=True) == {"at": [0, 0]}
    checkpoints.save({"at": [1, 0], "again": True}, 1)
    assert checkpoints.latest() == {"at": [1, 0], "again": True}


def test_another_machine_goes_on_from_the_store_and_knows_the_ends_of_epochs(tmp_path: Path) -> None:
    store = Store.parse(str(tmp_path / "store"))
    first = Checkpoints(tmp_path / "one" / "run", store)
    for epoch, step in [(0, 0), (1, 0), (2, 0), (2, 8), (2, 16), (2, 24)]:
        first.save({"at": [epoch, step]}, epoch, step)
    second = Checkpoints(tmp_path / "two" / "run", store)
    assert second.latest() == {"at": [2, 24]}
    assert second.latest_whole() == {"at": [2, 0]}
    assert second.latest_whole(before_last=True) == {"at": [1, 0]}
    assert len(list(store.keys("checkpoints/run"))) == 4
    second.clear()
    assert not list(store.keys("checkpoints/run"))


def _with_plan(plans: Path, out: Path, **changes: object) -> Path:
    small = {"image_size": 64, "epochs": 2, "batch_size": 16, "warmup_steps": 2}
    return write_plans(plans, out, small | changes)


@pytest.mark.slow
def test_a_long_epoch_is_saved_now_and_then_and_resumed_between_steps(
    solar_dataset: Path, policy: Path, plans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = _with_plan(plans, tmp_path / "plans", strategy="fine_tuning", frozen_groups=4)

    def train(name: str) -> TrainedModel:
        return fine_tune(solar_dataset, policy, changed, tmp_path / name, checkpoints=str(tmp_path / f"{name}-saved"))

    whole = train("whole")
    monkeypatch.setattr(loop, "_SAVE_EVERY_SECONDS", 0.0)
    save = Checkpoints.save

    def save_and_stop(self: Checkpoints, state: dict[str, object], epoch: int, step: int = 0) -> None:
        save(self, state, epoch, step)
        if (epoch, step) == (1, 1):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Checkpoints, "save", save_and_stop)
        train("stopped")
    shutil.copytree(tmp_path / "stopped-saved", tmp_path / "foreign-saved")
    assert train("stopped") == whole
    for path in (tmp_path / "foreign-saved").rglob("*.pt"):
        state = torch.load(path, weights_only=True)
        state["progress"]["origin"] = "other weights"
        state["progress"]["epoch"] = 2  # were it gone on with, nothing would be trained
        torch.save(state, path)
    assert train("foreign") == whole


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"strategy": "fine_tuning", "frozen_groups": 4},
        {"strategy": "progressive_unfreezing", "stage_epochs": [1, 1]},
    ],
    ids=lambda changes: str(changes["strategy"]),
)
def test_interrupted_training_ends_with_the_same_weights(
    changes: dict[str, object],
    solar_dataset: Path,
    policy: Path,
    plans: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    changed = _with_plan(plans, tmp_path / "plans", **changes)

    def train(name: str) -> TrainedModel:
        return fine_tune(solar_dataset, policy, changed, tmp_path / name, checkpoints=str(tmp_path / f"{name}-saved"))

    whole = train("whole")
    save = Checkpoints.save

    def save_and_stop(self: Checkpoints, state: dict[str, object], epoch: int, step: int = 0) -> None:
        save(self, state, epoch, step)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop.Checkpoints, "save", save_and_stop)
        train("stopped")
    assert not (tmp_path / "stopped").exists()
    resumed = train("stopped")
    assert resumed == whole
    assert not list((tmp_path / "stopped-saved").rglob("*.pt"))


@pytest.mark.slow
def test_fine_tuning_writes_a_model_with_history_and_curves(
    solar_dataset: Path, policy: Path, plans: Path, tmp_path: Path
) -> None:
    changed = _with_plan(plans, tmp_path / "plans", strategy="fine_tuning", frozen_groups=2)
    record = fine_tune(solar_dataset, policy, changed, tmp_path / "out", epochs=1, learning_rate=1e-4)
    assert (tmp_path / "out" / "curves.png").stat().st_size > 1000
    assert record.plan.epochs == 1 and record.plan.learning_rate == 1e-4
    loaded, model = load_trained(tmp_path / "out")
    assert loaded == record
    assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 2)


@pytest.mark.slow
def test_feature_extraction_repeats_and_changes_only_the_head(
    trained_model: Path, solar_dataset: Path, policy: Path, plans: Path, tmp_path: Path
) -> None:
    from graftline.models.backbones import build_backbone

    again = fine_tune(solar_dataset, policy, plans, tmp_path / "again")
    record, model = load_trained(trained_model)
    assert again == record
    pretrained, _ = build_backbone("tf_efficientnet_lite0", 2)
    pairs = zip(pretrained.state_dict().items(), model.state_dict().values(), strict=True)
    changed = {name.split(".")[0] for (name, before), after in pairs if not torch.equal(before, after)}
    assert changed == {"classifier"}


def test_wrong_rank_names_the_choices(solar_dataset: Path, policy: Path, plans: Path, tmp_path: Path) -> None:
    with pytest.raises(GraftlineError, match="rank 9 does not exist"):
        fine_tune(solar_dataset, policy, plans, tmp_path / "out", rank=9)


def test_plans_of_another_policy_are_refused(solar_dataset: Path, policy: Path, plans: Path, tmp_path: Path) -> None:
    other = read_record(policy, AugmentationPolicy).model_copy(update={"brightness": 0.9})
    (tmp_path / "policy").mkdir()
    other.write(tmp_path / "policy")
    with pytest.raises(GraftlineError, match="another policy"):
        fine_tune(solar_dataset, tmp_path / "policy", plans, tmp_path / "out")


def test_folder_with_other_files_survives(trained_model: Path, solar_dataset: Path, policy: Path, plans: Path) -> None:
    foreign = trained_model.parent / "foreign"
    shutil.rmtree(foreign, ignore_errors=True)
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("mine")
    with pytest.raises(GraftlineError, match="did not write"):
        fine_tune(solar_dataset, policy, plans, foreign)
    assert (foreign / "thesis.txt").read_text() == "mine"
