"""Files and folders written beside and renamed, so that an interrupted run never leaves half an output."""

import contextlib
import hashlib
import json
import os
import secrets
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


@contextlib.contextmanager
def beside(path: Path) -> Iterator[Path]:
    """Yields a name beside `path`, with its ending, for a file that takes its place when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{secrets.token_hex(4)}.{path.name}")  # several processes may be at the same
    try:
        yield new
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def write_atomic(path: Path, content: bytes | str) -> None:
    """Writes `content` beside `path` and renames it, so that readers see the old file or the new one."""
    with beside(path) as new, new.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())


def write_json(path: Path, content: object) -> None:
    """Writes numbers, texts, lists and dicts as JSON for people and programs, like `write_atomic`."""
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    write_atomic(path, text.encode(errors="backslashreplace"))  # what of a path is not UTF-8 becomes JSON's \udc80


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
    new = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    new.chmod(0o755)
    try:
        yield new
        _swap(new, out)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def link_or_copy(source: str, target: str) -> str:
    """Gives a file a second name and returns that; where the file system cannot, copies it."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
    return target


def _swap(new: Path, out: Path) -> None:
    """Puts the folder `new` in the place of `out`, which may exist."""
    if not out.exists():
        new.rename(out)
        return
    old = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}.old."))
    out.rename(old / out.name)
    new.rename(out)
    shutil.rmtree(old, ignore_errors=True)
