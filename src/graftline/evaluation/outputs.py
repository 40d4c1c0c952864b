"""The files of an evaluation that other tools read: metrics and plots for DVC, predictions as Parquet."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from graftline.data.dataset import Split
from graftline.evaluation.answers import Answers
from graftline.evaluation.measurements import Measurements
from graftline.files import write_atomic, write_json
from graftline.records import with_ends

PREDICTIONS_FILE = "predictions.parquet"
VALIDATION_FILE = "validation.parquet"  # the same of the validation images, in a candidate's model folder


@dataclass(frozen=True)
class Predictions:
    """What a model says to the images of a split.

    Attributes:
        ids: Content identity of each image.
        labels: int64 [n], indices of the true classes.
        probabilities: float32 [n, k].
    """

    ids: list[str]
    labels: np.ndarray
    probabilities: np.ndarray

    @property
    def right(self) -> np.ndarray:
        """Whether the top class is the image's, bool [n]."""
        return self.probabilities.argmax(axis=1) == self.labels

    @property
    def log_loss(self) -> float:
        """Mean of `Answers.losses`, as the metric of that name has it."""
        return float(Answers(self.probabilities, self.labels).losses.mean())


def write_metrics(path: Path, measured: Measurements) -> None:
    """Writes flat numbers for `dvc metrics show` and `dvc metrics diff`: values, interval ends and n."""
    write_json(path, with_ends(measured.metrics) | {"n": measured.accuracy.n})


def write_plots(folder: Path, measured: Measurements, labels: np.ndarray, predictions: np.ndarray) -> None:
    """Writes `confusion.csv` (one row an image) and `reliability.csv` (one row a bin in use) for `dvc plots`.

    Args:
        folder: Made if missing.
        measured: The measurements.
        labels: int64 [n].
        predictions: int64 [n].
    """
    names = [c.name for c in measured.classes]
    pairs = [(names[label], names[prediction]) for label, prediction in zip(labels, predictions, strict=True)]
    bins = [
        (b.confidence, b.accuracy.value, b.accuracy.low, b.accuracy.high, b.accuracy.n)
        for b in measured.reliability
        if b.accuracy.n
    ]
    _write_csv(folder / "confusion.csv", ("actual", "predicted"), pairs)
    _write_csv(folder / "reliability.csv", ("confidence", "accuracy", "accuracy_low", "accuracy_high", "n"), bins)


def write_predictions(path: Path, split: Split, probabilities: np.ndarray) -> None:
    """Writes one row an image: id, label, domain, prediction, p_0 ... p_{k-1}.

    Args:
        path: A Parquet file.
        split: The images.
        probabilities: float32 [n, k].
    """
    columns = {
        "id": pa.array(split.ids, pa.string()),
        "label": pa.array(split.labels, pa.int32()),
        "domain": pa.array(split.domains, pa.string()),
        "prediction": pa.array(probabilities.argmax(axis=1), pa.int32()),
    }
    columns |= {f"p_{i}": pa.array(column, pa.float32()) for i, column in enumerate(probabilities.T)}
    pq.write_table(pa.table(columns), path)


def read_predictions(path: Path) -> Predictions:
    """Reads what `write_predictions` wrote."""
    table = pq.read_table(path)
    columns = [table[name].to_numpy() for name in table.column_names if name.startswith("p_")]
    labels = table["label"].to_numpy().astype(np.int64)
    return Predictions(table["id"].to_pylist(), labels, np.stack(columns, axis=1))


def _write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_atomic(path, text.getvalue())
