"""What an earlier version wrote stays of use: its records keep their hashes, its champion and its training go on.

`tests/before` holds what the version at commit 6af7b11 wrote, and `make.py`, which says how. It was the last one before
records hashed their JSON as it stood.
"""

import csv
import json
import sqlite3
import tarfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import torch
from PIL import Image

from graftline import (
    augment,
    choose_model,
    detect_change,
    evaluate,
    export_onnx,
    fetch_champion,
    fine_tune,
    records,
    register_model,
    select_strategy,
    version_data,
)
from graftline.cli.commands import history, rollback
from graftline.records import (
    CHOICE_FILE,
    AugmentationPolicy,
    DataVersion,
    EdgeBundle,
    Evaluation,
    Record,
    Registration,
    TrainedModel,
    TransferPlans,
    read_choice,
    read_record,
)

BEFORE = Path(__file__).parents[1] / "before"
TOLD = json.loads((BEFORE / "hashes.json").read_text())
HASHES = {path: told["sha256"] for path, told in TOLD["records"].items()}
MODEL = HASHES["model/record.json"]
ALIKE = TOLD["alike"]
BACKBONE = "test_efficientnet"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """All that the earlier version wrote, with its workspace, its store and its weights in use."""
    with tarfile.open(BEFORE / "champion.tar.xz") as archive:
        archive.extractall(tmp_path)
    _move_registry(tmp_path / "workspace" / "mlflow.db", tmp_path)
    for name in ("WEIGHTS", "WORKSPACE", "STORE"):
        monkeypatch.setenv(f"GRAFTLINE_{name}", str(tmp_path / name.lower()))
    # With other libraries a training begins anew, whichever version of ours began it.
    monkeypatch.setattr("graftline.training.checkpoints.version", TOLD["versions"].__getitem__)
    return tmp_path


def _move_registry(database: Path, home: Path) -> None:
    """Lets MLflow know that its files lie here now: it keeps their addresses as they were."""
    with closing(sqlite3.connect(database)) as registry:
        for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri")):
            registry.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (TOLD["place"], str(home)))
        registry.commit()


@pytest.fixture
def work(home: Path) -> Path:
    """The outputs of its steps."""
    return home / "work"


@pytest.fixture
def elsewhere(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A workspace and a store in which nothing is yet."""
    for name in ("WORKSPACE", "STORE"):
        monkeypatch.setenv(f"GRAFTLINE_{name}", str(home / "new" / name.lower()))


def read(work: Path, path: str) -> Record:
    kind: type[Record] = getattr(records, TOLD["records"][path]["kind"])
    return read_record((work / path).parent, kind, Path(path).name)


# Its records


def test_records_keep_their_hashes(work: Path) -> None:
    assert {path: read(work, path).sha256 for path in HASHES} == HASHES
    written = {
        path.relative_to(work).as_posix() for path in work.rglob("*.json") if path.name in ("record.json", CHOICE_FILE)
    }
    assert written == set(HASHES), "none is without its hash"


def test_a_copy_of_a_record_keeps_its_hash_and_a_changed_one_does_not(work: Path, tmp_path: Path) -> None:
    for path, known in HASHES.items():
        record = read(work, path)
        record.write(tmp_path / "copies" / Path(path).parent, Path(path).name)
        assert read(tmp_path / "copies", path).sha256 == record.sha256 == known
    other = read_record(work / "plans", TransferPlans).model_copy(update={"candidates": [2]})
    assert other.sha256 != HASHES["plans/record.json"]


def test_the_chain_from_registration_to_data_holds(work: Path) -> None:
    registration = read_record(work / "registration", Registration)
    bundle = read_record(work / "bundle", EdgeBundle)
    evaluation = read_record(work / "evaluation", Evaluation)
    model = read_record(work / "model", TrainedModel)
    policy = read_record(work / "policy", AugmentationPolicy)
    plans = read_record(work / "plans", TransferPlans)
    data = read_record(work / "dataset", DataVersion)
    assert registration.bundle == bundle.sha256
    assert bundle.model == evaluation.model == model.sha256
    assert model.policy == plans.policy == policy.sha256
    assert model.plan == plans.plans[0]
    assert model.data_version == plans.data_version == policy.data_version == data.version
    choice = read_choice(work / "model")
    assert choice and choice.chosen == model.sha256
    trained = [read_record(work / f"trained-{rank}", TrainedModel).sha256 for rank in plans.candidates]
    assert [candidate.model for candidate in choice.candidates] == trained


def test_its_figures_are_read_by_their_keys(work: Path) -> None:
    written = json.loads((work / "evaluation" / "record.json").read_text())
    evaluation = read_record(work / "evaluation", Evaluation)
    assert written["schema_version"] == 1
    for key in ("accuracy", "macro_f1", "calibration_error"):
        assert evaluation.metrics[key].model_dump() == written[key]
    for key in ("precision", "recall"):
        of_class = [one.metrics[key].model_dump() for one in evaluation.classes]
        assert of_class == [one[key] for one in written["classes"]]
    domains = {name: accuracy.model_dump() for name, accuracy in evaluation.accuracy_by_domain.items()}
    assert domains == written["accuracy_by_domain"]
    assert set(domains) == {"dark", "light"}


# What its commands and steps made is gone on with


def test_its_bundle_answers_and_tells_its_lineage(
    home: Path, work: Path, call: Callable[..., tuple[int, str, str]]
) -> None:
    picture = home / "pictures" / "bar-dark-0.png"
    code, out, _ = call("predict", work / "bundle", picture)
    assert code == 0
    assert out.startswith(f"image,class,bar,frame,square\n{picture},")
    for place in (work / "bundle", work / "bundle" / "model.int8.onnx"):
        code, out, _ = call("lineage", place)
        assert code == 0
        assert json.loads(out)["model"]["sha256"] == MODEL
        assert json.loads(out)["data"]["sha256"] == HASHES["dataset/record.json"]


@pytest.mark.slow
def test_it_is_measured_as_before(work: Path, tmp_path: Path) -> None:
    before = read_record(work / "evaluation", Evaluation)
    now = evaluate(work / "dataset", work / "model", tmp_path / "evaluation")
    assert (now.model, now.confusion) == (before.model, before.confusion)
    for key, interval in before.metrics.items():
        assert now.metrics[key].value == pytest.approx(interval.value, abs=1e-5), key
    report = (tmp_path / "evaluation" / "report.html").read_text()
    assert "fine tuning" in report, "it tells among which models this one was chosen"


def test_its_candidates_are_chosen_among_as_before(work: Path, tmp_path: Path) -> None:
    choice = choose_model([work / "trained-1", work / "trained-2"], tmp_path / "chosen")
    before = read_choice(work / "model")
    assert before
    assert choice.chosen == before.chosen
    for now, then in zip(choice.candidates, before.candidates, strict=True):
        assert (now.model, now.difference) == (then.model, then.difference)


@pytest.mark.slow
@pytest.mark.usefixtures("elsewhere")
def test_it_is_registered_once(work: Path, tmp_path: Path) -> None:
    inputs = [work / name for name in ("dataset", "bundle", "evaluation")]
    first = register_model(*inputs, tmp_path / "first", model=work / "model", name="before")
    again = register_model(*inputs, tmp_path / "again", model=work / "model", name="before")
    assert (first.alias, first.bundle) == ("champion", HASHES["bundle/record.json"])
    assert again == first
    assert first == read_record(work / "registration", Registration), "as the earlier version registered it"


def test_a_training_has_the_name_under_which_it_left_its_checkpoints(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NamedError(Exception):
        pass

    def stop(*inputs: object) -> None:
        raise NamedError

    monkeypatch.setattr("graftline.transfer.strategies.carry_out", stop)
    inputs = [work / name for name in ("dataset", "policy", "plans")]
    named = {}
    for training in TOLD["trainings"]:
        saved = tmp_path / training["name"]
        with pytest.raises(NamedError):
            fine_tune(*inputs, tmp_path / "out", checkpoints=str(saved), **training["options"], **ALIKE)
        (named[training["name"]],) = (folder.name for folder in saved.iterdir())
    assert list(named.values()) == list(named)
    assert len(named) == len(TOLD["trainings"]) > 5


@pytest.mark.slow
def test_its_interrupted_training_goes_on(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (checkpoint,) = (work / "checkpoints").glob("*/*.pt")
    begun = torch.load(checkpoint, weights_only=True)["progress"]["history"]
    inputs = [work / name for name in ("dataset", "policy", "plans", "unfinished")]
    trained = fine_tune(*inputs, checkpoints=str(work / "checkpoints"), **TOLD["interrupted"], **ALIKE)
    said = capsys.readouterr().err
    assert "resuming after epoch 1, step 0" in said
    assert "epoch 1 of 3" not in said
    assert "epoch 2 of 3: validation accuracy" in said
    rows = json.loads((work / "unfinished" / "history.json").read_text())
    assert len(rows) == 4
    assert rows[:2] == begun, "to the second that the first epoch took"
    assert not checkpoint.exists(), "the finished training leaves no checkpoint, so it was this one"
    assert (trained.plan.dropout, trained.plan.patience, trained.seed) == (0.1, 2, 1)


# Its registry


@pytest.mark.slow
def test_its_registry_knows_its_champion(
    home: Path, work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs = [work / name for name in ("dataset", "bundle", "evaluation")]
    again = register_model(*inputs, tmp_path / "again", model=work / "model", name="before")
    assert again == read_record(work / "registration", Registration)
    assert "this bundle is before version 1 already: nothing was uploaded" in capsys.readouterr().err
    assert fetch_champion(tmp_path / "champion", name="before").sha256 == MODEL
    weights = [folder / "model.safetensors" for folder in (tmp_path / "champion", work / "model")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    source = str(home / "pictures" / "manifest.csv")
    assert detect_change(source, tmp_path / "change", name="before") == read(work, "change/record.json")
    seen = detect_change(source, tmp_path / "change", name="before", production=str(home / "pictures"))
    assert seen.drift
    assert (seen.drift.images, seen.drift.reference) == (84, 21), "its file answers to its test images"
    assert "version 1 became champion" in history(name="before")


@pytest.mark.slow
def test_its_champion_is_trained_on_and_compared(home: Path, tmp_path: Path) -> None:
    """What `graftline retrain` does, step by step."""
    out, source = tmp_path / "new", str(_grown(home / "pictures"))
    change = detect_change(source, out / "change", name="before")
    assert (change.champion, change.champion_model) == ("1", MODEL)
    assert (change.added, change.removed, change.relabelled, change.moved) == (2, 0, 0, 0)
    shares = {"validation_fraction": 0.25, "test_fraction": 0.25}
    version_data(source, out / "dataset", previous=change.data_version, **shares)
    augment(out / "dataset", out / "policy")
    fetch_champion(out / "champion", name="before")
    inputs, start = [out / name for name in ("dataset", "policy", "plans")], {"champion": out / "champion"}
    plans = select_strategy(*inputs, backbones=BACKBONE, image_size=32, **start)
    assert plans.plans[-1].champion == MODEL
    trained = fine_tune(*inputs, out / "model", rank=len(plans.plans), epochs=1, **start, **ALIKE)
    assert trained.learned_before == [change.data_version]
    evaluate(out / "dataset", out / "model", out / "evaluation")
    export_onnx(out / "dataset", out / "model", out / "bundle")
    made = [out / name for name in ("dataset", "bundle", "evaluation", "registration")]
    registration = register_model(*made, model=out / "model", name="before")
    assert (registration.version, registration.champion_before) == ("2", "1")
    assert registration.difference
    assert registration.difference.n == 21, "the old test images stay test images"
    if registration.alias == "champion":
        assert "version 1 is champion now" in rollback(name="before")


def _grown(pictures: Path) -> Path:
    """Adds two pictures to the source."""
    with (pictures / "manifest.csv").open("a", newline="") as file:
        for label, value in (("bar", 3), ("square", 5)):
            Image.new("RGB", (32, 32), (value, 9 * value, 90)).save(pictures / f"new-{label}.png")
            csv.writer(file).writerow((f"new-{label}.png", label, "dark"))
    return pictures / "manifest.csv"
