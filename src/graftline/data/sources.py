"""Where images come from: class folders, split folders, a CSV or Parquet manifest, or an archive of any of them.

    ROOT/CLASS/image.jpg                                 class folders
    ROOT/{train,validation,test}/CLASS/image.jpg         split folders (`val` and `valid` mean validation)
    manifest.csv or manifest.parquet                     columns path, label and, if wanted, split, domain, group

Each lies on this machine or in S3, `s3://bucket/prefix`. Images are listed, and those in S3 copied to the cache;
nothing is opened but the manifest.
"""

import contextlib
import gzip
import lzma
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from graftline.data.layouts import Source, list_folders, list_manifest
from graftline.data.manifests import MANIFEST_SUFFIXES, read_manifest
from graftline.data.remote import fetch_all, fetch_one, locate, place_of
from graftline.data.trees import File, Tree, is_hidden_file, is_image, tree_of_folder, tree_of_objects
from graftline.errors import DataError
from graftline.files import sha256_bytes, sha256_file
from graftline.progress import say
from graftline.storage.objects import Objects, StoredObject, is_url, split_url
from graftline.workspace import expanded

T = TypeVar("T")
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
# What damaged, encrypted or malicious archives raise.
_UNPACKING = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError)
_BLOCK = 1 << 20
_MANIFESTS = ("manifest.csv", "manifest.parquet")


@dataclass(frozen=True)
class _Manifest:
    """A manifest: how the user calls it, the file, and what its paths are relative to."""

    name: str
    file: File
    base: Path | str


@dataclass(frozen=True)
class _Archive:
    """An archive: how the user calls it, and the file."""

    name: str
    file: File


_Form = Tree | _Manifest | _Archive


@contextlib.contextmanager
def open_source(source: str) -> Iterator[Source]:
    """Lists the images of a source and fetches those in S3; an archive is unpacked for as long as the block runs.

    Args:
        source: Path or `s3://` URL of a folder, a manifest or an archive.

    Raises:
        DataError: The path is missing, or what it holds has none of the known forms.
        StoreError: S3 refuses or does not answer, or holds nothing there.
    """
    objects = Objects()
    form = _form(objects, source)
    if not isinstance(form, _Archive):
        yield _list(objects, form)
        return
    with tempfile.TemporaryDirectory(prefix="graftline-") as folder:
        _unpack(_copy(objects, form.file, _ARCHIVES), form.name, Path(folder))
        yield _list(objects, _form_of_folder(_only_folder(Path(folder)), form.name))


def require_source(source: str) -> None:
    """Checks that a source on this machine is there and of a known form; of one in S3 only its URL.

    Raises:
        DataError: It is missing, or of no known form.
        StoreError: It is a URL of another kind than `s3://`, or has credentials in it.
    """
    if is_url(source):
        split_url(source)
    else:
        _form(Objects(), source)


def source_fingerprint(source: str) -> str:
    """Returns a hexadecimal SHA-256 that changes when the source does, without reading any image.

    It covers the names, sizes and modification times (in S3: ETags) of all files and the bytes of the manifest: a key
    for a cache, not an identity of the content.

    Raises:
        DataError: As `open_source`.
        StoreError: As `open_source`.
    """
    objects, head = Objects(), ""
    form = _form(objects, source)
    if isinstance(form, Tree):
        files = {name: file for name, file in form.files.items() if not is_hidden_file(name)}
    elif isinstance(form, _Archive):
        files = {"": form.file}
    else:
        head = sha256_file(_copy(objects, form.file, MANIFEST_SUFFIXES))
        files = _located(objects, form, _rows(objects, form))
    return sha256_bytes("\n".join([head, *sorted(f"{name}\0{_state(file)}" for name, file in files.items())]).encode())


def find_images(folder: str, most: int | None = None) -> dict[str, Path]:
    """Finds the images below a folder, whatever the folders between are called; those in S3 are fetched.

    Args:
        folder: Path or `s3://` URL; an image file stands for itself.
        most: How many at most, spread evenly over the sorted names; None: all.

    Returns:
        Where each image lies on this machine, by what the user would call it, sorted.

    Raises:
        DataError: It does not exist, or holds no image.
        StoreError: As `open_source`.
    """
    objects, path = Objects(), expanded(folder)
    if path.is_file():
        return {folder: path}
    if is_url(folder) and is_image(folder):
        return {folder: fetch_one(objects, objects.find(folder))}
    if is_url(folder):
        tree = tree_of_objects(folder.rstrip("/"), objects.under(f"{folder.rstrip('/')}/"))
    else:
        tree = tree_of_folder(path, str(Path(folder)))
    if not tree.images:
        problem = "holds no images" if is_url(folder) or path.is_dir() else "does not exist"
        raise DataError(f"{folder} {problem}: give a folder of images")
    others = sum(not is_hidden_file(name) for name in tree.files) - len(tree.images)
    if others:
        say(f"{others:,} files in {folder} are not named like images: left aside")
    files = {tree.address(name): tree.files[name] for name in spread(tree.images, most)}
    fetch_all(objects, (file for file in files.values() if isinstance(file, StoredObject)))
    return {name: place_of(file) for name, file in files.items()}


def spread(items: Sequence[T], most: int | None) -> list[T]:
    """Returns at most `most` of the items, evenly spread; None: all."""
    if most is None or most >= len(items):
        return list(items)
    return [items[int(at)] for at in np.linspace(0, len(items) - 1, most)]


def absolute(source: str) -> str:
    """Returns the address of a source for a process that may run elsewhere: a URL as it is, a path from the root on.

    Raises:
        StoreError: It is a URL of another kind than `s3://`, or has credentials in it.
    """
    if is_url(source):
        split_url(source)
        return source
    return str(expanded(source).absolute())


def _form(objects: Objects, source: str) -> _Form:
    if is_url(source):
        return _form_in_s3(objects, source.rstrip("/"))
    path = expanded(source)
    if not source or not path.exists():
        raise DataError(f"the source {source!r} does not exist: give a folder of images, a manifest or an archive")
    if path.is_dir():
        return _form_of_folder(path, str(path))
    name = path.name.lower()
    if name.endswith(MANIFEST_SUFFIXES):
        return _Manifest(str(path), path, path.parent)
    if name.endswith(_ARCHIVES):
        return _Archive(str(path), path)
    raise DataError(f"{path} is not a folder, nor a .csv or .parquet manifest, nor a .zip or .tar archive")


def _form_of_folder(folder: Path, name: str) -> Tree | _Manifest:
    manifest = next((manifest for manifest in _MANIFESTS if (folder / manifest).is_file()), None)
    return _Manifest(f"{name}/{manifest}", folder / manifest, folder) if manifest else tree_of_folder(folder, name)


def _form_in_s3(objects: Objects, url: str) -> _Form:
    split_url(url)
    if url.lower().endswith(MANIFEST_SUFFIXES):
        return _Manifest(url, objects.find(url), url.rpartition("/")[0])
    if url.lower().endswith(_ARCHIVES):
        return _Archive(url, objects.find(url))
    tree = tree_of_objects(url, objects.under(f"{url}/"))
    if not tree.files:
        raise DataError(f"the source {url} holds nothing: give a prefix with images below it, a manifest or an archive")
    manifest = next((manifest for manifest in _MANIFESTS if manifest in tree.files), None)
    return _Manifest(f"{url}/{manifest}", tree.files[manifest], url) if manifest else tree


def _list(objects: Objects, form: Tree | _Manifest) -> Source:
    if isinstance(form, Tree):
        listing = list_folders(form)
    else:
        rows = _rows(objects, form)
        listing = list_manifest(form.name, rows, _located(objects, form, rows))
    fetch_all(objects, (image.object for image in listing.images if image.object))
    return listing


def _rows(objects: Objects, form: _Manifest) -> list[dict[str, str]]:
    return read_manifest(_copy(objects, form.file, MANIFEST_SUFFIXES), form.name)


def _located(objects: Objects, form: _Manifest, rows: Sequence[dict[str, str]]) -> dict[str, File]:
    return locate(objects, form.name, form.base, [row["path"] for row in rows])


def _copy(objects: Objects, file: File, suffixes: Sequence[str]) -> Path:
    """Returns where a file can be read; a copy keeps that of the suffixes which it has."""
    if isinstance(file, Path):
        return file
    return fetch_one(objects, file, next(suffix for suffix in suffixes if file.key.lower().endswith(suffix)))


def _state(file: File) -> str:
    if isinstance(file, StoredObject):
        return f"{file.size} {file.etag}" if file.etag else "missing"
    try:
        stat = file.stat()
    except OSError:
        return "missing"
    return f"{stat.st_size} {stat.st_mtime_ns}"


def _unpack(archive: Path, name: str, folder: Path) -> None:
    try:
        if name.lower().endswith(".zip"):
            with zipfile.ZipFile(archive) as zipped:
                zipped.extractall(folder)
        else:
            with tarfile.open(archive) as taped:
                taped.extractall(folder, filter="data")
                _read_to_the_end(taped)
    except _UNPACKING as error:
        raise DataError(f"{name} cannot be unpacked: {error}") from error


def _read_to_the_end(taped: tarfile.TarFile) -> None:
    """Reads what comes after the files: the checksum of the compressed file comes last."""
    try:
        while taped.fileobj and taped.fileobj.read(_BLOCK):
            pass
    except gzip.BadGzipFile as error:
        if not str(error).startswith("Not a gzipped file"):  # it is whole, and something was appended to it
            raise


def _only_folder(folder: Path) -> Path:
    """Goes down while there is nothing but one folder, as archives of a folder have it."""
    while True:
        inside = [path for path in folder.iterdir() if not path.name.startswith((".", "__MACOSX"))]
        if len(list(folder.iterdir())) != 1 or len(inside) != 1 or not inside[0].is_dir():
            return folder
        folder = inside[0]
