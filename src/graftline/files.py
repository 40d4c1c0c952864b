"""Files and folders written beside and renamed, so that an interrupted run never leaves half an output."""

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from graftline.errors import GraftlineError


def sha256_bytes(content: bytes) -> str:
    """Returns the hexadecimal SHA-256 of `content`."""
    return hashlib.sha256(content).hexdigest()


def sha256_file(path: Path) -> str:
    """Returns the hexadecimal SHA-256 of a file, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomic(path: Path, content: bytes | str) -> None:
    """Writes `content` beside `path` and renames it, so that readers see the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        Path(beside).chmod(0o644)
        Path(beside).replace(path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise


def check_output(out: Path) -> None:
    """Checks that `output_folder` can make a folder.

    Raises:
        GraftlineError: It is a file, a folder with other content, or one that cannot be replaced.
    """
    if out.name in ("", "..") or out.is_mount():
        raise GraftlineError(f"the folder {out} itself cannot be replaced by the output: give a folder below it")
    if out.exists() and not out.is_dir():
        raise GraftlineError(f"{out} is a file: give a folder for the output")
    if out.is_dir() and any(out.iterdir()) and not (out / "record.json").exists():
        raise GraftlineError(f"{out} holds files that graftline did not write: give a new or empty folder")


@contextlib.contextmanager
def output_folder(out: Path) -> Iterator[Path]:
    """Yields a folder beside `out` that takes its place when the block ends well.

    An earlier good output of the same kind survives any failure: it is replaced only at the end. A folder that holds
    anything but an earlier graftline output (no `record.json`) is never replaced.

    Args:
        out: The folder to make. May be missing, empty, or an earlier output.

    Raises:
        GraftlineError: As `check_output`.
    """
    check_output(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    beside.chmod(0o755)
    try:
        yield beside
        _swap(beside, out)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def link_or_copy(source: str, target: str) -> str:
    """Gives a file a second name and returns that; where the file system cannot, copies it."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
    return target


def _swap(beside: Path, out: Path) -> None:
    """Puts the folder `beside` in the place of `out`, which may exist."""
    if not out.exists():
        beside.rename(out)
        return
    old = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}.old."))
    out.rename(old / out.name)
    beside.rename(out)
    shutil.rmtree(old, ignore_errors=True)
