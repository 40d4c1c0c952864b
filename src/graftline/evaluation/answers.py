"""What a model says to the images of a split: what every metric is computed from."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True, eq=False)
class Answers:
    """Probabilities and the truth, with what follows from them.

    Attributes:
        probabilities: float [n, k], rows sum to 1, n > 0.
        labels: int64 [n], indices of the true classes.
        seed: Of whatever an interval draws.
    """

    probabilities: np.ndarray
    labels: np.ndarray
    seed: int = 0

    @property
    def k(self) -> int:
        """Number of classes."""
        return int(self.probabilities.shape[1])

    @cached_property
    def predictions(self) -> np.ndarray:
        """The most probable class of each image, int64 [n]; of equals the first."""
        return self.probabilities.argmax(axis=1)

    @cached_property
    def confidence(self) -> np.ndarray:
        """Its probability, float64 [n]."""
        return self.probabilities.max(axis=1).astype(np.float64)

    @cached_property
    def correct(self) -> np.ndarray:
        """Whether it is the true class, bool [n]."""
        return self.predictions == self.labels

    @cached_property
    def losses(self) -> np.ndarray:
        """The negative natural logarithm of the true class's probability, float64 [n].

        As scikit-learn's `log_loss`: probabilities are moved into [e, 1 - e], e the step of their float type at 1, so
        that one impossible truth does not make the mean infinite.
        """
        step = np.finfo(self.probabilities.dtype).eps
        of_truth = self.probabilities[np.arange(len(self.labels)), self.labels]
        return -np.log(np.clip(of_truth, step, 1 - step).astype(np.float64))

    @cached_property
    def confusion(self) -> np.ndarray:
        """Numbers of images by true class (row) and predicted class (column), int64 [k, k]."""
        pairs = np.bincount(self.labels * self.k + self.predictions, minlength=self.k * self.k)
        return pairs.reshape(self.k, self.k)
