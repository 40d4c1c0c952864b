"""What is about to be registered: a bundle and its evaluation, checked against each other, told as tags and metrics."""

import json
import shutil
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from graftline.errors import GraftlineError
from graftline.files import sha256_file
from graftline.records import (
    RECORD_FILE,
    DataVersion,
    EdgeBundle,
    Evaluation,
    FileEntry,
    Settings,
    TrainedModel,
    Variant,
    check_files,
    read_record,
    with_ends,
)
from graftline.registry.bundles import check_bundle
from graftline.registry.versions import BUNDLE_FOLDER, MODEL_FOLDER

_EVALUATION_FILES = ("report.html", "metrics.json")
_MODEL_PARAMS = {"data_version", "seed", "kept_epoch", "parameters"}
_PLAN_PARAMS = {"backbone", "strategy", "champion", *Settings.model_fields}


@dataclass(frozen=True)
class Candidate:
    """A bundle and the evaluation of the model it was made from.

    Attributes:
        folder: The bundle's folder.
        bundle: Its record; every file was checked against it.
        evaluation_folder: The evaluation's folder.
        evaluation: Its record.
        model: The model's record, from the bundle's `lineage.json`.
        model_folder: The model's folder, which goes into the registry too; None: its weights stay where they are.
    """

    folder: Path
    bundle: EdgeBundle
    evaluation_folder: Path
    evaluation: Evaluation
    model: TrainedModel
    model_folder: Path | None = None

    @property
    def shipped(self) -> Path:
        """The file to deploy."""
        return self.folder / self.bundle.shipped

    def tags(self) -> dict[str, str]:
        """The lineage, as the registry's version carries it."""
        return {
            "data_version": self.bundle.data_version,
            "bundle_sha256": self.bundle.sha256,
            "model_sha256": self.bundle.model,
            "evaluation_sha256": self.evaluation.sha256,
            "shipped": self.bundle.shipped,
            "shipped_sha256": sha256_file(self.shipped),
            "classes": json.dumps(self.bundle.classes),
            "accuracy": str(self.evaluation.accuracy),
            "shipped_accuracy": str(_shipped_variant(self.bundle).accuracy),
            "backbone": self.model.plan.backbone,
            "strategy": self.model.plan.strategy,
            "learned_before": json.dumps(self.model.learned_before),
            "model_files": json.dumps([entry.model_dump() for entry in self._model_files()]),
            "graftline_version": version("graftline"),
        }

    def params(self) -> dict[str, str]:
        """How the model was made, as the run's parameters."""
        plan = self.model.plan.model_dump(include=_PLAN_PARAMS)
        model = self.model.model_dump(include=_MODEL_PARAMS)
        return {key: str(value) for key, value in (model | plan).items()}

    def metrics(self) -> dict[str, float]:
        """Numbers of the run; latencies in milliseconds, sizes in bytes."""
        shipped = _shipped_variant(self.bundle)
        return {
            **with_ends(self.evaluation.metrics),
            **with_ends({"shipped_accuracy": shipped.accuracy}),
            "shipped_agreement": shipped.agreement.value,
            "shipped_latency_ms": shipped.latency_ms.value,
            "shipped_bytes": shipped.bytes,
        }

    def lay_out(self, folder: Path) -> None:
        """Copies what is uploaded into `folder`: `bundle/` (only files of its record), `evaluation/` and `model/`."""
        for file in (RECORD_FILE, *(entry.file for entry in self.bundle.files)):
            _copy(self.folder / file, folder / BUNDLE_FOLDER / file)
        if self.model_folder:
            for entry in self._model_files():
                _copy(self.model_folder / entry.file, folder / MODEL_FOLDER / entry.file)
        for file in (RECORD_FILE, *_EVALUATION_FILES):
            _copy(self.evaluation_folder / file, folder / "evaluation" / file)

    def _model_files(self) -> list[FileEntry]:
        if self.model_folder is None:
            return []
        path = self.model_folder / RECORD_FILE
        return [
            FileEntry(file=RECORD_FILE, sha256=sha256_file(path), bytes=path.stat().st_size),
            self.model.weights,
        ]


def read_candidate(dataset: Path, bundle: Path, evaluation: Path, model: Path | None = None) -> Candidate:
    """Reads and checks what is about to be registered.

    Raises:
        GraftlineError: A folder is not what it should be, a file was changed, or they do not belong together.
    """
    data, shipped, measured = (
        read_record(dataset, DataVersion),
        check_bundle(bundle),
        read_record(evaluation, Evaluation),
    )
    if shipped.data_version != data.version:
        raise GraftlineError(
            f"the bundle {bundle} was made from data version {shipped.data_version}, but {dataset} is {data.version}: "
            "give the dataset the model was trained on, or run `graftline export_onnx` with this one"
        )
    if (measured.model, measured.data_version) != (shipped.model, shipped.data_version):
        raise GraftlineError(
            f"the evaluation {evaluation} is of another model or data version than the bundle {bundle}: "
            "run `graftline evaluate` with the model the bundle was made from"
        )
    if measured.split != "test":
        raise GraftlineError(
            f"the evaluation {evaluation} read the {measured.split} split: run `graftline evaluate` on test"
        )
    kept = [entry for entry in measured.files if entry.file in _EVALUATION_FILES]
    check_files(evaluation, kept, "run `graftline evaluate` again")
    if model:
        _check_model(model, shipped)
    return Candidate(bundle, shipped, evaluation, measured, _model(bundle, shipped), model)


def _check_model(folder: Path, bundle: EdgeBundle) -> None:
    record = read_record(folder, TrainedModel)
    if record.sha256 != bundle.model:
        raise GraftlineError(
            f"the model {folder} is not the one the bundle was made from ({record.sha256[:16]}, not "
            f"{bundle.model[:16]}): give that one, or run `graftline export_onnx` with this one"
        )
    check_files(folder, [record.weights], "run `graftline fine_tune` again")


def _model(folder: Path, bundle: EdgeBundle) -> TrainedModel:
    path = folder / "lineage.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))["model"]["record"]
        model = TrainedModel.model_validate_json(json.dumps(record))  # read as JSON, it keeps the hash of its time
    except (OSError, ValueError, LookupError) as error:
        raise GraftlineError(
            f"{path} does not tell which model the bundle was made from: run `graftline export_onnx` again"
        ) from error
    if model.sha256 != bundle.model:
        raise GraftlineError(f"{path} is of another model than the bundle's record: run `graftline export_onnx` again")
    return model


def _shipped_variant(bundle: EdgeBundle) -> Variant:
    return next(variant for variant in bundle.variants if variant.file == bundle.shipped)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
