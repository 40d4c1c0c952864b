"""The HTML report: one file that needs nothing else, readable on a light or dark screen, on paper, and by ear."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from PIL import Image

from graftline import __version__
from graftline.evaluation.cautions import calibration_in_words
from graftline.evaluation.measurements import Measurements
from graftline.evaluation.metrics import CLASS_METRICS, METRICS, Metric
from graftline.evaluation.mistakes import Mistake
from graftline.records import Choice, DataVersion, Settings, TrainedModel, TransferPlan
from graftline.words import percent, points, spread

_MOST_CONFUSIONS = 12
_NARROW_SPACE = "\u202f"  # which does not break


@dataclass(frozen=True)
class Report:
    """What the report tells.

    Attributes:
        measured: The measurements.
        data: The data version.
        model: The model's record.
        split: The split that was measured.
        cautions: Sentences to keep in mind.
        mistakes: The most confident mistakes; empty when there are none.
        confusion: PNG of the confusion matrix.
        reliability: PNG of the reliability diagram.
        curves: PNG of the training curves; None when the model has none.
        choice: Among which candidates the model was chosen, and why; None when it was the only one.
    """

    measured: Measurements
    data: DataVersion
    model: TrainedModel
    split: str
    cautions: list[str]
    mistakes: list[Mistake]
    confusion: bytes
    reliability: bytes
    curves: bytes | None
    choice: Choice | None = None


def render_report(report: Report) -> str:
    """Renders the report as one HTML document with its images inside and no link to anywhere."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    pictures = {"png": _png_uri, "jpeg": _jpeg_uri}
    words = {"percent": percent, "spread": spread, "points": points, "plain": _plain, "capital": _capital}
    environment.filters.update(words | pictures | {"setting": _setting})
    source = (files("graftline.evaluation") / "report.html.j2").read_text("utf-8")
    measured = report.measured
    right = int(np.trace(measured.confusion))
    ranked = sorted(enumerate(measured.classes), key=lambda pair: pair[1].metrics["recall"].value)
    metrics = [metric for metric in METRICS if metric.key in measured.metrics]
    class_metrics = [metric for metric in CLASS_METRICS if metric.key in measured.classes[0].metrics]
    html = environment.from_string(source).render(
        report=report,
        metrics=metrics,
        class_metrics=class_metrics,
        methods=_methods([*metrics, *class_metrics]),
        ranked_classes=ranked,
        right=right,
        wrong=measured.accuracy.n - right,
        confusions=frequent_confusions(measured.confusion, report.model.classes),
        calibration=calibration_in_words(measured),
        settings=_settings(report.model.plan),
        version=__version__,
    )
    return html.replace(" %", f"{_NARROW_SPACE}%")


def frequent_confusions(confusion: np.ndarray, classes: list[str]) -> list[tuple[str, str, int, float]]:
    """Returns (true, predicted, images, share of the true class) of the most frequent mistakes, most frequent first."""
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    support = confusion.sum(axis=1)
    order = np.argsort(-wrong, axis=None, kind="stable")[:_MOST_CONFUSIONS]
    pairs = [divmod(int(index), len(classes)) for index in order]
    return [(classes[i], classes[j], int(wrong[i, j]), wrong[i, j] / support[i]) for i, j in pairs if wrong[i, j]]


def _methods(metrics: Sequence[Metric[Any]]) -> list[str]:
    """Tells how the intervals are made, metrics of one way together: "Accuracy, recall: Wilson score interval"."""
    titles: dict[str, list[str]] = {}
    for metric in metrics:
        titles.setdefault(metric.interval, []).append(metric.title)
    return [f"{_capital(', '.join(named))}: {interval}" for interval, named in titles.items()]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _plain(term: str) -> str:
    return term.replace("_", " ")


def _settings(plan: TransferPlan) -> list[tuple[str, Any, str | None]]:
    """Returns name, value and meaning of the settings in force."""
    return [(name, value, Settings.model_fields[name].description) for name, value in plan.in_force().items()]


def _setting(value: float | str | Sequence[float]) -> str:
    """Returns a setting's value as `--settings` takes it."""
    if isinstance(value, (bool, str)):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, (int, float)) else f"[{', '.join(map(_setting, value))}]"


def _png_uri(content: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def _jpeg_uri(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=88)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
