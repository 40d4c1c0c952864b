"""MixUp and CutMix: views and labels of two images mixed."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Mix:
    """One batch's draw.

    Attributes:
        share: Of the first image, in [0, 1].
        box: Rows and columns that come from the second image, as fractions (top, bottom, left, right); None: MixUp.
    """

    share: float
    box: tuple[float, float, float, float] | None = None


def draw_mix(mixup: float, cutmix: float, seed: int) -> Mix | None:
    """Draws how the images of a batch are mixed.

    Args:
        mixup: Alpha of MixUp, 0: never.
        cutmix: Alpha of CutMix, 0: never; with both, one of the two is drawn.
        seed: Of the draw.

    Returns:
        None when neither is wanted.
    """
    random = np.random.default_rng(seed)
    chosen = [(alpha, name) for alpha, name in ((mixup, "mixup"), (cutmix, "cutmix")) if alpha]
    if not chosen:
        return None
    alpha, name = chosen[int(random.integers(len(chosen)))]
    share = float(random.beta(alpha, alpha))
    if name == "mixup":
        return Mix(share)
    side = float(np.sqrt(1 - share))
    y, x = random.random(2)
    top, bottom, left, right = np.clip([y - side / 2, y + side / 2, x - side / 2, x + side / 2], 0, 1)
    return Mix(1.0, (float(top), float(bottom), float(left), float(right)))


def mix_images(first: Tensor, second: Tensor, mix: Mix) -> tuple[Tensor, float]:
    """Mixes two batches.

    Args:
        first: float [n, 3, h, w].
        second: The same shape.
        mix: How.

    Returns:
        The mixed images and the share of the first ones in them (CutMix: of the area).
    """
    if mix.box is None:
        return torch.lerp(second, first, mix.share), mix.share
    height, width = first.shape[-2:]
    top, bottom = (round(edge * height) for edge in mix.box[:2])
    left, right = (round(edge * width) for edge in mix.box[2:])
    mixed = first.clone()
    mixed[..., top:bottom, left:right] = second[..., top:bottom, left:right]
    return mixed, 1 - (bottom - top) * (right - left) / (height * width)
