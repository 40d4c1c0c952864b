"""Makes the edge bundle: export, make the forms, measure, decide, describe. Which forms there are says `forms.py`."""

import copy
import platform
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from graftline.data.dataset import iter_images, load_images, open_split
from graftline.export.decision import Decision, Measured, Rules, Unmade, decide
from graftline.export.forms import FORMS, Form
from graftline.export.latency import Runner, measure_latency, torch_runner
from graftline.export.lineage import LINEAGE_FILE, describe_lineage, write_model
from graftline.export.onnx_graph import Exported, export_network
from graftline.export.page import PageUnavailableError, fetch_runtime, write_page
from graftline.export.parity import Parity, accuracy_difference, compare, run_forms
from graftline.files import sha256_file, write_atomic, write_json
from graftline.models.predict import predict
from graftline.models.trained import load_network, require_same_data
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

LABELS_FILE, PARITY_FILE = "labels.txt", "parity.json"
_TORCH = "torch"
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
class _Forms:
    """By the form's name, in the order of the table: those that were made, opened, and why others were not."""

    made: dict[str, Runner]
    problems: dict[str, str]


@dataclass(frozen=True)
class _Figures:
    """By name: torch and every form that was made, and the accuracy of each but the reference minus the reference's."""

    variants: dict[str, Variant]
    differences: dict[str, Interval]


def make_bundle(
    folder: Path, dataset: Path, model: Path, *, calibration_images: int, min_agreement: float, seed: int
) -> EdgeBundle:
    """Fills `folder` with the files to deploy and everything that proves them.

    Args:
        folder: Existing empty folder.
        dataset: Dataset folder the model was trained on.
        model: Model folder.
        calibration_images: Most training images that a form may see.
        min_agreement: Least share of test images on which a form must name PyTorch's class to be kept.
        seed: Of the choice of calibration images.

    Returns:
        The bundle's record, written to `folder`.

    Raises:
        GraftlineError: The model was trained on other data or cannot be exported, or a folder is not what it should be.
    """
    data, record = read_record(dataset, DataVersion), read_record(model, TrainedModel)
    require_same_data(dataset, data, model, record)
    source = _Source(dataset, data, record, load_network(model, record), read_choice(model))
    with ThreadPoolExecutor(1) as pool:
        runtime = pool.submit(fetch_runtime)  # a download, at the first time: it goes on beside the work
        forms = _make_forms(folder, source, calibration_images, seed)
        figures = _measure(folder, source, forms.made)
        decision = _decide(figures, forms.problems, min_agreement)
        variants = _settle(folder, figures.variants.values(), decision)
        shipped = next(form for form in FORMS if form.name == decision.shipped)
        web_page = _write_page(folder, runtime, source.record, shipped, figures.variants[shipped.name])
    write_atomic(folder / LABELS_FILE, "".join(f"{name}\n" for name in source.record.classes))
    _write_parity(folder, variants, figures.differences, decision, min_agreement)
    return EdgeBundle(
        data_version=source.data.version,
        model=source.record.sha256,
        classes=source.record.classes,
        variants=variants,
        shipped=shipped.file,
        why=decision.why,
        web_page=web_page,
        files=list_files(folder),
    ).write(folder)


def _make_forms(folder: Path, source: _Source, calibration_images: int, seed: int) -> _Forms:
    """Writes lineage.json and the file of every form; that of the reference must succeed."""
    record = source.record
    lineage = describe_lineage(source.data, record, source.choice)
    write_json(folder / LINEAGE_FILE, lineage)
    say(f"exporting {record.plan.backbone} to ONNX")
    network = export_network(source.network, record.image_size, record.plan.backbone)
    exported = Exported(network, record, _choose_images(source, calibration_images, seed))
    reference, *others = FORMS
    forms = _Forms({reference.name: _make(reference, exported, folder, lineage)}, {})
    for form in others:
        try:
            forms.made[form.name] = _make(form, exported, folder, lineage)
        except Exception as error:  # converters raise many kinds; all mean that there is no such form
            (folder / form.file).unlink(missing_ok=True)
            first = str(error).strip().split("\n")[0].replace(f"{folder}/", "")
            forms.problems[form.name] = f"{form.name} could not be made ({type(error).__name__}: {first})"
    return forms


def _make(form: Form, exported: Exported, folder: Path, lineage: dict[str, Any]) -> Runner:
    path = folder / form.file
    own = replace(exported, network=copy.deepcopy(exported.network))  # some converters change what they are given
    write_model(path, form.make(own), lineage, exported.record, precision=form.precision)
    return form.run(path)


def _choose_images(source: _Source, count: int, seed: int) -> np.ndarray:
    """Returns up to `count` training images at random, uint8 [n, side, side, 3]."""
    images = load_images(source.dataset, "train", source.record.image_size, source.record.interpolation)
    chosen = np.random.default_rng(seed).permutation(len(images))[:count]
    return images[np.sort(chosen)]


def _measure(folder: Path, source: _Source, made: Mapping[str, Runner]) -> _Figures:
    record = source.record
    labels = open_split(source.dataset, "test").labels
    images = load_images(source.dataset, "test", record.image_size, record.interpolation)
    say(f"comparing {', '.join([_TORCH, *made])} on {len(labels)} test images")
    outputs = run_forms(made, source.dataset, labels)
    expected = predict(source.network, images, record.mean, record.std)
    say("measuring latency on one thread")
    runners = {_TORCH: torch_runner(source.network, record), **made}
    latency = measure_latency(runners, next(iter_images(source.dataset, "test")))
    variants = {
        name: _variant(folder, name, record, latency[name], compare(outputs.get(name, expected), expected, labels))
        for name in runners
    }
    reference, *others = made
    differences = {name: accuracy_difference(outputs[name], outputs[reference], labels) for name in others}
    return _Figures(variants, differences)


def _variant(folder: Path, name: str, record: TrainedModel, latency: Interval, parity: Parity) -> Variant:
    file = next((form.file for form in FORMS if form.name == name), "")
    size = (folder / file).stat().st_size if file else record.weights.bytes
    return Variant(name=name, file=file, bytes=size, latency_ms=latency, **vars(parity))


def _decide(figures: _Figures, problems: Mapping[str, str], min_agreement: float) -> Decision:
    reference, *others = [form.name for form in FORMS]
    outcomes = [
        Unmade(name, problems[name])
        if name in problems
        else Measured(figures.variants[name], figures.differences[name])
        for name in others
    ]
    return decide(figures.variants[reference], outcomes, Rules(min_agreement))


def _settle(folder: Path, variants: Iterable[Variant], decision: Decision) -> list[Variant]:
    """Takes the files that are not kept out of the bundle; what was measured stays."""
    settled = []
    for variant in variants:
        if variant.file and variant.name not in decision.kept:
            (folder / variant.file).unlink()
            variant = variant.model_copy(update={"file": ""})
        settled.append(variant)
    return settled


def _write_page(folder: Path, runtime: "Future[Path]", record: TrainedModel, form: Form, measured: Variant) -> str:
    """Writes `web/` if the runtime could be had; returns what the record says about it."""
    facts = {
        "model": record.plan.backbone,
        "file": form.file,
        "bytes": measured.bytes,
        "sha256": sha256_file(folder / form.file),
        "precision": form.precision,
        "labels": record.classes,
        "data_version": record.data_version,
        "accuracy": measured.accuracy.model_dump(),
    }
    try:
        write_page(folder, runtime.result(), facts)
    except PageUnavailableError as error:
        return f"left out: {error}"
    return _PAGE


def _write_parity(
    folder: Path,
    variants: Iterable[Variant],
    differences: Mapping[str, Interval],
    decision: Decision,
    min_agreement: float,
) -> None:
    reference, *others = [form.name for form in FORMS]
    told = {name: difference.model_dump(mode="json") for name, difference in differences.items()}
    content = {
        "variants": [variant.model_dump(mode="json") for variant in variants],
        **{f"{name}_minus_{reference}_accuracy": told.get(name) for name in others},
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
