"""Where an edge file comes from: written into the file itself and beside it, read back by `graftline lineage FILE`."""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError

from graftline.errors import GraftlineError
from graftline.export.preprocessing import describe_preprocessing
from graftline.models.edge import INPUT, LABELS, PROBABILITIES
from graftline.records import Choice, DataVersion, EdgeBundle, Record, TrainedModel, read_record

LINEAGE_FILE = "lineage.json"
_KEY = "lineage"


def describe_lineage(data: DataVersion, record: TrainedModel, choice: Choice | None = None) -> dict[str, Any]:
    """Returns the chain of records from the data to the model, each by its SHA-256, the small ones whole.

    Args:
        data: The data.
        record: The model.
        choice: Among which candidates it was chosen; None when it was the only one.
    """
    return {
        "graftline": version("graftline"),
        "data": _whole(data),
        "augmentation_policy": {"sha256": record.policy},
        "pretrained_weights": {"backbone": record.plan.backbone, "sha256": record.pretrained, **_champion(record)},
        "model": _whole(record),
        **({"choice": _whole(choice)} if choice else {}),
    }


def _whole(record: Record) -> dict[str, Any]:
    """Returns a record as it stood when it was read, which its hash is of."""
    return {"sha256": record.sha256, "record": json.loads(record.json_text)}


def _champion(record: TrainedModel) -> dict[str, Any]:
    """Names the champion whose weights the model started from, if it did."""
    if not record.plan.champion:
        return {}
    return {"champion_model": record.plan.champion, "champion_learned_from": record.learned_before}


def write_model(
    path: Path, model: onnx.ModelProto, lineage: dict[str, Any], record: TrainedModel, *, precision: str
) -> None:
    """Writes an ONNX file with labels, input, output and lineage in it. Must come last: other tools drop metadata.

    Args:
        path: The file to write.
        model: The whole model, preprocessing and softmax included.
        lineage: From `describe_lineage`.
        record: The model's record.
        precision: Of the network's numbers, as in the table of forms.
    """
    how = describe_preprocessing(record.image_size, record.mean, record.std, record.interpolation)
    model.producer_name, model.producer_version = "graftline", lineage["graftline"]
    entries = {
        LABELS: json.dumps(record.classes, ensure_ascii=False),
        "data_version": record.data_version,
        "model_record_sha256": record.sha256,
        "backbone": record.plan.backbone,
        "precision": precision,
        "input": f"{INPUT}: uint8 RGB [batch, height, width, 3], any size, values 0 to 255",
        "output": f"{PROBABILITIES}: float32 [batch, {len(record.classes)}], rows sum to 1, in the order of labels",
        "preprocessing": how,
        "graftline_version": lineage["graftline"],
        _KEY: json.dumps(lineage, ensure_ascii=False),
    }
    onnx.helper.set_model_props(model, entries)
    onnx.save_model(model, path)


def read_lineage(path: Path) -> dict[str, Any]:
    """Reads where an edge file or a whole bundle comes from.

    Args:
        path: An `.onnx` file that `graftline export_onnx` wrote, wherever it lies now, or its bundle folder.

    Returns:
        What `describe_lineage` wrote; of a bundle with the bundle's record under "bundle".

    Raises:
        GraftlineError: The path is missing, is not ONNX, or carries no lineage.
    """
    if path.is_dir():
        bundle = read_record(path, EdgeBundle)
        return {**_read_beside(path / LINEAGE_FILE), "bundle": json.loads(bundle.json_text)}
    if not path.is_file():
        raise GraftlineError(f"{path} does not exist: give an .onnx file of graftline's, or the bundle folder")
    try:
        entries = onnx.load_model(path, format="protobuf", load_external_data=False).metadata_props
    except DecodeError as error:
        raise GraftlineError(f"{path} is not an ONNX model: give a file that `graftline export_onnx` wrote") from error
    text = next((entry.value for entry in entries if entry.key == _KEY), None)
    if text is None:
        raise GraftlineError(f"{path} carries no lineage: it was not written by `graftline export_onnx`")
    return json.loads(text)


def _read_beside(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise GraftlineError(f"{path} is missing: run `graftline export_onnx` again")
    return json.loads(path.read_text(encoding="utf-8"))
