"""Applies an augmentation policy to whole batches, on the device where they are.

Cutting a view out of an image, resizing and flipping it is linear in the rows and in the columns: view = R X C^T. So a
batch of views is two batched matrix products, with the filter of an antialiased resize in R and C.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

from graftline.augmentation.views import Views, draw_views
from graftline.records import AugmentationPolicy

_SUPPORT = {"bilinear": 1.0, "bicubic": 2.0}
_CUBIC = -0.5  # as in PIL
_GREY = (0.299, 0.587, 0.114)


class Augmenter:
    """Random views of training images.

    All randomness comes from the seeds of the call, one for each image, so that a resumed run sees the same views as an
    uninterrupted one, on any number of devices.

    Args:
        policy: What to do.
        size: Side of the views in pixels.
        interpolation: "bicubic" or "bilinear", as the weights want it.
        dtype: In which views are cut out: float32, or bfloat16 where that is fast (it rounds by less than a
            grey level on average).
    """

    def __init__(
        self, policy: AugmentationPolicy, size: int, interpolation: str, dtype: torch.dtype = torch.float32
    ) -> None:
        self._policy, self._size, self._interpolation, self._dtype = policy, size, interpolation, dtype

    def __call__(self, images: Tensor, seeds: Sequence[int]) -> Tensor:
        """Augments a batch.

        Args:
            images: uint8 [n, height, width, 3] RGB on any device.
            seeds: Not negative, one for each image; the same seed gives the same view of the same image.

        Returns:
            uint8 [n, size, size, 3] on the device of `images`.
        """
        views = draw_views(self._policy, seeds)
        cut = self._cut(images, views)
        for index in np.flatnonzero(views.transposed):
            cut[index] = cut[index].transpose(0, 2).clone()
        return (
            _recolour(cut.movedim(2, 1), views).round_().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
        )

    def _cut(self, images: Tensor, views: Views) -> Tensor:
        """Returns float [n, size, 3, size]: rows, channels, columns."""
        count, height, width, channels = images.shape
        rows = self._resize_matrices(views.top, views.height, views.upside_down, height).to(images.device, self._dtype)
        columns = self._resize_matrices(views.left, views.width, views.mirrored, width).to(images.device, self._dtype)
        pixels = images.to(self._dtype).reshape(count, height, width * channels)
        cut = torch.bmm(rows, pixels).reshape(count, self._size, width, channels)
        cut = cut.transpose(2, 3).reshape(count, self._size * channels, width)
        return torch.bmm(cut, columns.transpose(1, 2)).reshape(count, self._size, channels, self._size)

    def _resize_matrices(self, start: np.ndarray, share: np.ndarray, flipped: np.ndarray, pixels: int) -> Tensor:
        """Returns float32 [n, size, pixels]: each row holds the antialiasing filter around one pixel of the view.

        Args:
            start: float [n], where the crop begins, as a share of the image.
            share: float [n], how much of the image it is.
            flipped: bool [n], whether the view runs backwards.
            pixels: Of the image along this side.
        """
        step = share * pixels / self._size
        places = np.arange(self._size) + 0.5
        centre = start[:, None] * pixels + step[:, None] * np.where(flipped[:, None], places[::-1], places)
        stretch = np.maximum(step, 1.0)[:, None]
        support = _SUPPORT[self._interpolation] * stretch
        taps = np.arange(math.ceil(2 * support.max()) + 1)
        index = np.floor(centre - support).astype(np.int64)[..., None] + taps
        weights = self._filter((index + 0.5 - centre[..., None]) / stretch[..., None])
        weights *= (index >= 0) & (index < pixels)
        weights /= weights.sum(-1, keepdims=True)
        matrices = torch.zeros(len(start), self._size, pixels)
        index = np.clip(index, 0, pixels - 1)
        return matrices.scatter_add_(2, torch.from_numpy(index), torch.from_numpy(weights.astype(np.float32)))

    def _filter(self, distance: np.ndarray) -> np.ndarray:
        """Returns the interpolation's kernel at distances in pixels."""
        x = np.abs(distance)
        if self._interpolation == "bilinear":
            return np.maximum(1 - x, 0)
        near = ((_CUBIC + 2) * x - (_CUBIC + 3)) * x * x + 1
        far = _CUBIC * (((x - 5) * x + 8) * x - 4)
        return np.where(x < 1, near, np.where(x < 2, far, 0))


def _recolour(images: Tensor, views: Views) -> Tensor:
    """Changes brightness, then contrast, saturation and hue.

    Args:
        images: float [n, 3, height, width] in [0, 255].
        views: The draws.

    Returns:
        float32, the same shape.
    """
    brightness, contrast, saturation = (
        torch.from_numpy(factor.astype(np.float32)).to(images.device)[:, None, None, None]
        for factor in (views.brightness, views.contrast, views.saturation)
    )
    grey = torch.tensor(_GREY, device=images.device)[:, None, None]
    mean = (images.mean((2, 3), keepdim=True, dtype=torch.float32) * grey).sum(1, keepdim=True)
    changed = torch.addcmul((1 - contrast) * brightness * mean, images, contrast * brightness)
    if (views.saturation != 1).any():
        changed = torch.lerp((changed * grey).sum(1, keepdim=True), changed, saturation)
    for index in np.flatnonzero(views.hue):
        changed[index] = functional.adjust_hue(changed[index].clamp(0, 255) / 255, float(views.hue[index])) * 255
    return changed
