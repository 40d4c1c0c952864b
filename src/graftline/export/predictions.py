"""What an edge model answers to any images, as a table."""

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from graftline.errors import DataError, GraftlineError
from graftline.models.edge import EdgeModel, answer_files
from graftline.records import EdgeBundle, check_files, read_record


@dataclass(frozen=True)
class Predictions:
    """A model's answers to some images.

    Attributes:
        csv: A header and one line per image that could be read: its name, the most probable class, and the probability
            of each class in the order of the outputs.
        unread: Why an image could not be read, by its name.
        images: Number of all images.
    """

    csv: str
    unread: dict[str, str]
    images: int

    def require_whole(self) -> None:
        """Checks that every image could be read.

        Raises:
            DataError: Some could not; it names them.
        """
        if self.unread:
            told = [f"{name} ({reason})" for name, reason in self.unread.items()]
            raise DataError(f"{len(told)} of {self.images} images cannot be read and have no line: {', '.join(told)}")


def open_model(path: Path) -> EdgeModel:
    """Opens an edge model.

    Args:
        path: An `.onnx` file that `graftline export_onnx` wrote, wherever it lies now, or its bundle folder.

    Raises:
        GraftlineError: The path is missing, is no bundle, holds another file than was measured, or does not run.
    """
    if path.is_dir():
        bundle = read_record(path, EdgeBundle)
        shipped = [entry for entry in bundle.files if entry.file == bundle.shipped]
        check_files(path, shipped, "run `graftline export_onnx` again")
        return EdgeModel(path / bundle.shipped)
    if not path.is_file():
        raise GraftlineError(f"{path} does not exist: give an .onnx file of graftline's, or the bundle folder")
    return EdgeModel(path)


def predict_files(model: EdgeModel, images: Mapping[str, Path]) -> Predictions:
    """Asks a model about images.

    Args:
        model: Which.
        images: Where each lies, by the name that it has in the table.

    Raises:
        DataError: None of them can be read.
        GraftlineError: The model's file does not name its classes.
    """
    table, unread = io.StringIO(), {}
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["image", "class", *model.classes])
    answers = answer_files(model, list(images.values()), "predicting")
    for name, answer in zip(images, answers, strict=True):
        if isinstance(answer, str):
            unread[name] = answer
        else:
            probabilities = [f"{probability:.6f}" for probability in answer]
            writer.writerow([name, model.classes[int(answer.argmax())], *probabilities])
    if len(unread) == len(images):
        name, reason = next(iter(unread.items()))
        raise DataError(f"none of the {len(images)} images can be read: {name}: {reason}")
    return Predictions(table.getvalue(), unread, len(images))
