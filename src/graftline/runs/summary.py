"""What a run reached: the table at its end, and `summary.json`."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from graftline.files import link_or_copy, write_json
from graftline.records import (
    Choice,
    DataVersion,
    EdgeBundle,
    Evaluation,
    Registration,
    TrainedModel,
    read_choice,
    read_record,
    with_ends,
)

SUMMARY = "summary.json"
_BESIDE = {"shown": False}


@dataclass(frozen=True)
class Records:
    """The records of a run's steps, which hold more than the summary's figures."""

    data: DataVersion
    model: TrainedModel
    evaluation: Evaluation
    bundle: EdgeBundle
    registration: Registration
    choice: Choice | None  # None when the model was the only candidate


@dataclass(frozen=True)
class Summary:
    """The figures of a run; `summary.json` holds all but those of `folder`, `records` and `published`.

    Attributes:
        data_version: Version of the data.
        backbone: timm name of the grafted backbone.
        strategy: How it was transferred.
        test_accuracy: On the test images.
        test_accuracy_interval: Ends of its 95 % interval.
        test_macro_f1: On the test images.
        test_metrics: All metrics on the test images with the ends of their 95 % intervals, as in `metrics.json`.
        int8_agreement: Share of test images on which int8 has the same top class as torch; None without int8.
        int8_accuracy: On the test images; None without int8.
        fp32_bytes: Size of the fp32 ONNX file.
        int8_bytes: Size of the int8 ONNX file; None without int8.
        fp32_ms: Median milliseconds for one image on one thread.
        int8_ms: The same; None without int8.
        torch_ms: The same in torch.
        variants: Every form that was measured, torch included, with its figures as in the bundle's record.
        registry_version: Version in the model registry.
        alias: champion or challenger.
        seconds: Wall-clock time of the run.
        peak_memory_bytes: Highest sum of proportional set sizes over the run's process and all it started, the
            embedded store included, sampled every two seconds; 0 where the system has no `/proc`, or the steps ran in
            containers.
        report: Path of the HTML report.
        bundle: Path of the edge bundle.
        folder: The run's folder.
        records: The records of its steps.
        published: Names and accuracies of others on the same data.
    """

    data_version: str
    backbone: str
    strategy: str
    test_accuracy: float
    test_accuracy_interval: tuple[float, float]
    test_macro_f1: float
    test_metrics: dict[str, float]
    int8_agreement: float | None
    int8_accuracy: float | None
    fp32_bytes: int
    int8_bytes: int | None
    fp32_ms: float
    int8_ms: float | None
    torch_ms: float
    variants: list[dict[str, object]]
    registry_version: str
    alias: str
    seconds: float
    peak_memory_bytes: int
    report: str
    bundle: str
    folder: Path = field(metadata=_BESIDE)
    records: Records = field(metadata=_BESIDE, repr=False)
    published: Sequence[tuple[str, float]] = field(metadata=_BESIDE)

    def figures(self) -> dict[str, object]:
        """Returns what `summary.json` holds."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.metadata.get("shown", True)}

    @property
    def path(self) -> Path:
        """Where `summary.json` lies."""
        return self.folder / SUMMARY


def summarise(
    folder: Path,
    outputs: Mapping[str, Path],
    seconds: float,
    peak_memory_bytes: int,
    published: Sequence[tuple[str, float]] = (),
) -> Summary:
    """Puts the report, the bundle and `summary.json` into a run's folder.

    Args:
        folder: The run's folder.
        outputs: Folders of the steps' outputs: dataset, model, evaluation, bundle, registration.
        seconds: Wall-clock time of the run.
        peak_memory_bytes: As in `Summary`.
        published: Names and accuracies of others on the same data.

    Returns:
        The summary, which has been written.
    """
    records = Records(
        read_record(outputs["dataset"], DataVersion),
        read_record(outputs["model"], TrainedModel),
        read_record(outputs["evaluation"], Evaluation),
        read_record(outputs["bundle"], EdgeBundle),
        read_record(outputs["registration"], Registration),
        read_choice(outputs["model"]),
    )
    shutil.rmtree(folder / "bundle", ignore_errors=True)  # of a run on a cluster that was shown before
    (folder / "report.html").unlink(missing_ok=True)
    shutil.copytree(outputs["bundle"], folder / "bundle", copy_function=link_or_copy)
    link_or_copy(str(outputs["evaluation"] / "report.html"), str(folder / "report.html"))
    summary = _collect(folder, records, seconds, peak_memory_bytes, published)
    write_json(summary.path, summary.figures())
    return summary


def _collect(
    folder: Path, records: Records, seconds: float, peak: int, published: Sequence[tuple[str, float]]
) -> Summary:
    torch, fp32, int8 = (records.bundle.variant(name) for name in ("torch", "fp32", "int8"))
    assert torch and fp32, "export_onnx always measures both"
    accuracy = records.evaluation.accuracy
    return Summary(
        data_version=records.data.version,
        backbone=records.model.plan.backbone,
        strategy=records.model.plan.strategy,
        test_accuracy=accuracy.value,
        test_accuracy_interval=(accuracy.low, accuracy.high),
        test_macro_f1=records.evaluation.macro_f1.value,
        test_metrics=with_ends(records.evaluation.metrics),
        int8_agreement=int8.agreement.value if int8 else None,
        int8_accuracy=int8.accuracy.value if int8 else None,
        fp32_bytes=fp32.bytes,
        int8_bytes=int8.bytes if int8 else None,
        fp32_ms=fp32.latency_ms.value,
        int8_ms=int8.latency_ms.value if int8 else None,
        torch_ms=torch.latency_ms.value,
        variants=[variant.model_dump(mode="json") for variant in records.bundle.variants],
        registry_version=records.registration.version,
        alias=records.registration.alias,
        seconds=round(seconds, 1),
        peak_memory_bytes=peak,
        report=str(folder / "report.html"),
        bundle=str(folder / "bundle"),
        folder=folder,
        records=records,
        published=published,
    )
