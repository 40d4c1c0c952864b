"""Inputs for the registry's tests: real pictures told apart by brightness, and tiny ONNX classifiers that do so.

A classifier's answer is "bright" above a threshold of the mean pixel. The threshold that made the labels is always
right; any other is wrong on the pictures between the two.
"""

import io
import json
from functools import cache
from pathlib import Path

import elpv_dataset
import numpy as np
import onnx
from builders import a_plan
from onnx import TensorProto, helper
from PIL import Image

from graftline.data.decode import pixel_id
from graftline.data.shards import write_shards
from graftline.files import sha256_bytes
from graftline.records import (
    ClassMetrics,
    DataVersion,
    EdgeBundle,
    Evaluation,
    Interval,
    TrainedModel,
    Variant,
    list_files,
    read_record,
)

CLASSES = ["dark", "bright"]
IMAGES = 24
HALF = Interval(value=0.5, low=0.4, high=0.6, n=IMAGES)


def brightness() -> np.ndarray:
    """Mean pixels of the test pictures, sorted."""
    return np.sort([picture.mean() for picture in _pictures()])


def threshold(wrong: int = 0) -> float:
    """The threshold that is wrong on so many of the test pictures."""
    means = brightness()
    middle = IMAGES // 2 + wrong
    return float(means[middle - 1 : middle + 1].mean())


def make_dataset(folder: Path, version: str = "d0000000000000001", classes: list[str] = CLASSES) -> Path:
    """Writes a dataset folder of 24 real solar cells, all in the test split."""
    limit, rows = threshold(), []
    for rgb in _pictures():
        buffer = io.BytesIO()
        Image.fromarray(rgb).save(buffer, "PNG")
        about = {"split": "test", "group": pixel_id(rgb), "domain": "", "sha256": "", "id": pixel_id(rgb)}
        size = {"width": rgb.shape[1], "height": rgb.shape[0]}
        rows.append({**about, **size, "image": buffer.getvalue(), "label": int(rgb.mean() > limit)})
    shards = write_shards(folder, sorted(rows, key=lambda row: row["id"]))
    about = {"images": IMAGES, "median_width": 60, "median_height": 60, "grey": True, "shards": shards}
    counts = {"test": dict.fromkeys(classes, IMAGES // 2)}
    DataVersion(version=version, classes=classes, domains=[], counts=counts, **about).write(folder)
    return folder


def make_bundle(folder: Path, dataset: Path, limit: float, seed: int = 0, *, flip: bool = False) -> Path:
    """Writes a bundle whose model calls a picture bright above `limit`; `flip` swaps the order of its outputs."""
    data = read_record(dataset, DataVersion)
    names = data.classes[::-1] if flip else data.classes
    model = trained(data, seed)
    folder.mkdir(parents=True)
    (folder / "web").mkdir()
    (folder / "web" / "index.html").write_text("<p>page</p>")
    (folder / "labels.txt").write_text("\n".join(names))
    (folder / "lineage.json").write_text(json.dumps({"model": {"record": model.model_dump(mode="json")}}))
    onnx.save_model(classifier(limit, names, flip=flip), folder / "model.onnx")
    measured = {"latency_ms": HALF, "accuracy": HALF, "agreement": HALF, "max_probability_gap": 0.0}
    variants = [
        Variant(name="torch", file="", bytes=9, **measured),
        Variant(name="fp32", file="model.onnx", bytes=9, **measured),
    ]
    told = {"shipped": "model.onnx", "why": "it is the only one", "web_page": "yes", "files": list_files(folder)}
    about = {"data_version": data.version, "model": model.sha256, "classes": names}
    EdgeBundle(**about, variants=variants, **told).write(folder)
    return folder


def make_evaluation(folder: Path, dataset: Path, seed: int = 0, split: str = "test") -> Path:
    """Writes the evaluation of the model that `make_bundle` makes with the same seed."""
    data = read_record(dataset, DataVersion)
    folder.mkdir(parents=True)
    (folder / "report.html").write_text("<h1>Report</h1>")
    (folder / "metrics.json").write_text('{"accuracy": 0.5}')
    numbers = {
        "metrics": dict.fromkeys(("accuracy", "macro_f1", "calibration_error"), HALF),
        "confusion": [[12, 0], [0, 12]],
    }
    classes = [ClassMetrics(name=name, metrics={"precision": HALF, "recall": HALF}) for name in data.classes]
    about = {"data_version": data.version, "model": trained(data, seed).sha256, "split": split, "classes": classes}
    Evaluation(**about, **numbers, files=list_files(folder)).write(folder)
    return folder


def as_before(evaluation: Path) -> Path:
    """Writes an evaluation's record anew as schema 1 had it: three metrics and two of each class, each a field."""
    path = evaluation / "record.json"
    record = json.loads(path.read_text())
    measured = record.pop("metrics")
    fields = {key: measured[key] for key in ("accuracy", "macro_f1", "calibration_error")}
    of_class = [{"name": c["name"], **{k: c["metrics"][k] for k in ("precision", "recall")}} for c in record["classes"]]
    path.write_text(json.dumps(record | fields | {"schema_version": 1, "classes": of_class}, indent=2))
    return evaluation


def make_model(folder: Path, dataset: Path, seed: int = 0) -> Path:
    """Writes the model folder of the bundle that `make_bundle` makes with the same seed; its weights are five bytes."""
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"tuned")
    (folder / "history.json").write_text("[]")
    trained(read_record(dataset, DataVersion), seed).write(folder)
    return folder


def trained(data: DataVersion, seed: int) -> TrainedModel:
    """The record of a model of that seed."""
    plan = a_plan(strategy="feature_extraction", epochs=0, frozen_groups=7, reasons=["few images"])
    form = {"image_size": 224, "mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bicubic", "parameters": 3}
    return TrainedModel(
        data_version=data.version,
        policy=sha256_bytes(b"policy"),
        plan=plan,
        pretrained=sha256_bytes(b"weights"),
        classes=data.classes,
        seed=seed,
        kept_epoch=0,
        validation_accuracy=HALF,
        weights={"file": "model.safetensors", "sha256": sha256_bytes(b"tuned"), "bytes": 5},
        **form,
    )


def classifier(limit: float, names: list[str], *, flip: bool = False) -> onnx.ModelProto:
    """uint8 [batch, H, W, 3] in, probabilities [batch, 2] out: (dark, bright) by the mean pixel, swapped by `flip`."""
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels", "axes"], ["mean"], keepdims=0),
        helper.make_node("Sub", ["mean", "limit"], ["over"]),
        helper.make_node("Unsqueeze", ["over", "last"], ["column"]),
        helper.make_node("Mul", ["column", "sides"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
    ]
    constants = [
        helper.make_tensor("axes", TensorProto.INT64, [3], [1, 2, 3]),
        helper.make_tensor("limit", TensorProto.FLOAT, [], [limit]),
        helper.make_tensor("last", TensorProto.INT64, [1], [1]),
        helper.make_tensor("sides", TensorProto.FLOAT, [1, 2], [1.0, -1.0] if flip else [-1.0, 1.0]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", "height", "width", 3])
    output = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 2])
    graph = helper.make_graph(nodes, "brightness", [image], [output], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, {"labels": json.dumps(names)})
    return model


@cache
def _pictures() -> list[np.ndarray]:
    folder = Path(elpv_dataset.__file__).parent / "data" / "images"
    pictures = [Image.open(path).convert("RGB").resize((60, 60)) for path in sorted(folder.glob("*.png"))[:IMAGES]]
    return [np.asarray(picture) for picture in pictures]
