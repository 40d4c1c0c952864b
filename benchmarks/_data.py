"""The images of the benchmarks: photographs of solar cells, as a dataset, as files, shortened and repeated."""

import csv
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from graftline import version_data
from graftline.data.shards import shard_paths, write_shards
from graftline.records import DataVersion, read_record
from graftline.runs.demo import demo_data


def make_dataset(folder: Path, per_stratum: int = 0) -> Path:
    """Makes the demo's dataset, with the demo's split.

    Args:
        folder: Where everything is written.
        per_stratum: Images of each label, split and domain; 0: all of them.
    """
    manifest = demo_data(folder / "demo-data")
    if per_stratum:
        manifest = shorten(manifest, per_stratum)
    with _environment(GRAFTLINE_WORKSPACE=folder / "data-work", GRAFTLINE_STORE=folder / "store"):
        version_data(str(manifest), folder / "dataset")
    return folder / "dataset"


def write_files(dataset: Path, out: Path) -> Path:
    """Writes the images as SPLIT/CLASS/ID.png, as they were, for whoever trains from files."""
    classes = read_record(dataset, DataVersion).classes
    for row in _rows(dataset):
        file = out / row["split"] / classes[row["label"]] / f"{row['id']}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(row["image"])
    return out


def repeat(dataset: Path, out: Path, images: int, copies: int = 1) -> Path:
    """Writes a dataset of some of the images, equally many of each class, again and again under new names.

    Args:
        dataset: Folder written by version_data.
        out: Folder to write.
        images: Training images before they are repeated; validation and test get at most as many, once.
        copies: How often each training image is in it.
    """
    record = read_record(dataset, DataVersion)
    rows = sorted(_repeated(dataset, images // len(record.classes), copies), key=lambda row: (row["split"], row["id"]))
    counts = {split: dict.fromkeys(record.classes, 0) for split in record.counts}
    for row in rows:
        counts[row["split"]][record.classes[row["label"]]] += 1
    changes = {"version": f"{record.version}n{images}x{copies}", "counts": counts, "images": len(rows)}
    out.mkdir()
    record.model_copy(update={**changes, "shards": write_shards(out, rows)}).write(out)
    return out


def _repeated(dataset: Path, per_class: int, copies: int) -> Iterator[dict[str, Any]]:
    taken: dict[tuple[str, int], int] = {}
    for row in _rows(dataset):
        key = row["split"], row["label"]
        taken[key] = taken.get(key, 0) + 1
        if taken[key] <= per_class:
            for copy in range(copies if row["split"] == "train" else 1):
                yield {**row, "id": f"{row['id']}-{copy}"}


def _rows(dataset: Path) -> Iterator[dict[str, Any]]:
    for path in shard_paths(dataset, read_record(dataset, DataVersion)):
        yield from pq.read_table(path).to_pylist()


def shorten(manifest: Path, per_stratum: int) -> Path:
    """Writes a manifest with the first rows of each label, split and domain."""
    with manifest.open(newline="") as file:
        rows = list(csv.DictReader(file))
    strata: dict[tuple[str, str, str], list[dict[str, str]]] = {}
    for row in rows:
        strata.setdefault((row["label"], row["split"], row["domain"]), []).append(row)
    short = manifest.with_name(f"short-{per_stratum}.csv")
    with short.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(row for stratum in strata.values() for row in stratum[:per_stratum])
    return short


@contextmanager
def _environment(**changes: Path) -> Iterator[None]:
    """Sets environment variables while the block runs."""
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update({name: str(value) for name, value in changes.items()})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
