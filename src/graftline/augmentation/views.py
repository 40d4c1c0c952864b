"""What is drawn for each view of an image: where it is cut, how it is turned, how its colours change."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graftline.records import AugmentationPolicy

_TRIES = 10
_OTHER_DRAWS = 9


@dataclass(frozen=True)
class Views:
    """The draws for a batch of n views.

    Attributes:
        top: float [n], upper edge of the crop as a share of the image's height.
        left: float [n], left edge as a share of its width.
        height: float [n], share of its height.
        width: float [n], share of its width.
        upside_down: bool [n].
        mirrored: bool [n].
        transposed: bool [n], rows and columns swapped after the flips.
        brightness: float [n], factor of the brightness.
        contrast: float [n], factor of the distance from the mean brightness.
        saturation: float [n], factor of the distance from grey.
        hue: float [n], shift in turns of the colour circle.
    """

    top: np.ndarray
    left: np.ndarray
    height: np.ndarray
    width: np.ndarray
    upside_down: np.ndarray
    mirrored: np.ndarray
    transposed: np.ndarray
    brightness: np.ndarray
    contrast: np.ndarray
    saturation: np.ndarray
    hue: np.ndarray


def draw_views(policy: AugmentationPolicy, seeds: Sequence[int]) -> Views:
    """Draws views from counter-based generators, one for each image: what an image gets depends on its seed only.

    The crop's area is uniform in the policy's range and its aspect ratio log-uniform, as in Szegedy et al. 2015, "Going
    Deeper with Convolutions". A crop that would leave the image is drawn again; after ten of them the view shows the
    whole image, as torchvision's `RandomResizedCrop` does with a square one.

    Args:
        policy: What may happen.
        seeds: Not negative, one for each image.
    """
    count = 2 * _TRIES + _OTHER_DRAWS
    drawn = np.stack([np.random.Generator(np.random.Philox(key=seed)).random(count) for seed in seeds], axis=1)
    height, width = _crop_sides(policy, *np.split(drawn[: 2 * _TRIES], 2))
    drawn = drawn[2 * _TRIES :]
    signed = 2 * drawn[5:] - 1
    return Views(
        top=drawn[0] * (1 - height),
        left=drawn[1] * (1 - width),
        height=height,
        width=width,
        upside_down=drawn[2] < policy.vertical_flip,
        mirrored=drawn[3] < policy.horizontal_flip,
        transposed=drawn[4] < policy.transpose,
        brightness=1 + signed[0] * policy.brightness,
        contrast=1 + signed[1] * policy.contrast,
        saturation=1 + signed[2] * policy.saturation,
        hue=signed[3] * policy.hue,
    )


def _crop_sides(policy: AugmentationPolicy, areas: np.ndarray, ratios: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns height and width [n] of the first crop that fits, as shares of the image's.

    Args:
        policy: The range of areas and of aspect ratios.
        areas: Uniform in [0, 1), [tries, n].
        ratios: The same.
    """
    area = policy.crop_scale[0] + areas * (policy.crop_scale[1] - policy.crop_scale[0])
    low, high = (math.log(ratio) for ratio in policy.crop_ratio)
    ratio = np.exp(low + ratios * (high - low))
    height, width = np.sqrt(area / ratio), np.sqrt(area * ratio)
    fits = (height <= 1) & (width <= 1)
    first, column = fits.argmax(0), np.arange(fits.shape[1])
    some = fits.any(0)
    return np.where(some, height[first, column], 1.0), np.where(some, width[first, column], 1.0)
