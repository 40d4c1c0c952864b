"""Labelled images in memory."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Images:
    """One split in memory.

    Attributes:
        pixels: uint8 [n, side, side, 3].
        labels: int64 [n].
    """

    pixels: np.ndarray
    labels: np.ndarray
