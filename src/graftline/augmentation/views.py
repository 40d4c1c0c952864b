"""What is drawn for each view of an image: where it is cut, how it is turned, how its colours change."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graftline.records import AugmentationPolicy

_DRAWS = 11


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
    Deeper with Convolutions"; where that crop would leave the image, it is as high or wide as the image.

    Args:
        policy: What may happen.
        seeds: Not negative, one for each image.
    """
    drawn = np.stack([np.random.Generator(np.random.Philox(key=seed)).random(_DRAWS) for seed in seeds], axis=1)
    area = policy.crop_scale[0] + drawn[0] * (policy.crop_scale[1] - policy.crop_scale[0])
    low, high = (math.log(ratio) for ratio in policy.crop_ratio)
    ratio = np.exp(low + drawn[1] * (high - low))
    height, width = np.minimum(np.sqrt(area / ratio), 1), np.minimum(np.sqrt(area * ratio), 1)
    signed = 2 * drawn[7:] - 1
    return Views(
        top=drawn[2] * (1 - height),
        left=drawn[3] * (1 - width),
        height=height,
        width=width,
        upside_down=drawn[4] < policy.vertical_flip,
        mirrored=drawn[5] < policy.horizontal_flip,
        transposed=drawn[6] < policy.transpose,
        brightness=1 + signed[0] * policy.brightness,
        contrast=1 + signed[1] * policy.contrast,
        saturation=1 + signed[2] * policy.saturation,
        hue=signed[3] * policy.hue,
    )
