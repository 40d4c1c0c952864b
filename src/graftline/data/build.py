"""From a source to a dataset folder: list, check, split, write."""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median_low
from typing import Any

from graftline.data.checks import Checked, Picture, check_source
from graftline.data.contents import Contents
from graftline.data.layouts import Source
from graftline.data.shards import write_shards
from graftline.data.splits import SPLITS, assign_splits
from graftline.errors import DataError
from graftline.files import sha256_bytes, write_atomic, write_json
from graftline.progress import track
from graftline.records import DataVersion

_REPORT = "report.json"
_Row = tuple[str, Picture]  # split and picture


def build_dataset(
    source: Source,
    folder: Path,
    validation_fraction: float,
    test_fraction: float,
    previous: Sequence[Contents] = (),
) -> DataVersion:
    """Writes `shards/`, `record.json`, `report.json` and `files.csv`.

    Args:
        source: The listing of the source.
        folder: An empty folder.
        validation_fraction: Share of the images to be divided that goes to validation.
        test_fraction: Share of the images to be divided that goes to test.
        previous: Earlier versions, newest first, whose images stay in their splits; the newest one's word counts.

    Returns:
        The record.

    Raises:
        DataError: The images cannot be used as they are.
    """
    checked = check_source(source)
    places = {key: split for earlier in reversed(previous) for key, split in earlier.places.items()}
    splits = assign_splits(checked.pictures, validation_fraction, test_fraction, places, checked.joined)
    rows = sorted(zip(splits, checked.pictures, strict=True), key=lambda row: (row[0], row[1].id))
    record = _write_dataset(folder, rows)
    report = _report(source, checked, record)
    if previous:
        report["previous"] = {
            "versions": [earlier.version for earlier in previous],
            "unmoved": [earlier.version for earlier in previous if not _stay(rows, earlier.places)["moved"]],
            **_stay(rows, places),
        }
    write_json(folder / _REPORT, report)
    write_atomic(folder / "files.csv", _files_table(rows))
    return record


def keeps_splits_of(dataset: Path) -> set[str]:
    """Returns the earlier versions from which no image of a dataset has moved to another split.

    Args:
        dataset: A dataset folder; without its report nothing is known.
    """
    path = dataset / _REPORT
    previous = json.loads(path.read_text(encoding="utf-8")).get("previous") if path.is_file() else None
    return set(previous.get("unmoved", ())) if previous else set()


def _stay(rows: Sequence[_Row], places: Mapping[str, str]) -> dict[str, int]:
    """Counts the images that earlier versions hold, by whether they are still in the same split."""
    same = [places[picture.id] == split for split, picture in rows if picture.id in places]
    return {"stayed": sum(same), "moved": len(same) - sum(same)}


def _write_dataset(folder: Path, rows: Sequence[_Row]) -> DataVersion:
    pictures = [picture for _, picture in rows]
    classes = sorted({picture.source.label for picture in pictures})
    counts = Counter((split, picture.source.label) for split, picture in rows)
    return DataVersion(
        version=_version(rows),
        classes=classes,
        domains=sorted({picture.source.domain for picture in pictures} - {""}),
        counts={split: {name: counts[split, name] for name in classes} for split in SPLITS},
        images=len(rows),
        median_width=median_low(picture.width for picture in pictures),
        median_height=median_low(picture.height for picture in pictures),
        grey=all(picture.grey for picture in pictures),
        shards=write_shards(folder, _shard_rows(rows, classes)),
    ).write(folder)


def _version(rows: Sequence[_Row]) -> str:
    """Returns the name of the content: `d` and 16 hexadecimal digits."""
    lines = [json.dumps([p.id, p.source.label, split, p.group, p.source.domain]) for split, p in rows]
    return "d" + sha256_bytes("\n".join(lines).encode())[:16]


def _shard_rows(rows: Sequence[_Row], classes: list[str]) -> Iterator[dict[str, Any]]:
    labels = {name: label for label, name in enumerate(classes)}
    for split, picture in track(rows, "writing shards"):
        yield {
            "image": _content(picture),
            "label": labels[picture.source.label],
            "split": split,
            "group": picture.group,
            "domain": picture.source.domain,
            "id": picture.id,
            "sha256": picture.sha256,
            "width": picture.width,
            "height": picture.height,
        }


def _content(picture: Picture) -> bytes:
    """Reads the file a second time, so that the images need not all stay in memory."""
    path = picture.source.path
    content = path.read_bytes() if path.is_file() else b""
    if sha256_bytes(content) != picture.sha256:
        if picture.source.object:
            path.unlink(missing_ok=True)  # a damaged copy: to be fetched anew
        raise DataError(f"{path} changed while it was being read: run again when nobody writes to the images")
    return content


def _report(source: Source, checked: Checked, record: DataVersion) -> dict[str, Any]:
    widths = [picture.width for picture in checked.pictures]
    heights = [picture.height for picture in checked.pictures]
    return {
        "version": record.version,
        "files_found": len(source.images),
        "images_used": record.images,
        "counts": record.counts,
        "domains": dict(sorted(Counter(p.source.domain for p in checked.pictures if p.source.domain).items())),
        "width": {"min": min(widths), "median": record.median_width, "max": max(widths)},
        "height": {"min": min(heights), "median": record.median_height, "max": max(heights)},
        "ignored": source.ignored,
        "quarantined": [asdict(rejected) for rejected in checked.rejected],
        "duplicates": [{"left_out": left_out, "kept": kept} for left_out, kept in checked.duplicates],
    }


def _files_table(rows: Sequence[_Row]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "sha256", "label", "split"])
    names = sorted((p.source.name, p.sha256, p.source.label, split) for split, p in rows)
    writer.writerows(names)
    return text.getvalue()
