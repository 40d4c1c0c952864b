"""Reading a CSV or Parquet manifest: a row per image; columns path, label and, if wanted, split, domain, group."""

import csv
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from graftline.errors import DataError

MANIFEST_SUFFIXES = (".csv", ".parquet")
_NEEDED = ("path", "label")
_COLUMNS = (*_NEEDED, "split", "domain", "group")


def read_manifest(path: Path, name: str) -> list[dict[str, str]]:
    """Returns the rows, each with all five columns as text ('' where the manifest has none).

    Args:
        path: A `.csv` (UTF-8, comma) or `.parquet` file.
        name: How the user calls it.

    Raises:
        DataError: The file cannot be read, lacks a needed column or has no rows, or a row has no label or no possible
            path.
    """
    names, rows = _read_parquet(path, name) if path.suffix.lower() == ".parquet" else _read_csv(path, name)
    found = {column.strip().lower(): column for column in names}
    lacking = [column for column in _NEEDED if column not in found]
    if lacking:
        has = f"it has {', '.join(names)}" if names else "it is empty"
        raise DataError(f"{name} lacks the column {' and '.join(lacking)}: {has}")
    if not rows:
        raise DataError(f"{name} has no rows: give one row per image")
    table = [{column: _text(row.get(found[column])) if column in found else "" for column in _COLUMNS} for row in rows]
    for number, row in enumerate(table, start=1):
        for column in _NEEDED:
            if not row[column]:
                raise DataError(f"row {number} of {name} has no {column}: every row needs a path and a label")
        if "\0" in row["path"]:
            raise DataError(f"the path in row {number} of {name} holds a null character, which no file name can")
    return table


def _text(value: Any) -> str:
    return "" if value is None else str(value).strip()


def _read_csv(path: Path, name: str) -> tuple[list[str], list[dict[str, Any]]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            return list(reader.fieldnames or []), list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{name} is not a CSV file in UTF-8: {error}") from error


def _read_parquet(path: Path, name: str) -> tuple[list[str], list[dict[str, Any]]]:
    try:
        names = pq.read_schema(path).names
        wanted = [column for column in names if column.strip().lower() in _COLUMNS]
        return names, pq.read_table(path, columns=wanted).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{name} is not a Parquet file: {error}") from error
