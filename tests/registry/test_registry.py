"""Registering edge bundles: versions with lineage, the alias that is earned on the same test images, clear errors."""

import json
import os
import shutil
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from registry_inputs import as_before, make_bundle, make_dataset, make_evaluation, make_model, threshold

from graftline.cli.commands import history, rollback
from graftline.errors import GraftlineError, StoreError
from graftline.files import sha256_bytes, sha256_file
from graftline.records import EdgeBundle, Evaluation, Registration, Settings, TrainedModel, list_files, read_record
from graftline.registry.address import full_address
from graftline.registry.bundles import download_bundle
from graftline.registry.client import OtherStoreError, open_registry
from graftline.registry.comparison import judge
from graftline.registry.promotions import Promotion, read_promotions
from graftline.registry.versions import champion
from graftline.steps.fetch_champion import fetch_champion
from graftline.steps.register_model import register_model
from graftline.storage import Store, connect_store
from graftline.storage.addresses import without_password

WORSE = 6  # test pictures of 24 that the worse model gets wrong


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated, empty MLflow database; making one takes seconds."""
    folder = tmp_path_factory.mktemp("registry")
    with open_registry(Store(str(folder / "store")), f"sqlite:///{folder / 'mlflow.db'}"):
        return folder / "mlflow.db"


@pytest.fixture
def place(tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A workspace with an empty registry, a folder store, and a dataset."""
    (tmp_path / "work").mkdir()
    shutil.copy(database, tmp_path / "work" / "mlflow.db")
    monkeypatch.setenv("GRAFTLINE_WORKSPACE", str(tmp_path / "work"))
    monkeypatch.setenv("GRAFTLINE_STORE", str(tmp_path / "the store"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    make_dataset(tmp_path / "dataset")
    yield tmp_path


def register(place: Path, title: str, wrong: int = 0, dataset: str = "dataset", **options: object) -> Registration:
    """Makes and registers a bundle of a model with so many wrong answers, with its weights if `model` is a folder."""
    promote, model = options.pop("promote", "not_worse"), options.pop("model", None)
    bundle, evaluation = place / f"{title}-bundle", place / f"{title}-evaluation"
    if not bundle.exists():
        make_bundle(bundle, place / dataset, threshold(wrong), seed=len(title), **options)
        make_evaluation(evaluation, place / dataset, seed=len(title))
    out = place / f"{title}-registration"
    return register_model(place / dataset, bundle, evaluation, out, model=model, promote=promote)  # type: ignore[arg-type]


def client(place: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{place / 'work' / 'mlflow.db'}")


def log(place: Path) -> list[Promotion]:
    with connect_store() as store, open_registry(store) as registry:
        return read_promotions(registry, "graftline")


def present_champion(place: Path) -> str:
    return str(client(place).get_model_version_by_alias("graftline", "champion").version)


def test_the_first_version_is_champion_and_carries_its_lineage(place: Path) -> None:
    record = register(place, "first")
    assert (record.version, record.alias, record.champion_before, record.difference) == ("1", "champion", "", None)
    assert "first" in record.reason
    assert read_record(place / "first-registration", Registration) == record
    version = client(place).get_model_version_by_alias("graftline", "champion")
    bundle = read_record(place / "first-bundle", EdgeBundle)
    assert version.tags["bundle_sha256"] == bundle.sha256 == record.bundle
    assert version.tags["data_version"] == "d0000000000000001"
    assert version.tags["model_sha256"] == bundle.model
    assert version.tags["shipped_sha256"] == sha256_file(place / "first-bundle" / "model.onnx")
    assert version.tags["backbone"] == "tf_efficientnet_lite0"
    assert version.tags["strategy"] == "feature_extraction"
    assert version.tags["accuracy"] == "0.5000 [0.4000, 0.6000] (n=24)"
    assert {"evaluation_sha256", "graftline_version", "shipped", "classes"} <= version.tags.keys()


def test_the_run_holds_files_numbers_and_parameters(place: Path) -> None:
    register(place, "first")
    version = client(place).get_model_version("graftline", "1")
    run = client(place).get_run(version.run_id)
    assert run.info.artifact_uri.startswith((place / "the store" / "mlflow").as_uri())
    assert run.data.metrics["accuracy"] == 0.5
    assert run.data.params["backbone"] == "tf_efficientnet_lite0"
    assert run.data.params["group_rates"] == "[]" and run.data.params["balance"] == "none"
    assert set(Settings.model_fields) <= set(run.data.params)
    files = {path.relative_to(place / "the store") for path in (place / "the store").rglob("*") if path.is_file()}
    kept = {"/".join(path.parts[3:]) for path in files}
    bundle = {"record.json", "model.onnx", "labels.txt", "lineage.json", "web/index.html"}
    evaluation = {"record.json", "report.html", "metrics.json"}
    assert kept == {f"bundle/{name}" for name in bundle} | {f"evaluation/{name}" for name in evaluation}


def test_a_bundle_made_before_some_settings_came_can_be_registered(place: Path) -> None:
    """Its model's record has other fields in another order than this version would write, and so another hash."""
    bundle = make_bundle(place / "old-bundle", place / "dataset", threshold())
    lineage = json.loads((bundle / "lineage.json").read_text())
    plan = lineage["model"]["record"]["plan"]
    now = TrainedModel.model_validate(lineage["model"]["record"]).sha256
    lineage["model"]["record"]["plan"] = {name: plan[name] for name in sorted(plan) if name not in ("views", "mixup")}
    before = TrainedModel.model_validate_json(json.dumps(lineage["model"]["record"]))
    assert before.sha256 != now
    (bundle / "lineage.json").write_text(json.dumps(lineage))
    files = [entry for entry in list_files(bundle) if entry.file != "record.json"]
    read_record(bundle, EdgeBundle).model_copy(update={"model": before.sha256, "files": files}).write(bundle)
    evaluation = make_evaluation(place / "old-evaluation", place / "dataset")
    read_record(evaluation, Evaluation).model_copy(update={"model": before.sha256}).write(evaluation)
    register_model(place / "dataset", bundle, evaluation, place / "old-registration")
    version = client(place).get_model_version("graftline", "1")
    assert version.tags["model_sha256"] == before.sha256


def test_an_evaluation_of_an_earlier_version_is_registered_under_its_own_hash(place: Path) -> None:
    make_bundle(place / "bundle", place / "dataset", threshold())
    evaluation = as_before(make_evaluation(place / "evaluation", place / "dataset"))
    register_model(place / "dataset", place / "bundle", evaluation, place / "registration")
    version = client(place).get_model_version("graftline", "1")
    as_it_stood = json.dumps(json.loads((evaluation / "record.json").read_text()), separators=(",", ":"))
    assert version.tags["evaluation_sha256"] == sha256_bytes(as_it_stood.encode())
    assert version.tags["accuracy"] == "0.5000 [0.4000, 0.6000] (n=24)"
    numbers = client(place).get_run(version.run_id).data.metrics
    assert {key: numbers[key] for key in ("accuracy", "macro_f1_low", "calibration_error_high")} == {
        "accuracy": 0.5,
        "macro_f1_low": 0.4,
        "calibration_error_high": 0.6,
    }
    assert next((place / "the store").rglob("evaluation/record.json")).read_text().count('"schema_version": 1') == 1
    assert register(place, "second").alias == "champion"


def test_weights_lie_beside_the_bundle_and_come_back_as_they_were(place: Path) -> None:
    model = make_model(place / "model", place / "dataset", seed=len("first"))
    register(place, "first", model=model)
    fetched = fetch_champion(place / "fetched")
    assert fetched == read_record(model, TrainedModel)
    assert {path.name: path.read_bytes() for path in (place / "fetched").iterdir()} == {
        name: (model / name).read_bytes() for name in ("record.json", "model.safetensors")
    }
    stored = next((place / "the store").rglob("model/model.safetensors"))
    stored.write_bytes(b"other")
    with pytest.raises(GraftlineError, match=r"model\.safetensors is not the file .* of graftline 1 were changed"):
        fetch_champion(place / "again")
    assert not (place / "again").exists()


def test_weights_that_are_not_there_are_named(place: Path) -> None:
    with pytest.raises(GraftlineError, match="has no graftline champion"):
        fetch_champion(place / "out")
    register(place, "first")
    with pytest.raises(GraftlineError, match="graftline champion was registered without its model"):
        fetch_champion(place / "out")


def test_weights_of_another_model_or_changed_ones_are_refused(place: Path) -> None:
    other = make_model(place / "other", place / "dataset", seed=99)
    with pytest.raises(GraftlineError, match="other is not the one the bundle was made from"):
        register(place, "first", model=other)
    changed = make_model(place / "changed", place / "dataset", seed=len("first"))
    (changed / "model.safetensors").write_bytes(b"other")
    with pytest.raises(GraftlineError, match=r"model\.safetensors is not the file that was measured"):
        register(place, "first", model=changed)
    assert not client(place).search_registered_models()


def test_a_worse_model_becomes_challenger_with_the_reason(place: Path) -> None:
    register(place, "first")
    record = register(place, "second", WORSE)
    assert (record.version, record.alias, record.champion_before) == ("2", "challenger", "1")
    assert record.difference is not None
    assert record.difference.value == pytest.approx(-WORSE / 24)
    assert record.difference.n == 24
    assert "right on 6 fewer of the same 24 test images than champion version 1 (-25.0 points" in record.reason
    assert "by hand" in record.reason
    assert client(place).get_model_version_by_alias("graftline", "champion").version in (1, "1")
    assert client(place).get_model_version_by_alias("graftline", "challenger").version in (2, "2")


def test_a_better_model_becomes_champion(place: Path) -> None:
    register(place, "first", WORSE)
    record = register(place, "second")
    assert (record.alias, record.champion_before) == ("champion", "1")
    assert record.difference is not None
    assert record.difference.value == pytest.approx(WORSE / 24)
    assert "beyond chance" in record.reason
    assert client(place).get_model_version_by_alias("graftline", "champion").version in (2, "2")


def test_a_small_gain_is_told_as_possibly_chance(place: Path) -> None:
    register(place, "first", 1)
    record = register(place, "second")
    assert record.alias == "champion"
    assert "which may be chance" in record.reason


def test_an_equal_model_becomes_champion_also_with_classes_in_another_order(place: Path) -> None:
    register(place, "first")
    record = register(place, "second", flip=True)
    assert record.alias == "champion"
    assert record.difference is not None
    assert record.difference.value == 0
    assert "right on as many of the same 24 test images as champion" in record.reason


def test_the_same_bundle_twice_is_one_version(place: Path) -> None:
    first = register(place, "first")
    register(place, "second", WORSE)
    before = sorted((place / "the store").rglob("*"))
    assert register(place, "first") == first
    assert sorted((place / "the store").rglob("*")) == before
    assert len(client(place).search_model_versions("name = 'graftline'")) == 2


def test_registering_again_does_not_undo_what_was_set_by_hand(place: Path) -> None:
    register(place, "first", WORSE)
    better = register(place, "second")
    client(place).set_registered_model_alias("graftline", "champion", "1")
    assert register(place, "second") == better
    assert client(place).get_model_version_by_alias("graftline", "champion").version in (1, "1")


def test_an_interrupted_registration_is_finished_by_the_next(place: Path) -> None:
    register(place, "first")
    client(place).delete_model_version_tag("graftline", "1", "registration")
    client(place).delete_registered_model_alias("graftline", "champion")
    record = register(place, "first")
    assert (record.version, record.alias) == ("1", "champion")
    assert client(place).get_model_version_by_alias("graftline", "champion").version in (1, "1")


class Interrupted(BaseException):
    pass


ALIAS, LOG, OUTCOME = (
    "mlflow.MlflowClient.set_registered_model_alias",
    "graftline.registry.register.log_promotion",
    "graftline.registry.register.write_outcome",
)


def interrupt_at(target: str, place: Path, title: str, wrong: int = 0) -> None:
    """Registers a bundle up to the call of `target`."""

    def interrupt(*arguments: object, **options: object) -> None:
        raise Interrupted

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(target, interrupt)
        register(place, title, wrong)


@pytest.mark.parametrize("at", [ALIAS, LOG, OUTCOME])
def test_whenever_it_was_interrupted_the_same_decision_is_told(place: Path, at: str) -> None:
    register(place, "first", WORSE)
    interrupt_at(at, place, "second")
    record = register(place, "second")
    assert (record.version, record.alias, record.champion_before) == ("2", "champion", "1")
    assert record.difference is not None and "right on 6 more" in record.reason
    assert [(e.event, e.version, e.before) for e in log(place)] == [("promoted", "1", ""), ("promoted", "2", "1")]
    assert log(place)[-1].why == record.reason


def test_another_champion_meanwhile_is_compared_anew(place: Path) -> None:
    register(place, "first", WORSE)
    interrupt_at(ALIAS, place, "second", 1)
    assert register(place, "third").champion_before == "1"
    late = register(place, "second", 1)
    assert (late.version, late.alias, late.champion_before) == ("2", "challenger", "3")
    assert present_champion(place) == "3"


@pytest.mark.parametrize("at", [LOG, OUTCOME])
def test_finishing_a_registration_does_not_undo_a_rollback(place: Path, at: str) -> None:
    register(place, "first", WORSE)
    interrupt_at(at, place, "second")
    rollback()
    entries = log(place)
    record = register(place, "second")
    assert (record.version, record.champion_before) == ("2", "1")
    assert present_champion(place) == "1"
    assert log(place) == entries, "nothing was decided anew"
    assert "registration" in client(place).get_model_version("graftline", "2").tags


def test_finishing_a_registration_does_not_take_the_place_of_its_successor(place: Path) -> None:
    register(place, "first", WORSE)
    interrupt_at(OUTCOME, place, "second")
    assert register(place, "third").champion_before == "2", "as good: the newer one wins the tie"
    register(place, "second")
    assert present_champion(place) == "3"


def test_what_another_machine_decided_meanwhile_stays(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register(place, "first", WORSE)
    theirs: list[Registration] = []

    def judge_after_the_other(*arguments: object) -> object:
        if not theirs:
            with monkeypatch.context() as patch:
                patch.setattr("graftline.registry.register.judge", judge)
                patch.setenv("GRAFTLINE_WORKSPACE", str(place / "other machine"))
                patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{place / 'work' / 'mlflow.db'}")
                folders = [place / name for name in ("dataset", "second-bundle", "second-evaluation", "theirs")]
                theirs.append(register_model(*folders))
        return judge(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr("graftline.registry.register.judge", judge_after_the_other)
        ours = register(place, "second")
    assert theirs == [ours]
    assert "right on 6 more" in ours.reason
    assert [(e.event, e.version, e.before) for e in log(place)] == [("promoted", "1", ""), ("promoted", "2", "1")]
    assert register(place, "second") == ours, "that is what the version says too"


@pytest.mark.parametrize(("at", "wrong"), [("graftline.registry.register.judge", 0), (ALIAS, WORSE + 1)])
def test_one_that_was_made_champion_by_hand_stays_it(place: Path, at: str, wrong: int) -> None:
    register(place, "first", WORSE)
    interrupt_at(at, place, "second", wrong)
    rollback(to="2")
    record = register(place, "second")
    assert record.alias == "champion"
    assert "made so by hand" in record.reason
    assert [(e.event, e.version) for e in log(place)] == [("promoted", "1"), ("restored", "2")]
    assert client(place).get_registered_model("graftline").aliases.keys() == {"champion"}
    assert present_champion(place) == "2"


def test_other_classes_are_not_compared(place: Path) -> None:
    register(place, "first")
    make_dataset(place / "other", "d0000000000000002", ["day", "night"])
    record = register(place, "second", dataset="other")
    assert (record.alias, record.difference, record.champion_before) == ("challenger", None, "1")
    assert "day, night" in record.reason
    assert "by hand" in record.reason


def test_a_champion_of_other_data_may_know_the_test_images(place: Path) -> None:
    register(place, "first")
    make_dataset(place / "newer", "d0000000000000002")
    record = register(place, "second", dataset="newer")
    assert record.alias == "champion"
    assert "d0000000000000001" in record.reason


def test_a_champion_of_somebody_else_is_left_alone(place: Path) -> None:
    client(place).create_registered_model("graftline")
    client(place).create_model_version("graftline", "s3://somewhere/else")
    client(place).set_registered_model_alias("graftline", "champion", "1")
    record = register(place, "first")
    assert (record.version, record.alias, record.champion_before) == ("2", "challenger", "1")
    assert "not registered by graftline" in record.reason


def test_a_champion_whose_file_was_changed_stops_the_registration(place: Path) -> None:
    register(place, "first")
    next((place / "the store").rglob("bundle/model.onnx")).write_bytes(b"something else")
    with pytest.raises(GraftlineError, match=r"model\.onnx of graftline version 1 is not the file that was registered"):
        register(place, "second")
    assert not (place / "second-registration").exists()


def test_a_changed_file_is_not_registered(place: Path) -> None:
    make_bundle(place / "bundle", place / "dataset", threshold())
    make_evaluation(place / "evaluation", place / "dataset")
    with (place / "bundle" / "model.onnx").open("ab") as file:
        file.write(b"x")
    with pytest.raises(GraftlineError, match=r"model\.onnx is not the file that was measured"):
        register_model(place / "dataset", place / "bundle", place / "evaluation", place / "out")
    (place / "bundle" / "model.onnx").unlink()
    with pytest.raises(GraftlineError, match=r"model\.onnx is missing"):
        register_model(place / "dataset", place / "bundle", place / "evaluation", place / "out")


def test_an_evaluation_of_another_model_is_refused(place: Path) -> None:
    make_bundle(place / "bundle", place / "dataset", threshold(), seed=1)
    make_evaluation(place / "evaluation", place / "dataset", seed=2)
    with pytest.raises(GraftlineError, match="of another model"):
        register_model(place / "dataset", place / "bundle", place / "evaluation", place / "out")


def test_an_evaluation_with_a_changed_report_is_refused(place: Path) -> None:
    make_bundle(place / "bundle", place / "dataset", threshold())
    make_evaluation(place / "evaluation", place / "dataset")
    (place / "evaluation" / "report.html").write_text("better")
    with pytest.raises(GraftlineError, match=r"report\.html is not the file that was measured"):
        register_model(place / "dataset", place / "bundle", place / "evaluation", place / "out")


def test_an_evaluation_on_validation_is_refused(place: Path) -> None:
    make_bundle(place / "bundle", place / "dataset", threshold())
    make_evaluation(place / "evaluation", place / "dataset", split="validation")
    with pytest.raises(GraftlineError, match="validation split"):
        register_model(place / "dataset", place / "bundle", place / "evaluation", place / "out")


def test_a_bundle_of_other_data_is_refused(place: Path) -> None:
    make_bundle(place / "bundle", place / "dataset", threshold())
    make_evaluation(place / "evaluation", place / "dataset")
    make_dataset(place / "newer", "d0000000000000002")
    with pytest.raises(GraftlineError, match="d0000000000000001"):
        register_model(place / "newer", place / "bundle", place / "evaluation", place / "out")


@pytest.mark.parametrize("name", ["", "a/b", "a:b", "it's", "é" * 3, "x" * 101])
def test_a_bad_name_is_refused(place: Path, name: str) -> None:
    with pytest.raises(GraftlineError, match="model name"):
        register_model(place / "dataset", place / "b", place / "e", place / "out", name=name)


@pytest.mark.parametrize("uri", ["http://user:secret@127.0.0.1:9", "sqlite:////no/such/folder/x.db", "nonsense://x"])
def test_a_registry_that_cannot_be_used_is_told_in_one_line(place: Path, uri: str) -> None:
    with pytest.raises(GraftlineError) as told, open_registry(Store(str(place / "store")), uri):
        pass
    message = str(told.value)
    assert "\n" not in message
    assert "secret" not in message
    assert "MLFLOW_TRACKING_URI" in message


def test_an_address_without_its_password_stands_for_the_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:secret@mlflow.example.com/path")
    assert without_password(os.environ["MLFLOW_TRACKING_URI"]) == "https://mlflow.example.com/path"
    same, other = "https://mlflow.example.com/path", "https://mlflow.example.com/other"
    assert full_address() == full_address(same) == os.environ["MLFLOW_TRACKING_URI"]
    assert full_address(other) == other
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert (full_address(), full_address(same)) == ("", same)


def test_the_variable_names_the_registry_and_the_parameter_wins(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = shutil.copy(place / "work" / "mlflow.db", place / "elsewhere.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{elsewhere}")
    register(place, "first")
    assert not client(place).search_registered_models()
    own = f"sqlite:///{place / 'work' / 'mlflow.db'}"
    evaluation = place / "first-evaluation"
    register_model(place / "dataset", place / "first-bundle", evaluation, place / "out", tracking_uri=own)
    assert [model.name for model in client(place).search_registered_models()] == ["graftline"]


def test_a_bundle_comes_back_whole(place: Path) -> None:
    register(place, "first")
    register(place, "second", WORSE)
    with connect_store() as store, open_registry(store) as registry:
        for title, alias in (("first", "champion"), ("second", "challenger"), ("first", "1")):
            bundle = download_bundle(registry, "graftline", alias, place / "back" / alias)
            assert bundle == read_record(place / f"{title}-bundle", EdgeBundle)
            assert sha256_file(place / "back" / alias / "web" / "index.html") == sha256_file(
                place / f"{title}-bundle" / "web" / "index.html"
            )
        assert sorted(path.name for path in (place / "back" / "1").iterdir()) == sorted(
            path.name for path in (place / "first-bundle").iterdir()
        )


def test_champion_and_download_of_what_is_not_there(place: Path) -> None:
    with connect_store() as store, open_registry(store) as registry:
        assert champion(registry, "graftline") is None
        with pytest.raises(GraftlineError, match="no graftline champion"):
            download_bundle(registry, "graftline", "champion", place / "out")
    assert not (place / "out").exists()


def test_a_changed_bundle_in_the_registry_is_not_handed_out(place: Path) -> None:
    register(place, "first")
    next((place / "the store").rglob("bundle/labels.txt")).write_text("cat\ndog")
    with (
        connect_store() as store,
        open_registry(store) as registry,
        pytest.raises(GraftlineError, match=r"labels\.txt"),
    ):
        download_bundle(registry, "graftline", "champion", place / "out")
    assert not (place / "out").exists()


def test_another_store_gets_its_own_experiment(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register(place, "first")
    monkeypatch.setenv("GRAFTLINE_STORE", str(place / "new store"))
    record = register(place, "second", WORSE)
    assert (record.alias, record.champion_before) == ("challenger", "1")
    assert list((place / "new store").rglob("bundle/model.onnx"))


def move_files(place: Path, version: str, location: str) -> str:
    """Makes the files of a version lie elsewhere, as after a move to another store."""
    run = client(place).get_model_version("graftline", version).run_id
    with sqlite3.connect(place / "work" / "mlflow.db") as database:
        database.execute("UPDATE runs SET artifact_uri = ? WHERE run_uuid = ?", (f"{location}/{run}/artifacts", run))
    return f"{location}/{run}/artifacts"


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("s3://graftline/mlflow", "Unable to locate credentials"),
        ("file:///nowhere/mlflow", "No such artifact: 'model.onnx'"),
    ],
)
def test_a_champion_whose_files_are_out_of_reach_stays_it(
    place: Path, monkeypatch: pytest.MonkeyPatch, location: str, reason: str
) -> None:
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(place / "no credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    register(place, "first", model=make_model(place / "model", place / "dataset", seed=len("first")))
    files = move_files(place, "1", location)
    record = register(place, "second")
    assert (record.version, record.alias, record.champion_before, record.difference) == ("2", "challenger", "1", None)
    assert record.reason == (
        f"it cannot be compared with champion version 1: the files in {files}, outside the present store "
        f"{place / 'the store'}, cannot be read ({reason}): give access to that address, or copy them to it; "
        "to make it the champion by hand: `graftline rollback --to 2 --name graftline`"
    )
    assert log(place)[-1].why == record.reason
    with pytest.raises(OtherStoreError, match=location):
        fetch_champion(place / "fetched")


def test_files_missing_in_the_present_store_stop_the_registration(place: Path) -> None:
    register(place, "first")
    file = next((place / "the store").rglob("bundle/model.onnx"))
    file.rename(place / "model.onnx")
    with pytest.raises(StoreError) as told:
        register(place, "second")
    assert str(told.value) == f"{file.as_uri()} cannot be read: No such artifact: 'model.onnx'"
    assert client(place).get_registered_model("graftline").aliases.keys() == {"champion"}
    (place / "model.onnx").rename(file)
    assert register(place, "second").alias == "champion"


def test_a_profile_that_is_not_there_is_none_of_a_folder_stores_business(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    assert register(place, "first").alias == "champion"


def test_two_at_once_leave_one_champion(place: Path) -> None:
    titles = {"a": WORSE, "bb": 0, "ccc": 3}
    for title, wrong in titles.items():
        make_bundle(place / f"{title}-bundle", place / "dataset", threshold(wrong), seed=len(title))
        make_evaluation(place / f"{title}-evaluation", place / "dataset", seed=len(title))
    with connect_store(), ThreadPoolExecutor(3) as pool:
        records = list(pool.map(lambda title: register(place, title), titles))
    assert sorted(record.version for record in records) == ["1", "2", "3"]
    best = records[1]
    assert best.alias == "champion"
    assert present_champion(place) == best.version
    assert sorted(entry.version for entry in log(place)) == ["1", "2", "3"]


def test_with_the_rule_better_a_small_gain_does_not_change_the_champion(place: Path) -> None:
    register(place, "first", 1)
    record = register(place, "second", promote="better")
    assert (record.alias, record.champion_before) == ("challenger", "1")
    assert "too little evidence that it is better" in record.reason
    assert present_champion(place) == "1"


def test_with_the_rule_better_a_gain_beyond_chance_does(place: Path) -> None:
    register(place, "first", WORSE)
    assert register(place, "second", promote="better").alias == "champion"
    with pytest.raises(GraftlineError, match="promote is 'always': it must be one of not_worse, better"):
        register(place, "third", promote="always")


def test_every_decision_is_logged_once(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "somebody")
    register(place, "first", 1)
    monkeypatch.setenv("GRAFTLINE_RUN", "monday")
    promoted = register(place, "second")
    kept = register(place, "third", WORSE)
    register(place, "second")
    first, second, third = log(place)
    assert [(e.event, e.version, e.before, e.champion) for e in (first, second, third)] == [
        ("promoted", "1", "", "1"),
        ("promoted", "2", "1", "2"),
        ("kept", "3", "2", "2"),
    ]
    assert (second.why, third.why) == (promoted.reason, kept.reason)
    assert (first.who, first.run, second.run) == ("somebody", "", "monday")
    assert first.when < second.when < third.when


def test_an_entry_of_the_log_cannot_be_changed(place: Path) -> None:
    register(place, "first")
    mlflow = client(place)
    experiment = mlflow.get_experiment_by_name("graftline promotions")
    assert experiment
    (run,) = mlflow.search_runs([experiment.experiment_id])
    with pytest.raises(MlflowException, match="Changing param values is not allowed"):
        mlflow.log_param(run.info.run_id, "version", "9")


def test_an_interrupted_registration_is_logged_once(place: Path) -> None:
    register(place, "first")
    client(place).delete_model_version_tag("graftline", "1", "registration")
    register(place, "first")
    assert [entry.event for entry in log(place)] == ["promoted"]


def test_rolling_back_restores_champion_after_champion(place: Path) -> None:
    register(place, "a", 2)
    register(place, "bb", 1)
    register(place, "ccc")
    register(place, "dddd", WORSE)
    assert rollback() == "graftline version 2 is champion now, in the place of version 3"
    assert present_champion(place) == "2"
    rollback()
    assert present_champion(place) == "1"
    with pytest.raises(GraftlineError, match="version 1 is the first champion: there is none before it"):
        rollback()
    rollback(to="3")
    assert present_champion(place) == "3"
    assert [(e.event, e.version, e.before) for e in log(place)[4:]] == [
        ("restored", "2", "3"),
        ("restored", "1", "2"),
        ("restored", "3", "1"),
    ]
    rollback()
    assert present_champion(place) == "1", "the one before, not the one that was rolled back first"


def test_rolling_back_to_what_is_not_there(place: Path) -> None:
    with pytest.raises(GraftlineError, match="has no champion of graftline: nothing to roll back"):
        rollback()
    register(place, "first")
    for version in ("9", "x"):
        with pytest.raises(GraftlineError, match=f"graftline has no version '{version}': `graftline history"):
            rollback(to=version)
    with pytest.raises(GraftlineError, match="version 1 is the champion already"):
        rollback(to="1")
    assert len(log(place)) == 1


def test_history_tells_who_was_champion_when(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(GraftlineError, match="knows no champion of 'graftline'"):
        history()
    register(place, "first")
    monkeypatch.setenv("GRAFTLINE_RUN", "monday")
    register(place, "second", WORSE)
    first, _, second, why, now = history().splitlines()
    assert "version 1 became champion (by" in first
    assert "version 2 was not promoted, version 1 stayed champion (by" in second
    assert second.endswith("run monday)")
    assert "6 fewer of the same 24" in why
    assert now.startswith("now: version 1 is champion, since ")
    rollback(to="2")
    assert "version 2 was made champion by hand after version 1" in history()
    client(place).set_registered_model_alias("graftline", "champion", "1")
    assert history().endswith("now: version 1 is champion, set in MLflow by hand or before there was a log")


@pytest.mark.slow
def test_artifacts_go_to_the_embedded_s3_store(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRAFTLINE_STORE")
    register(place, "first")
    assert register(place, "second", WORSE).alias == "challenger"
    with connect_store() as store, open_registry(store) as registry:
        version = champion(registry, "graftline")
        assert version is not None
        assert store.exists(f"mlflow/{version.run_id}/artifacts/evaluation/report.html")
        assert download_bundle(registry, "graftline", "champion", place / "back").sha256 == version.bundle


@pytest.mark.slow
def test_a_bucket_that_is_not_in_the_present_s3_is_told(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRAFTLINE_STORE")
    register(place, "first")
    files = move_files(place, "1", "s3://elsewhere/mlflow")
    record = register(place, "second")
    assert record.alias == "challenger"
    assert f"the files in {files}, outside the present store s3://graftline, cannot be read (" in record.reason
    assert "bucket does not exist" in record.reason
    move_files(place, "1", "s3://graftline/mlflow/gone")
    with pytest.raises(StoreError, match=r"s3://graftline/mlflow/gone/\S+/bundle/model\.onnx cannot be read: .*404"):
        register(place, "another")


@pytest.mark.slow
def test_moving_from_the_embedded_store_to_a_folder(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with monkeypatch.context() as patch:
        patch.delenv("GRAFTLINE_STORE")
        register(place, "first")
    record = register(place, "second")
    assert (record.alias, record.champion_before) == ("challenger", "1")
    assert (
        f"the files in s3://graftline/mlflow/{client(place).get_model_version('graftline', '1').run_id}"
        in record.reason
    )
