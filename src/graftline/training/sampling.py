"""Which images make a batch, and the seeds of their views.

Everything follows from the run's seed, the epoch and the place in the batch, never from the state of a generator: a
resumed run repeats what an uninterrupted one would have done, on any number of devices.
"""

from collections.abc import Sequence

import numpy as np

from graftline.records import Balance

_EPOCHS = 1_000
_PLACES = 1_000_000


def make_batches(labels: np.ndarray, batch_size: int, seed: int, epoch: int, balanced: bool) -> list[np.ndarray]:
    """Shuffles the images into batches; a last incomplete one is left out unless it is the only one.

    Args:
        labels: int [n].
        batch_size: Images per batch.
        seed: Of the run.
        epoch: From 0.
        balanced: Draw with replacement so that every class comes equally often.

    Returns:
        int [batch_size] indices for each batch.
    """
    random = np.random.default_rng([seed, epoch])
    images = len(labels)
    if balanced:
        counts = np.bincount(labels)
        chance = 1 / counts[labels]
        order = random.choice(images, images, p=chance / chance.sum())
    else:
        order = random.permutation(images)
    whole = max(1, images // batch_size)
    return [np.sort(order[index * batch_size : (index + 1) * batch_size]) for index in range(whole)]


def view_seeds(seed: int, epoch: int, batch: int, places: Sequence[int], batch_size: int) -> list[int]:
    """Returns the seed of each image's view.

    Args:
        seed: Of the run.
        epoch: From 0.
        batch: Number of the batch in the epoch.
        places: Places of the images in the batch.
        batch_size: Images per batch.
    """
    start = (seed * _EPOCHS + epoch) * _PLACES + batch * batch_size
    return [start + place for place in places]


def image_weights(labels: np.ndarray, balance: Balance) -> np.ndarray:
    """Returns float32 [n], what each image counts where losses are compared: with any balance, every class alike."""
    if balance == "none":
        return np.ones(len(labels), dtype=np.float32)
    return balanced_weights(labels, int(labels.max()) + 1)[labels]


def balanced_weights(labels: np.ndarray, classes: int) -> np.ndarray:
    """Returns float32 [classes] weights inverse to the classes' frequencies, 1 on average over the images."""
    counts = np.bincount(labels, minlength=classes)
    return (len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1))).astype(np.float32)
