"""Makes the edge bundle: export, quantise, measure, decide, describe."""

import platform
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from torch import nn

from graftline.data.dataset import iter_images, load_images, open_split
from graftline.errors import GraftlineError
from graftline.export.decision import Decision, decide
from graftline.export.latency import Runner, measure_latency, torch_runner
from graftline.export.lineage import LINEAGE_FILE, describe_lineage, write_metadata
from graftline.export.onnx_graph import export_network, join
from graftline.export.page import PageUnavailableError, fetch_runtime, write_page
from graftline.export.parity import Parity, accuracy_difference, compare, run_files
from graftline.export.quantise import quantise
from graftline.files import sha256_file, write_atomic, write_json
from graftline.models.edge import EdgeModel
from graftline.models.predict import predict
from graftline.models.trained import load_trained
from graftline.progress import say
from graftline.records import (
    Choice,
    DataVersion,
    EdgeBundle,
    Interval,
    TrainedModel,
    Variant,
    list_files,
    read_choice,
    read_record,
)

FILES = {"fp32": "model.onnx", "int8": "model.int8.onnx"}
LABELS_FILE, PARITY_FILE = "labels.txt", "parity.json"
_PRECISIONS = {"fp32": "float32", "int8": "int8"}
_PAGE = "web/index.html (`graftline serve BUNDLE`, or any web server on the bundle folder, then /web/)"


@dataclass(frozen=True)
class _Source:
    """What is exported and on which data it is measured."""

    dataset: Path
    data: DataVersion
    record: TrainedModel
    network: nn.Module
    choice: Choice | None


@dataclass(frozen=True)
class _Measured:
    """The variants, and int8's accuracy minus fp32's (None without int8)."""

    variants: dict[str, Variant]
    difference: Interval | None


def make_bundle(
    folder: Path, dataset: Path, model: Path, *, calibration_images: int, min_agreement: float, seed: int
) -> EdgeBundle:
    """Fills `folder` with the files to deploy and everything that proves them.

    Args:
        folder: Existing empty folder.
        dataset: Dataset folder the model was trained on.
        model: Model folder.
        calibration_images: Most training images that int8's ranges are measured on.
        min_agreement: Least share of test images on which int8 must name PyTorch's class.
        seed: Of the choice of calibration images.

    Returns:
        The bundle's record, written to `folder`.

    Raises:
        GraftlineError: The model cannot be exported, or a folder is not what it should be.
    """
    source = _Source(dataset, read_record(dataset, DataVersion), *load_trained(model), read_choice(model))
    with ThreadPoolExecutor(1) as pool:
        runtime = pool.submit(fetch_runtime)  # a download, at the first time: it goes on beside the work
        problem = _write_models(folder, source, calibration_images, seed)
        measured = _measure(folder, source)
        decision = _decide(measured, problem, min_agreement)
        variants = _settle(folder, measured.variants, decision)
        shipped = variants["int8" if decision.int8 else "fp32"]
        web_page = _write_page(folder, runtime, source.record, shipped)
    write_atomic(folder / LABELS_FILE, "".join(f"{name}\n" for name in source.record.classes))
    _write_parity(folder, variants, measured.difference, decision, min_agreement)
    return EdgeBundle(
        data_version=source.data.version,
        model=source.record.sha256,
        classes=source.record.classes,
        variants=list(variants.values()),
        shipped=shipped.file,
        why=decision.why,
        web_page=web_page,
        files=list_files(folder),
    ).write(folder)


def _write_models(folder: Path, source: _Source, calibration_images: int, seed: int) -> str:
    """Writes the ONNX files and lineage.json; returns why there is no int8, '' when there is."""
    record = source.record
    lineage = describe_lineage(source.data, record, source.choice)
    write_json(folder / LINEAGE_FILE, lineage)
    say(f"exporting {record.plan.backbone} to ONNX")
    network = export_network(source.network, record.image_size, record.plan.backbone)
    _write_model(folder, "fp32", network, record, lineage)
    images = _choose_images(source, calibration_images, seed)
    say(f"quantising to int8 with {len(images)} training images")
    try:
        quantised = quantise(network, images, record.mean, record.std)
    except GraftlineError as error:
        return str(error)
    _write_model(folder, "int8", quantised, record, lineage)
    return ""


def _write_model(
    folder: Path, name: str, network: onnx.ModelProto, record: TrainedModel, lineage: dict[str, Any]
) -> None:
    path = folder / FILES[name]
    onnx.save_model(join(network, record), path)
    write_metadata(path, lineage, record, precision=_PRECISIONS[name])


def _choose_images(source: _Source, count: int, seed: int) -> np.ndarray:
    """Returns up to `count` training images at random, uint8 [n, side, side, 3]."""
    images = load_images(source.dataset, "train", source.record.image_size, source.record.interpolation)
    chosen = np.random.default_rng(seed).permutation(len(images))[:count]
    return images[np.sort(chosen)]


def _measure(folder: Path, source: _Source) -> _Measured:
    record = source.record
    files = {name: folder / file for name, file in FILES.items() if (folder / file).is_file()}
    labels = open_split(source.dataset, "test").labels
    images = load_images(source.dataset, "test", record.image_size, record.interpolation)
    say(f"comparing {', '.join(['torch', *files])} on {len(labels)} test images")
    outputs = run_files(files, source.dataset, labels)
    outputs["torch"] = predict(source.network, images, record.mean, record.std)
    runners: dict[str, Runner] = {"torch": torch_runner(source.network, record)}
    runners |= {name: EdgeModel(path) for name, path in files.items()}
    say("measuring latency on one thread")
    latency = measure_latency(runners, next(iter_images(source.dataset, "test")))
    sizes = {"torch": record.weights.bytes} | {name: path.stat().st_size for name, path in files.items()}
    variants = {
        name: _variant(name, sizes[name], latency[name], compare(outputs[name], outputs["torch"], labels))
        for name in runners
    }
    if "int8" not in files:
        return _Measured(variants, None)
    return _Measured(variants, accuracy_difference(outputs["int8"], outputs["fp32"], labels))


def _variant(name: str, size: int, latency: Interval, parity: Parity) -> Variant:
    return Variant.model_validate(
        {"name": name, "file": FILES.get(name, ""), "bytes": size, "latency_ms": latency, **vars(parity)}
    )


def _decide(measured: _Measured, problem: str, min_agreement: float) -> Decision:
    if measured.difference is None:
        return Decision(False, f"fp32 is shipped: {problem}")
    return decide(measured.variants["fp32"], measured.variants["int8"], measured.difference, min_agreement)


def _settle(folder: Path, variants: dict[str, Variant], decision: Decision) -> dict[str, Variant]:
    """Takes int8 out of the bundle when it is not kept; what was measured stays."""
    if "int8" not in variants or decision.int8:
        return variants
    (folder / FILES["int8"]).unlink()
    return variants | {"int8": variants["int8"].model_copy(update={"file": ""})}


def _write_page(folder: Path, runtime: "Future[Path]", record: TrainedModel, shipped: Variant) -> str:
    """Writes `web/` if the runtime could be had; returns what the record says about it."""
    facts = {
        "model": record.plan.backbone,
        "file": shipped.file,
        "bytes": shipped.bytes,
        "sha256": sha256_file(folder / shipped.file),
        "precision": _PRECISIONS[shipped.name],
        "labels": record.classes,
        "data_version": record.data_version,
        "accuracy": shipped.accuracy.model_dump(),
    }
    try:
        write_page(folder, runtime.result(), facts)
    except PageUnavailableError as error:
        return f"left out: {error}"
    return _PAGE


def _write_parity(
    folder: Path,
    variants: Mapping[str, Variant],
    difference: Interval | None,
    decision: Decision,
    min_agreement: float,
) -> None:
    content = {
        "variants": [variant.model_dump(mode="json") for variant in variants.values()],
        "int8_minus_fp32_accuracy": difference and difference.model_dump(mode="json"),
        "min_agreement": min_agreement,
        "why": decision.why,
        "latency": "milliseconds from a decoded image of its original size to probabilities: median and quartiles",
        "measured_with": {
            "torch": version("torch"),
            "onnxruntime": version("onnxruntime"),
            "machine": platform.machine(),
            "threads": 1,
        },
    }
    write_json(folder / PARITY_FILE, content)
