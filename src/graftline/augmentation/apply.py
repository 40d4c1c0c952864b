"""Applies an augmentation policy to batches with torchvision's v2 transforms."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.transforms import v2

from graftline.records import AugmentationPolicy


class Augmenter:
    """Random views of training images.

    All randomness comes from the seeds of the call, one for each image, so that a resumed run sees the same views as an
    uninterrupted one, on any number of devices.

    Args:
        policy: What to do.
        size: Side of the views in pixels.
        interpolation: "bicubic" or "bilinear", as the weights want it.
    """

    def __init__(self, policy: AugmentationPolicy, size: int, interpolation: str) -> None:
        self._transform = _compose(policy, size, v2.InterpolationMode(interpolation))

    def __call__(self, images: Tensor, seeds: Sequence[int]) -> Tensor:
        """Augments a batch.

        Args:
            images: uint8 [n, height, width, 3] RGB on the CPU.
            seeds: One for each image; the same seed gives the same view of the same image.

        Returns:
            uint8 [n, size, size, 3].
        """
        views = []
        with torch.random.fork_rng(devices=[]):
            for image, seed in zip(images.permute(0, 3, 1, 2), seeds, strict=True):
                torch.manual_seed(seed)
                views.append(self._transform(image).permute(1, 2, 0))
        return torch.stack(views)


def _compose(policy: AugmentationPolicy, size: int, interpolation: v2.InterpolationMode) -> v2.Compose:
    crop = v2.RandomResizedCrop(size, policy.crop_scale, policy.crop_ratio, interpolation=interpolation, antialias=True)
    steps: list[torch.nn.Module] = [crop]
    if policy.horizontal_flip:
        steps.append(v2.RandomHorizontalFlip(policy.horizontal_flip))
    if policy.vertical_flip:
        steps.append(v2.RandomVerticalFlip(policy.vertical_flip))
    if policy.transpose:
        steps.append(v2.RandomApply([v2.Lambda(_transpose)], policy.transpose))
    if policy.brightness or policy.contrast or policy.saturation or policy.hue:
        steps.append(v2.ColorJitter(policy.brightness, policy.contrast, policy.saturation, policy.hue))
    return v2.Compose(steps)


def _transpose(image: Tensor) -> Tensor:
    return image.transpose(-2, -1)
