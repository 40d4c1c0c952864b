"""Reading a dataset folder that `version_data` wrote: a split's labels, its images as they are, or as model inputs."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from graftline.data.decode import Interpolation, decode_rgb, resize_square
from graftline.data.parallel import map_threads
from graftline.data.shards import iter_files, read_columns
from graftline.errors import DataError
from graftline.files import beside
from graftline.progress import track
from graftline.records import DataVersion, read_record
from graftline.workspace import cache_folder


@dataclass(frozen=True)
class Split:
    """The rows of one split, in the order in which images are read.

    Attributes:
        name: "train", "validation" or "test".
        ids: Content identity of each image.
        labels: int64 [n], indices into the record's classes.
        domains: Domain of each image, '' where there is none.
        groups: Group of each image, which is alone in its own where the source names none.
    """

    name: str
    ids: list[str]
    labels: np.ndarray
    domains: list[str]
    groups: list[str]


def open_split(folder: Path, split: str) -> Split:
    """Reads everything but the images of one split.

    Args:
        folder: A dataset folder written by `version_data`.
        split: "train", "validation" or "test".

    Raises:
        GraftlineError: `folder` is not a dataset.
        DataError: There is no such split, or a shard is missing.
    """
    record = _record_with(folder, split)
    table = read_columns(folder, record, ["id", "label", "domain", "group"], split)
    labels = table["label"].to_numpy().astype(np.int64)
    ids, domains, groups = (table[column].to_pylist() for column in ("id", "domain", "group"))
    return Split(split, ids, labels, domains, groups)


def iter_images(folder: Path, split: str) -> Iterator[np.ndarray]:
    """Yields the images of one split at their original size, uint8 [H, W, 3], in the order of `open_split`.

    Raises:
        GraftlineError: As `open_split`.
    """
    return map_threads(decode_rgb, iter_files(folder, _record_with(folder, split), split))


def load_images(folder: Path, split: str, side: int, interpolation: Interpolation = "bicubic") -> np.ndarray:
    """Returns all images of one split as model inputs, decoded once and then kept in the workspace's cache.

    Args:
        folder: A dataset folder written by `version_data`.
        split: "train", "validation" or "test".
        side: Width and height in pixels; the whole image is resized to it.
        interpolation: The filter.

    Returns:
        A read-only memory map, uint8 [n, side, side, 3], in the order of `open_split`.

    Raises:
        GraftlineError: As `open_split`.
    """
    record = _record_with(folder, split)
    shape = (sum(record.counts[split].values()), side, side, 3)
    path = cache_folder() / "images" / f"{record.version}-{split}-{side}-{interpolation}.npy"
    if not path.exists():
        _fill(path, shape, _resized(folder, record, split, side, interpolation))
    return np.load(path, mmap_mode="r")


def _record_with(folder: Path, split: str) -> DataVersion:
    record = read_record(folder, DataVersion)
    if not sum(record.counts.get(split, {}).values()):
        raise DataError(f"{folder} has no images in the split {split!r}: it has {', '.join(record.counts)}")
    return record


def _resized(folder: Path, record: DataVersion, split: str, side: int, how: Interpolation) -> Iterator[np.ndarray]:
    return map_threads(lambda content: resize_square(decode_rgb(content), side, how), iter_files(folder, record, split))


def _fill(path: Path, shape: tuple[int, ...], images: Iterator[np.ndarray]) -> None:
    """Writes the images into an array file beside `path` and renames it when the last one is in."""
    with beside(path) as new, new.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for image in track(images, f"decoding {path.stem.split('-')[1]} images", total=shape[0]):
            file.write(image.tobytes())
