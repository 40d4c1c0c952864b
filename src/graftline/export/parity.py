"""Do the exported files say what the PyTorch model says? Measured on the test images, as they are, one at a time."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from graftline.data.dataset import iter_images
from graftline.data.parallel import map_threads
from graftline.export.latency import Runner
from graftline.intervals import paired_difference, wilson
from graftline.progress import track
from graftline.records import Interval


@dataclass(frozen=True)
class Parity:
    """How one variant does on the test images, on its own and beside the PyTorch model.

    Attributes:
        accuracy: Share of right top classes, Wilson interval.
        agreement: Share of images with the same top class as PyTorch, Wilson interval.
        max_probability_gap: Largest difference of any probability from PyTorch's.
    """

    accuracy: Interval
    agreement: Interval
    max_probability_gap: float


def run_forms(made: Mapping[str, Runner], dataset: Path, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Runs every form over the test images at their original sizes, on all cores.

    Args:
        made: By name of the form; several threads call each.
        dataset: Dataset folder.
        labels: The test labels; their number is the number of images.

    Returns:
        float32 [n, classes] probabilities by name.
    """
    rows = map_threads(lambda image: [run(image[None])[0] for run in made.values()], iter_images(dataset, "test"))
    outputs = list(track(rows, "checking parity", total=len(labels)))
    return {name: np.stack([row[i] for row in outputs]) for i, name in enumerate(made)}


def compare(probabilities: np.ndarray, reference: np.ndarray, labels: np.ndarray) -> Parity:
    """Compares a variant's probabilities [n, classes] with PyTorch's and with the labels [n]."""
    top = probabilities.argmax(1)
    return Parity(
        accuracy=wilson(int((top == labels).sum()), len(labels)),
        agreement=wilson(int((top == reference.argmax(1)).sum()), len(labels)),
        max_probability_gap=float(np.abs(probabilities - reference).max()),
    )


def accuracy_difference(probabilities: np.ndarray, reference: np.ndarray, labels: np.ndarray) -> Interval:
    """Returns a variant's accuracy minus another's on the same images, with its paired 95 % interval."""
    return paired_difference(probabilities.argmax(1) == labels, reference.argmax(1) == labels)
