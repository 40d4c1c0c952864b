"""The step export_onnx: a bundle from a real trained model, its lineage, its refusals."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel
from pydantic import ValidationError
from registry_inputs import make_dataset, make_evaluation, trained

from graftline import export_onnx
from graftline.cli.table import show_summary
from graftline.data.dataset import iter_images, load_images, open_split
from graftline.errors import GraftlineError
from graftline.export.decision import Measured, Rules, Unmade, decide
from graftline.export.forms import FORMS, Form
from graftline.export.lineage import describe_lineage, read_lineage
from graftline.export.onnx_graph import Exported, join
from graftline.export.parity import compare
from graftline.models.edge import EdgeModel
from graftline.models.predict import predict
from graftline.models.trained import load_trained
from graftline.records import (
    DataVersion,
    EdgeBundle,
    Interval,
    Registration,
    TrainedModel,
    Variant,
    list_files,
    read_record,
)
from graftline.runs.summary import summarise

TWO_FORMS = tuple(form for form in FORMS if form.name in ("fp32", "int8"))


@pytest.fixture(scope="module")
def bundle(solar_dataset: Path, trained_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle made without npm."""
    folder = tmp_path_factory.mktemp("bundle") / "bundle"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(tmp_path_factory.mktemp("empty")))
        patch.setenv("GRAFTLINE_WORKSPACE", str(tmp_path_factory.mktemp("fresh")))
        export_onnx(solar_dataset, trained_model, folder, calibration_images=20, min_agreement=0.5)
    return folder


@pytest.mark.slow
def test_the_record_tells_what_is_there(bundle: Path, trained_model: Path, solar_dataset: Path) -> None:
    record, model = read_record(bundle, EdgeBundle), read_record(trained_model, TrainedModel)
    assert record.files == list_files(bundle)
    assert (record.data_version, record.model) == (model.data_version, model.sha256)
    assert [variant.name for variant in record.variants] == ["torch", *(form.name for form in FORMS)]
    n = len(open_split(solar_dataset, "test").labels)
    for variant in record.variants:
        assert variant.accuracy.n == variant.agreement.n == n
        assert variant.latency_ms.n >= 30
        assert not variant.file or (bundle / variant.file).stat().st_size == variant.bytes
    torch, fp32, int8 = (record.variant(name) for name in ("torch", "fp32", "int8"))
    assert torch and fp32 and int8
    assert torch.bytes == model.weights.bytes
    assert fp32.agreement.value == 1
    assert fp32.max_probability_gap < 0.02
    assert int8.bytes < 0.35 * fp32.bytes
    assert record.shipped == "model.int8.onnx"
    assert record.why.startswith("int8 is shipped: it agrees with PyTorch on ")
    assert (bundle / "labels.txt").read_text().splitlines() == model.classes


@pytest.mark.slow
def test_what_ships_says_what_torch_says(bundle: Path, trained_model: Path, solar_dataset: Path) -> None:
    record, model = load_trained(trained_model)
    images = load_images(solar_dataset, "test", record.image_size, record.interpolation)
    expected = predict(model, images, record.mean, record.std)
    session = onnxruntime.InferenceSession(bundle / "model.onnx", providers=["CPUExecutionProvider"])
    found = [session.run(["probabilities"], {"image": i[None]})[0][0] for i in iter_images(solar_dataset, "test")]
    assert np.abs(np.stack(found) - expected).max() < 0.02
    labels = open_split(solar_dataset, "test").labels
    measured = read_record(bundle, EdgeBundle).variant("fp32")
    assert measured is not None
    assert measured.accuracy == compare(np.stack(found), expected, labels).accuracy


@pytest.mark.slow
def test_without_npm_only_the_page_is_missing(bundle: Path) -> None:
    assert "npm is not installed" in read_record(bundle, EdgeBundle).web_page
    assert not (bundle / "web").exists()


@pytest.mark.slow
def test_lineage_leads_from_a_file_anywhere_to_the_data(
    bundle: Path, trained_model: Path, solar_dataset: Path, tmp_path: Path
) -> None:
    data, model = read_record(solar_dataset, DataVersion), read_record(trained_model, TrainedModel)
    for name in ("model.onnx", "model.int8.onnx"):
        alone = shutil.copy(bundle / name, tmp_path / "renamed.onnx")
        lineage = read_lineage(Path(alone))
        assert DataVersion.model_validate(lineage["data"]["record"]).sha256 == lineage["data"]["sha256"] == data.sha256
        found = TrainedModel.model_validate(lineage["model"]["record"])
        assert found.sha256 == lineage["model"]["sha256"] == model.sha256
        assert found.data_version == data.version
        assert lineage["augmentation_policy"]["sha256"] == model.policy
    assert read_lineage(bundle)["bundle"]["shipped"] == "model.int8.onnx"
    entries = {entry.key: entry.value for entry in onnx.load_model(bundle / "model.int8.onnx").metadata_props}
    assert json.loads(entries["labels"]) == model.classes
    assert entries["precision"] == "int8"
    assert entries["input"].startswith("image: uint8 RGB [batch, height, width, 3]")


def test_lineage_tells_a_model_of_before_as_its_hash_was_made(tmp_path: Path) -> None:
    make_dataset(tmp_path / "dataset")
    data = read_record(tmp_path / "dataset", DataVersion)
    content = json.loads(trained(data, 0).json_text)
    plan = content["plan"]
    old = {**content, "plan": {name: plan[name] for name in sorted(plan) if name not in ("views", "mixup")}}
    model = TrainedModel.model_validate_json(json.dumps(old))
    told = describe_lineage(data, model)["model"]
    assert told == {"sha256": model.sha256, "record": old}
    assert TrainedModel.model_validate_json(json.dumps(told["record"])).sha256 == model.sha256


def opposite(network: onnx.ModelProto, *_: object) -> onnx.ModelProto:
    """A quantiser that turns every answer round."""
    weight = next(node.input[1] for node in network.graph.node if node.op_type == "Gemm")
    tensor = next(tensor for tensor in network.graph.initializer if tensor.name == weight)
    tensor.CopyFrom(onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(tensor), weight))
    return network


def unable(*_: object) -> None:
    raise NotImplementedError("for a test")


@pytest.mark.slow
def test_int8_that_disagrees_is_measured_but_not_shipped(
    solar_dataset: Path, trained_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("graftline.export.bundle.FORMS", TWO_FORMS)
    monkeypatch.setattr("graftline.export.int8.quantise", opposite)
    record = export_onnx(solar_dataset, trained_model, tmp_path / "out")
    int8 = record.variant("int8")
    assert int8 is not None
    assert int8.agreement.value < 0.5
    assert int8.file == ""
    assert record.shipped == "model.onnx"
    assert not (tmp_path / "out" / "model.int8.onnx").exists()
    assert json.loads((tmp_path / "out" / "parity.json").read_text())["why"] == record.why
    assert "int8 was measured and left out because it agrees too little" in record.why


@pytest.mark.slow
def test_without_int8_the_bundle_says_why(
    solar_dataset: Path, trained_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("graftline.export.bundle.FORMS", TWO_FORMS)
    monkeypatch.setattr("graftline.export.int8.quantise", unable)
    record = export_onnx(solar_dataset, trained_model, tmp_path / "out")
    assert [variant.name for variant in record.variants] == ["torch", "fp32"]
    assert record.why == "fp32 is shipped: int8 could not be made (NotImplementedError: for a test)"


def half(exported: Exported) -> onnx.ModelProto:
    """The network in 16 bits, changed in place; the next form must not see it."""
    convert_float_to_float16(exported.network, keep_io_types=True, disable_shape_infer=True)
    OnnxModel(exported.network).topological_sort()  # the converter puts its casts at the end
    return join(exported.network, exported.record)


def bare(exported: Exported) -> onnx.ModelProto:
    """A model that `EdgeModel` refuses: it takes no pictures."""
    return exported.network


@pytest.mark.slow
def test_a_form_is_a_line_in_the_table(
    solar_dataset: Path,
    trained_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    more = (Form("half", "model.half.onnx", "float16", half), Form("bare", "bare.onnx", "float32", bare))
    fp32_form, int8_form = TWO_FORMS
    monkeypatch.setattr("graftline.export.bundle.FORMS", (fp32_form, *more, int8_form))
    bundle = tmp_path / "bundle"
    record = export_onnx(solar_dataset, trained_model, bundle, calibration_images=20, min_agreement=0.5)

    assert [(variant.name, variant.file) for variant in record.variants] == [
        ("torch", ""),
        ("fp32", "model.onnx"),
        ("half", "model.half.onnx"),
        ("int8", "model.int8.onnx"),
    ]
    fp32, half_size, int8 = record.variants[1:]
    assert fp32.bytes > half_size.bytes > int8.bytes
    assert int8.max_probability_gap < 0.5  # made of the network in 32 bits
    assert record.shipped == int8.file
    assert re.fullmatch(
        r"int8 is shipped: it agrees .*; half is kept: it agrees .* MB instead of .*; "
        r"bare could not be made \(GraftlineError: bare\.onnx takes \['pixels'\] and gives \['logits'\]: .*\)",
        record.why,
    )
    models = {path.name for path in bundle.glob("*.onnx")}
    assert models == {"model.onnx", "model.half.onnx", "model.int8.onnx"}
    entries = {entry.key: entry.value for entry in onnx.load_model(bundle / "model.half.onnx").metadata_props}
    assert entries["precision"] == "float16"
    assert EdgeModel(bundle / "model.half.onnx").classes == record.classes
    parity = json.loads((bundle / "parity.json").read_text())
    assert [figures["name"] for figures in parity["variants"]] == ["torch", "fp32", "half", "int8"]
    assert parity["half_minus_fp32_accuracy"]["n"] == parity["int8_minus_fp32_accuracy"]["n"] == fp32.accuracy.n
    assert parity["bare_minus_fp32_accuracy"] is None
    assert read_record(bundle, EdgeBundle) == record

    summary = summarise(tmp_path / "run", outputs(tmp_path, solar_dataset, trained_model, bundle), 1.0, 0)
    figures = json.loads(summary.path.read_text())
    assert [Variant.model_validate(one) for one in figures["variants"]] == record.variants
    assert figures["int8_bytes"] == int8.bytes
    show_summary(summary)
    table = capsys.readouterr().out
    for variant in record.variants:
        assert re.search(rf"{variant.name} .*{variant.latency_ms.value:.1f} ms", table)


def outputs(place: Path, dataset: Path, model: Path, bundle: Path) -> dict[str, Path]:
    """A run's outputs around a bundle, with what evaluates and registers it."""
    evaluation, registration = make_evaluation(place / "evaluation", dataset), place / "registration"
    told = {"name": "cells", "version": "1", "alias": "champion", "reason": "it is the first"}
    Registration(data_version="d0", bundle=read_record(bundle, EdgeBundle).sha256, **told).write(registration)
    (place / "run").mkdir()
    folders = {"dataset": dataset, "model": model, "evaluation": evaluation, "bundle": bundle}
    return folders | {"registration": registration}


@pytest.mark.slow
def test_other_data_is_refused_in_one_line(solar_dataset: Path, trained_model: Path, tmp_path: Path) -> None:
    other = tmp_path / "dataset"
    read_record(solar_dataset, DataVersion).model_copy(update={"version": "d123"}).write(other)
    refused = (
        r"was trained on data version d\w+, but .*dataset is d123: its test images may have been .*; give the dataset"
    )
    with pytest.raises(GraftlineError, match=refused):
        export_onnx(other, trained_model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("name", "value"), [("calibration_images", 0), ("min_agreement", 1.5)])
def test_values_out_of_range_are_refused(tmp_path: Path, name: str, value: float) -> None:
    with pytest.raises(GraftlineError, match=f"^{name} is {value}: "):
        export_onnx(tmp_path, tmp_path, tmp_path / "out", **{name: value})


def interval(value: float, spread: float = 0.01) -> Interval:
    return Interval(value=value, low=value - spread, high=value + spread, n=100)


def variant(name: str, size: int, latency: float, accuracy: float, agreement: float) -> Variant:
    return Variant.model_validate(
        {
            "name": name,
            "file": f"{name}.onnx",
            "bytes": size,
            "latency_ms": interval(latency),
            "accuracy": interval(accuracy),
            "agreement": interval(agreement),
            "max_probability_gap": 0.1,
        }
    )


FP32 = variant("fp32", 4_000_000, 5.0, 0.9, 1.0)


@pytest.mark.parametrize(
    ("size", "latency", "agreement", "difference", "ships", "because"),
    [
        (1_000_000, 2.5, 0.98, -0.005, True, "1.0 MB instead of 4.0 and 2.5 ms an image instead of 5.0"),
        (1_000_000, 6.0, 0.98, -0.005, True, "6.0 ms an image instead of 5.0"),  # slower, but a quarter of the size
        (3_900_000, 4.0, 0.98, -0.005, True, "4.0 ms"),
        (3_900_000, 4.99, 0.98, -0.005, False, "it gains nothing"),
        (1_000_000, 2.5, 0.96, -0.005, False, "it agrees too little: it agrees with PyTorch on 96.0 %"),
        (1_000_000, 2.5, 0.98, -0.05, False, "it is significantly worse"),
    ],
)
def test_int8_ships_only_if_it_agrees_and_gains(
    size: int, latency: float, agreement: float, difference: float, ships: bool, because: str
) -> None:
    int8 = variant("int8", size, latency, 0.9 + difference, agreement)
    decision = decide(FP32, [Measured(int8, interval(difference))], Rules(min_agreement=0.97))
    assert decision.shipped == ("int8" if ships else "fp32")
    assert decision.kept == (("fp32", "int8") if ships else ("fp32",))
    assert because in (decision.why if ships else decision.left_out["int8"])
    assert because in decision.why
    assert decision.why.startswith("int8 is shipped" if ships else "fp32 is shipped; int8 was measured and left out")


def test_of_several_forms_the_smallest_kept_ships_and_each_has_its_reason() -> None:
    int8, fp16, slow = (
        Measured(variant(name, size, latency, 0.9, 0.99), interval(0.0))
        for name, size, latency in (("int8", 1_000_000, 5.0), ("fp16", 2_000_000, 2.5), ("slow", 4_000_000, 6.0))
    )
    others = [Unmade("core", "core could not be made (ValueError: no)"), slow, fp16, int8]
    decision = decide(FP32, others, Rules(min_agreement=0.97))
    assert decision.shipped == "int8"
    assert decision.kept == ("fp32", "fp16", "int8")
    assert list(decision.left_out) == ["core", "slow"]
    beginnings = [
        "int8 is shipped: it agrees",
        "; core could not be made (ValueError: no); slow was measured and left out because it gains nothing",
        "; fp16 is kept: it agrees",
    ]
    assert decision.why.startswith(beginnings[0])
    places = [decision.why.index(beginning) for beginning in beginnings]
    assert places == sorted(places)
    none = decide(FP32, [others[0], slow], Rules(min_agreement=0.97))
    assert (none.shipped, none.kept) == ("fp32", ("fp32",))
    assert none.why.startswith("fp32 is shipped; core could not be made (ValueError: no); slow was measured and left")


def test_the_forms_have_plain_names_and_files_of_their_own() -> None:
    names, files = [form.name for form in FORMS], [form.file for form in FORMS]
    assert len({*names, "torch"}) == len(FORMS) + 1
    assert len(set(files)) == len(FORMS)
    for name in names:
        assert variant(name, 1, 1.0, 0.9, 1.0).name == name
    for name in ("", "int8 per tensor", "../int8", "Int8", "int8\n"):
        with pytest.raises(ValidationError, match="name"):
            variant(name, 1, 1.0, 0.9, 1.0)


def test_lineage_of_what_is_not_ours_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GraftlineError, match="does not exist"):
        read_lineage(tmp_path / "nothing.onnx")
    with pytest.raises(GraftlineError, match="is not an output of `graftline export_onnx`"):
        read_lineage(tmp_path)
    (tmp_path / "text.onnx").write_text("not a model at all")
    with pytest.raises(GraftlineError, match="is not an ONNX model"):
        read_lineage(tmp_path / "text.onnx")
    (tmp_path / "lineage.json").write_text("{}")
    with pytest.raises(GraftlineError, match=r"lineage\.json is not an ONNX model"):
        read_lineage(tmp_path / "lineage.json")
    graph = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20]> g (float[1] x) => (float[1] y) { y = Relu(x) }'
    )
    onnx.save_model(graph, tmp_path / "other.onnx")
    with pytest.raises(GraftlineError, match="carries no lineage"):
        read_lineage(tmp_path / "other.onnx")
