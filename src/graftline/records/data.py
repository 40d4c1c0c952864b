"""Records of the data and of its augmentation."""

from typing import Literal

from graftline.records.base import FileEntry, Record


class DataVersion(Record):
    """A version of the data: the same content gives the same record, wherever and in whatever order it was read.

    Attributes:
        version: `d` and 16 hexadecimal digits of the hash over all rows (content, label, split, group, domain).
        classes: Class names in label order.
        domains: Domain names, sorted; empty when the source has none.
        counts: Number of images by split, then by class.
        images: Number of images in all.
        median_width: Median width in pixels.
        median_height: Median height in pixels.
        grey: Whether every image is grey (equal channels).
        shards: The Parquet files.
    """

    step = "version_data"
    kind: Literal["data_version"] = "data_version"
    version: str
    classes: list[str]
    domains: list[str]
    counts: dict[str, dict[str, int]]
    images: int
    median_width: int
    median_height: int
    grey: bool
    shards: list[FileEntry]


class AugmentationPolicy(Record):
    """Random changes to training images; all probabilities in [0, 1].

    Attributes:
        data_version: The data it was chosen for.
        crop_scale: Range of the random resized crop's area, as a share of the image.
        crop_ratio: Range of its aspect ratio (width / height).
        horizontal_flip: Probability.
        vertical_flip: Probability.
        transpose: Probability of swapping rows and columns (with both flips: all rotations by 90 degrees).
        brightness: Jitter strength, 0 is none.
        contrast: Jitter strength, 0 is none.
        saturation: Jitter strength, 0 is none.
        hue: Jitter strength in [0, 0.5], 0 is none.
        reasons: Why, in plain words, one line per decision.
    """

    step = "augment"
    kind: Literal["augmentation_policy"] = "augmentation_policy"
    data_version: str
    crop_scale: tuple[float, float]
    crop_ratio: tuple[float, float]
    horizontal_flip: float
    vertical_flip: float
    transpose: float
    brightness: float
    contrast: float
    saturation: float
    hue: float
    reasons: list[str]
