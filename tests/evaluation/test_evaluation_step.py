"""The step `evaluate` on real images with real ImageNet weights and a head solved on a handful of them."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score
from test_evaluation_report import model_of

from graftline import evaluate
from graftline.errors import DataError, GraftlineError
from graftline.files import sha256_file
from graftline.records import DataVersion, Evaluation, TrainedModel, read_record


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    from graftline.data.build import build_dataset
    from graftline.data.sources import open_source
    from graftline.files import output_folder
    from graftline.runs.demo import lay_out

    home = tmp_path_factory.mktemp("evaluation")
    lines = lay_out(home / "demo").read_text().splitlines()
    (home / "few.csv").write_text("\n".join([lines[0], *lines[1::22]]) + "\n")
    with open_source(str(home / "few.csv")) as source, output_folder(home / "dataset") as folder:
        build_dataset(source, folder, 0.15, 0.2)
    return home / "dataset"


@pytest.fixture(scope="module")
def model(dataset: Path, tmp_path_factory) -> Path:
    from graftline.data.dataset import load_images, open_split
    from graftline.models.backbones import build_backbone
    from graftline.models.predict import normalise
    from graftline.models.trained import save_weights
    from graftline.training.probe import set_head, solve_head

    data = read_record(dataset, DataVersion)
    network, weights = build_backbone("tf_efficientnet_lite0", 2)
    network.eval()
    images = torch.from_numpy(np.array(load_images(dataset, "train", 64)))
    with torch.inference_mode():
        inputs = normalise(images, (0.5,) * 3, (0.5,) * 3)
        features = network.forward_head(network.forward_features(inputs), pre_logits=True).numpy()
    set_head(network.get_classifier(), *solve_head(features, open_split(dataset, "train").labels, 0.01))
    folder = tmp_path_factory.mktemp("model")
    changes = {"data_version": data.version, "image_size": 64, "pretrained": weights}
    record = model_of(data.classes).model_copy(update=changes | {"weights": save_weights(folder, network)})
    record.write(folder)
    return folder


@pytest.fixture(autouse=True, scope="module")
def workspace(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRAFTLINE_WORKSPACE", str(tmp_path_factory.mktemp("workspace")))
        patch.delenv("GRAFTLINE_CACHE")
        yield


@pytest.fixture(scope="module")
def evaluation(dataset: Path, model: Path, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("out") / "evaluation"
    evaluate(dataset, model, out)
    return out


@pytest.mark.slow
def test_record_metrics_and_predictions_agree(dataset, model, evaluation):
    record = read_record(evaluation, Evaluation)
    table = pq.read_table(evaluation / "predictions.parquet").to_pydict()
    numbers = json.loads((evaluation / "metrics.json").read_text())
    assert record.accuracy.n == numbers["n"] == sum(read_record(dataset, DataVersion).counts["test"].values())
    assert list(table) == ["id", "label", "domain", "prediction", "p_0", "p_1"]
    assert record.accuracy.value == accuracy_score(table["label"], table["prediction"]) == numbers["accuracy"]
    assert record.macro_f1.value == pytest.approx(f1_score(table["label"], table["prediction"], average="macro"))
    assert np.add(table["p_0"], table["p_1"]) == pytest.approx(1)
    assert numbers["macro_f1_low"] <= numbers["macro_f1"] <= numbers["macro_f1_high"]
    assert set(record.accuracy_by_domain) == {"mono", "poly"}
    assert record.model == read_record(model, TrainedModel).sha256


@pytest.mark.slow
def test_files_are_all_there_and_as_recorded(evaluation):
    record = read_record(evaluation, Evaluation)
    assert all(sha256_file(evaluation / entry.file) == entry.sha256 for entry in record.files)
    assert {entry.file for entry in record.files} == {
        "confusion.png",
        "metrics.json",
        "mistakes.png",
        "per_class.png",
        "plots/confusion.csv",
        "plots/reliability.csv",
        "predictions.parquet",
        "reliability.png",
        "report.html",
    }
    rows = (evaluation / "plots/confusion.csv").read_text().splitlines()
    assert rows[0] == "actual,predicted"
    assert len(rows) == record.accuracy.n + 1
    assert sum(row == "defective,functional" for row in rows) == record.confusion[0][1]


@pytest.mark.slow
def test_mistakes_shown_are_those_of_the_table(dataset, evaluation):
    from graftline.data.dataset import open_split

    table = pq.read_table(evaluation / "predictions.parquet").to_pydict()
    report = (evaluation / "report.html").read_text()
    assert table["id"] == open_split(dataset, "test").ids
    wrong = [i for i in range(len(table["id"])) if table["label"][i] != table["prediction"][i]]
    assert wrong
    assert all((f"image {table['id'][i]}" in report) == (i in wrong) for i in range(len(table["id"])))


@pytest.mark.slow
def test_same_work_same_record(dataset, model, evaluation, tmp_path):
    assert evaluate(dataset, model, tmp_path / "again").sha256 == read_record(evaluation, Evaluation).sha256


@pytest.mark.slow
def test_validation_split(dataset, model, tmp_path):
    record = evaluate(dataset, model, tmp_path / "out", split="validation")
    assert (record.split, record.accuracy.n) == (
        "validation",
        sum(read_record(dataset, DataVersion).counts["validation"].values()),
    )
    assert "flatter" in (tmp_path / "out/report.html").read_text()


def test_another_data_version_is_refused(dataset, tmp_path):
    model_of(["defective", "functional"]).write(tmp_path)
    with pytest.raises(GraftlineError, match=r"trained on data version d0123456789abcdef.*training images"):
        evaluate(dataset, tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_classes_are_refused(dataset, tmp_path):
    version = read_record(dataset, DataVersion).version
    model_of(["bad", "good"]).model_copy(update={"data_version": version}).write(tmp_path)
    with pytest.raises(GraftlineError, match="has the classes bad, good, but"):
        evaluate(dataset, tmp_path, tmp_path / "out")


def test_an_empty_split_is_refused(dataset, tmp_path):
    data = read_record(dataset, DataVersion)
    (tmp_path / "data").mkdir()
    counts = data.counts | {"test": dict.fromkeys(data.classes, 0)}
    data.model_copy(update={"counts": counts}).write(tmp_path / "data")
    model_of(data.classes).model_copy(update={"data_version": data.version}).write(tmp_path)
    with pytest.raises(DataError, match="no images in the split 'test'"):
        evaluate(tmp_path / "data", tmp_path, tmp_path / "out")


def test_a_folder_that_is_no_model(dataset, tmp_path):
    with pytest.raises(GraftlineError, match="not an output of `graftline fine_tune`"):
        evaluate(dataset, tmp_path, tmp_path / "out")
