"""The step `evaluate`: what the model is worth on images it has never seen."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from graftline.errors import check_choice, check_seed
from graftline.files import output_folder
from graftline.progress import say, track
from graftline.records import DataVersion, Evaluation, TrainedModel, list_files, read_choice, read_record

if TYPE_CHECKING:
    import numpy as np

    from graftline.data.dataset import Split
    from graftline.evaluation.measurements import Measurements
    from graftline.evaluation.mistakes import Mistake
    from graftline.evaluation.report import Report


def evaluate(
    dataset: Path, model: Path, out: Path, *, split: Literal["test", "validation"] = "test", seed: int = 0
) -> Evaluation:
    """Measures a model on the test images, with intervals, and writes the report.

    Args:
        dataset: Folder that `version_data` wrote; must be the version that the model was trained on.
        model: Folder that `fine_tune` wrote.
        out: Folder to write to (`report.html`, `metrics.json`, `predictions.parquet`, figures, `plots/`).
        split: The images to measure on. Weights were chosen on the validation images, so only the test is unbiased.
        seed: Of the bootstrap intervals.

    Returns:
        The record: every metric, over all images, by class and by domain, each with its 95 % interval.

    Raises:
        GraftlineError: The model was trained on another data version or with other classes, its weights are missing or
            changed, its probabilities are not numbers, or `out` holds something else.
        DataError: The split has no images.
    """
    check_choice("split", split, ("test", "validation"))
    check_seed(seed)
    from graftline.evaluation.measurements import evaluate_predictions
    from graftline.models.trained import require_same_data

    data, trained = read_record(dataset, DataVersion), read_record(model, TrainedModel)
    require_same_data(dataset, data, model, trained)
    opened, probabilities = _predict(dataset, model, trained, split)
    measured = evaluate_predictions(probabilities, opened.labels, opened.domains, data.classes, seed, opened.groups)
    with output_folder(out) as folder:
        report = _report(dataset, data, model, trained, opened, probabilities, measured)
        _write_files(folder, report, opened, probabilities)
        record = Evaluation(
            data_version=data.version,
            model=trained.sha256,
            split=split,
            metrics=measured.metrics,
            classes=measured.classes,
            confusion=measured.confusion.tolist(),
            accuracy_by_domain=measured.accuracy_by_domain,
            files=list_files(folder),
        ).write(folder)
    say(f"{split} accuracy {record.accuracy}, macro-F1 {record.macro_f1}; report: {out / 'report.html'}")
    return record


def _predict(dataset: Path, model: Path, trained: TrainedModel, split: str) -> "tuple[Split, np.ndarray]":
    from graftline.data.dataset import load_images, open_split
    from graftline.models.predict import predict
    from graftline.models.trained import load_network

    opened = open_split(dataset, split)
    network = load_network(model, trained)
    images = load_images(dataset, split, trained.image_size, trained.interpolation)
    return opened, predict(network, images, trained.mean, trained.std)


def _report(
    dataset: Path,
    data: DataVersion,
    model: Path,
    trained: TrainedModel,
    split: "Split",
    probabilities: "np.ndarray",
    measured: "Measurements",
) -> "Report":
    from graftline.evaluation import figures
    from graftline.evaluation.cautions import list_cautions
    from graftline.evaluation.report import Report

    curves, error = model / "curves.png", measured.metrics["calibration_error"]
    return Report(
        measured=measured,
        data=data,
        model=trained,
        split=split.name,
        cautions=list_cautions(measured, trained, split.name),
        mistakes=_find_mistakes(dataset, data, split, probabilities),
        confusion=figures.draw_confusion(measured.confusion, data.classes),
        reliability=figures.draw_reliability(measured.reliability, error, len(data.classes)),
        curves=curves.read_bytes() if curves.is_file() else None,
        choice=read_choice(model),
    )


def _write_files(folder: Path, report: "Report", split: "Split", probabilities: "np.ndarray") -> None:
    from graftline.evaluation import figures, outputs
    from graftline.evaluation.report import render_report

    (folder / "report.html").write_text(render_report(report), encoding="utf-8")
    (folder / "confusion.png").write_bytes(report.confusion)
    (folder / "reliability.png").write_bytes(report.reliability)
    (folder / "per_class.png").write_bytes(figures.draw_per_class(report.measured.classes))
    if report.mistakes:
        (folder / "mistakes.png").write_bytes(figures.draw_mistakes(report.mistakes))
    outputs.write_metrics(folder / "metrics.json", report.measured)
    outputs.write_plots(folder / "plots", report.measured, split.labels, probabilities.argmax(axis=1))
    outputs.write_predictions(folder / outputs.PREDICTIONS_FILE, split, probabilities)


def _find_mistakes(dataset: Path, data: DataVersion, split: "Split", probabilities: "np.ndarray") -> "list[Mistake]":
    from graftline.data.dataset import iter_images
    from graftline.data.shards import read_columns
    from graftline.evaluation.mistakes import confident_mistakes, show_mistakes

    chosen = confident_mistakes(probabilities, split.labels)
    names = list(zip(split.ids, read_columns(dataset, data, ["sha256"], split.name)["sha256"].to_pylist(), strict=True))
    images = track(iter_images(dataset, split.name), "picking mistakes", total=len(split.ids))
    return show_mistakes(chosen, probabilities, split.labels, data.classes, names, images)
