"""Chooses augmentation for a set of images and says why."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from threadpoolctl import threadpool_limits

from graftline.records import AugmentationPolicy, DataVersion
from graftline.words import percent

Flips = Literal["auto", "none", "horizontal", "vertical", "both"]

_SMALL_SET = 1_000
_GENTLE_CROP = (0.7, 1.0)
_STRONG_CROP = (0.5, 1.0)
_INSTRUMENT_CROP = (0.9, 1.0)
_RATIO = (0.9, 1.1)
_JITTER = 0.2
_INSTRUMENT_JITTER = 0.1
_UNTELLABLE = 0.6
_FOLDS = 5
_MEASURED = 500
_THUMBNAIL = 16


@dataclass(frozen=True)
class Orientation:
    """How well a linear classifier on thumbnails tells changed images from upright ones (0.5: not at all).

    Attributes:
        vertical: Cross-validated accuracy for upside-down images.
        transposed: For images with rows and columns swapped.
        n: Number of images.
    """

    vertical: float
    transposed: float
    n: int


@threadpool_limits.wrap(limits=1, user_api="blas")  # small matrices: more threads wait more than they compute
def measure_orientation(images: np.ndarray, seed: int) -> Orientation:
    """Measures whether the images have an up and a direction that show in their coarse layout.

    Args:
        images: uint8 [n, side, side, 3], side a multiple of 16; at most 500 of them, evenly spread, are looked at.
        seed: Which images are changed.
    """
    grey = _thumbnails(images[:: max(1, len(images) // _MEASURED)][:_MEASURED])
    grey = grey - grey.mean((1, 2), keepdims=True)
    grey = grey / (grey.std((1, 2), keepdims=True) + 1e-3)
    return Orientation(
        _tell_apart(grey, grey[:, ::-1], seed), _tell_apart(grey, grey.transpose(0, 2, 1), seed), len(grey)
    )


def _thumbnails(images: np.ndarray) -> np.ndarray:
    """Returns float [n, 16, 16] block averages."""
    n, side = len(images), images.shape[1]
    blocks = images.reshape(n, _THUMBNAIL, side // _THUMBNAIL, _THUMBNAIL, side // _THUMBNAIL, 3)
    return blocks.mean((2, 4, 5), dtype=np.float32)


def _tell_apart(images: np.ndarray, changed: np.ndarray, seed: int) -> float:
    is_changed = np.random.default_rng(seed).permutation(len(images)) % 2
    sign = np.where(is_changed, -1, 1)[:, None, None]
    differences = ((images - changed) * sign).reshape(len(images), -1)
    probe = LogisticRegression(C=0.01, max_iter=100, tol=1e-2)
    folds = min(_FOLDS, len(images) // 2)
    return float(cross_val_score(probe, differences, is_changed, cv=folds).mean()) if folds > 1 else 1.0


def choose_policy(data: DataVersion, orientation: Orientation, flips: Flips = "auto") -> AugmentationPolicy:
    """Chooses a policy from the data's record and the measured orientation.

    Args:
        data: Number, size and colour of the images.
        orientation: From `measure_orientation`.
        flips: "auto", or which flips leave the label as it is.
    """
    training = sum(data.counts["train"].values())
    crop = _INSTRUMENT_CROP if data.grey else _STRONG_CROP if training < _SMALL_SET else _GENTLE_CROP
    horizontal, vertical, transpose, flip_reason = _choose_flips(data.grey, orientation, flips)
    jitter = _INSTRUMENT_JITTER if data.grey else _JITTER
    return AugmentationPolicy(
        data_version=data.version,
        crop_scale=crop,
        crop_ratio=_RATIO,
        horizontal_flip=horizontal,
        vertical_flip=vertical,
        transpose=transpose,
        brightness=jitter,
        contrast=jitter,
        saturation=0.0 if data.grey else jitter,
        hue=0.0,
        reasons=[_crop_reason(crop, training), flip_reason, _colour_reason(data.grey)],
    )


def _choose_flips(grey: bool, orientation: Orientation, flips: Flips) -> tuple[float, float, float, str]:
    """Returns the probabilities of horizontal flip, vertical flip and transposition, and why."""
    if flips != "auto":
        sides = float(flips in ("horizontal", "both")), float(flips in ("vertical", "both"))
        return sides[0] / 2, sides[1] / 2, 0.0, f"flips: {flips}, as you said"
    told = f"a linear probe tells upside-down images in {percent(orientation.vertical, 0)} of {orientation.n} cases"
    turned = f"transposed ones in {percent(orientation.transposed, 0)}"
    if grey:
        why = "grey images mostly come from instruments, and a defect is one however the part lies"
        but = "digits, letters and X-rays of the body want --flips none or horizontal"
        return 0.5, 0.5, 0.5, f"flips both ways and quarter turns: {why} ({but})"
    if orientation.vertical < _UNTELLABLE:
        free = orientation.transposed < _UNTELLABLE
        what = "flips both ways and quarter turns" if free else "flips both ways, no quarter turns"
        return 0.5, 0.5, 0.5 if free else 0.0, f"{what}: the images have no up; {told}, {turned} (--flips overrides)"
    return 0.5, 0.0, 0.0, f"horizontal flips only: the images have an up; {told}, {turned} (--flips overrides)"


def _crop_reason(crop: tuple[float, float], training: int) -> str:
    whys = {
        _INSTRUMENT_CROP: "grey images mostly come from instruments that frame and expose them alike",
        _STRONG_CROP: "few images need stronger augmentation",
        _GENTLE_CROP: "small objects and defects stay in view",
    }
    why = whys[crop]
    area = f"{percent(crop[0], 0)} to {percent(crop[1], 0)} of the area"
    return f"random resized crop of {area} ({training:,} training images): {why}"


def _colour_reason(grey: bool) -> str:
    if grey:
        return "slight brightness and contrast jitter only: every image is grey, so there is no colour to change"
    return "brightness, contrast and saturation jitter; hue stays, as colour may carry the label"
