"""A sheet of real training images beside views that the policy makes of them."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from graftline.augmentation.apply import Augmenter
from graftline.records import AugmentationPolicy

_SIDE = 128
_VIEWS = 7
_GAP = 4


def write_preview(path: Path, images: np.ndarray, policy: AugmentationPolicy, seed: int) -> None:
    """Writes a PNG: one row per image, the original first, then random views.

    Args:
        path: File to write.
        images: uint8 [rows, side, side, 3].
        policy: What the views are made by.
        seed: Of the views.
    """
    augment = Augmenter(policy, _SIDE, "bilinear")
    rows = []
    for index, image in enumerate(images):
        original = np.asarray(Image.fromarray(image).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC))
        batch = torch.from_numpy(np.repeat(image[None], _VIEWS, axis=0))
        rows.append(
            _strip(
                [original, *augment(batch, range(seed + index * _VIEWS, seed + (index + 1) * _VIEWS)).numpy()], axis=1
            )
        )
    Image.fromarray(_strip(rows, axis=0)).save(path)


def _strip(tiles: list[np.ndarray], axis: int) -> np.ndarray:
    """Joins tiles with white gaps between them."""
    shape = list(tiles[0].shape)
    shape[axis] = _GAP
    gap = np.full(shape, 255, dtype=np.uint8)
    parts = [part for tile in tiles for part in (tile, gap)]
    return np.concatenate(parts[:-1], axis=axis)
