"""The most confident mistakes as pictures: wrong labels, classes that overlap, or a model misled."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

SIDE = 320


@dataclass(frozen=True)
class Mistake:
    """One wrongly classified image.

    Attributes:
        id: Content identity of the image.
        file_sha256: SHA-256 of its file, which `files.csv` of the dataset lists beside its path.
        label: Index of the true class.
        prediction: Index of the predicted class.
        true: Name of the true class.
        predicted: Name of the predicted class.
        probability: Of the predicted class.
        picture: The image as it is, made no larger than 320 pixels.
    """

    id: str
    file_sha256: str
    label: int
    prediction: int
    true: str
    predicted: str
    probability: float
    picture: Image.Image


def confident_mistakes(probabilities: np.ndarray, labels: np.ndarray, most: int = 24) -> np.ndarray:
    """Returns the indices of up to `most` wrongly classified images, the most confident first, int64 [m]."""
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    return wrong[np.argsort(-probabilities[wrong].max(axis=1), kind="stable")][:most]


def show_mistakes(
    chosen: np.ndarray,
    probabilities: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str],
    names: Sequence[tuple[str, str]],
    images: Iterable[np.ndarray],
) -> list[Mistake]:
    """Describes chosen mistakes with their pictures.

    Args:
        chosen: int64 [m], indices of images, in the order wanted.
        probabilities: float [n, k].
        labels: int64 [n].
        classes: The k names.
        names: Content identity and file's SHA-256 of each of the n images.
        images: The n images at their own size, uint8 [H, W, 3]; read only as far as the last one chosen.
    """
    wanted = {int(index) for index in chosen}
    pictures: dict[int, Image.Image] = {}
    for index, image in enumerate(images):
        if index in wanted:
            pictures[index] = _thumbnail(image)
        if len(pictures) == len(wanted):
            break
    return [
        Mistake(
            *names[index],
            label=int(labels[index]),
            prediction=int(probabilities[index].argmax()),
            true=classes[labels[index]],
            predicted=classes[probabilities[index].argmax()],
            probability=float(probabilities[index].max()),
            picture=pictures[index],
        )
        for index in map(int, chosen)
    ]


def _thumbnail(image: np.ndarray) -> Image.Image:
    picture = Image.fromarray(image)
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return picture
