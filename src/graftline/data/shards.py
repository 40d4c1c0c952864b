"""Parquet shards of a dataset: the same rows give the same bytes, and reading needs little memory.

The image column is stored as it is (image files are compressed already). Nothing in a shard tells when or where it was
written.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from graftline.errors import DataError
from graftline.files import sha256_file
from graftline.records import DataVersion, FileEntry

SHARD_BYTES = 64 * 1024 * 1024
SCHEMA = pa.schema(
    [
        pa.field("image", pa.binary(), nullable=False),
        pa.field("label", pa.int32(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("group", pa.string(), nullable=False),
        pa.field("domain", pa.string(), nullable=False),
        pa.field("id", pa.string(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
    ]
)
_OTHER_COLUMNS = [name for name in SCHEMA.names if name != "image"]
_READ_ROWS = 64


def write_shards(folder: Path, rows: Iterable[dict[str, Any]]) -> list[FileEntry]:
    """Writes `shards/00000.parquet`, ... of about `SHARD_BYTES` each.

    Args:
        folder: The dataset folder.
        rows: One dictionary per image with the columns of `SCHEMA`, sorted by (split, id). Consumed as a stream.

    Returns:
        The files, relative to `folder`, in order.
    """
    (folder / "shards").mkdir(parents=True, exist_ok=True)
    return [_write_shard(folder, number, part) for number, part in enumerate(_parts(rows))]


def shard_paths(folder: Path, record: DataVersion) -> list[Path]:
    """Returns the dataset's shards in order.

    Raises:
        DataError: A shard is missing or has another size than the record says.
    """
    for entry in record.shards:
        path = folder / entry.file
        if not path.is_file() or path.stat().st_size != entry.bytes:
            state = "cut off or changed" if path.is_file() else "missing"
            raise DataError(
                f"{path} is {state}: run `graftline version_data` again or `graftline pull {record.version}`"
            )
    return [folder / entry.file for entry in record.shards]


def read_columns(folder: Path, record: DataVersion, columns: list[str], split: str) -> pa.Table:
    """Returns the named small columns (not `image`) of one split, in the order of the shards."""
    tables = [pq.read_table(path, columns=[*columns, "split"]) for path in shard_paths(folder, record)]
    table = pa.concat_tables(tables)
    return table.filter(pc.equal(table["split"], split)).select(columns)


def iter_files(folder: Path, record: DataVersion, split: str) -> Iterator[bytes]:
    """Yields the image files of one split, in the order of the shards, a few in memory at a time."""
    for path in shard_paths(folder, record):
        with pq.ParquetFile(path) as file:
            if split not in file.read(columns=["split"])["split"].to_pylist():
                continue
            for batch in file.iter_batches(batch_size=_READ_ROWS, columns=["image", "split"]):
                pairs = zip(batch["image"], batch["split"].to_pylist(), strict=True)
                yield from (image.as_py() for image, of in pairs if of == split)


def _parts(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    part: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        part.append(row)
        size += len(row["image"])
        if size >= SHARD_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part


def _write_shard(folder: Path, number: int, rows: list[dict[str, Any]]) -> FileEntry:
    path = folder / "shards" / f"{number:05d}.parquet"
    pq.write_table(
        pa.Table.from_pylist(rows, schema=SCHEMA),
        path,
        version="2.6",
        data_page_version="1.0",
        compression={name: "NONE" if name == "image" else "SNAPPY" for name in SCHEMA.names},
        use_dictionary=["split", "group", "domain"],
        write_statistics=_OTHER_COLUMNS,
        store_schema=False,
    )
    return FileEntry(file=path.relative_to(folder).as_posix(), sha256=sha256_file(path), bytes=path.stat().st_size)
