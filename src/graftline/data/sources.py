"""Where images come from: class folders, split folders, a CSV or Parquet manifest, or an archive of any of them.

    ROOT/CLASS/image.jpg                                 class folders
    ROOT/{train,validation,test}/CLASS/image.jpg         split folders (`val` and `valid` mean validation)
    manifest.csv or manifest.parquet                     columns path, label and, if wanted, split, domain, group

Here files are only listed; nothing is opened but the manifest.
"""

import contextlib
import os
import shutil
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from graftline.data.manifests import MANIFEST_SUFFIXES, read_manifest
from graftline.errors import DataError
from graftline.files import sha256_bytes, sha256_file

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif"})
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_MANIFESTS = ("manifest.csv", "manifest.parquet")
_LAYOUTS = "expected ROOT/CLASS/image.jpg or ROOT/{train,validation,test}/CLASS/image.jpg, or a manifest"


@dataclass(frozen=True)
class SourceImage:
    """One image file of a source.

    Attributes:
        path: Where the file lies.
        name: How the source calls it: relative to its folder, or as the manifest writes it.
        label: Class name.
        split: "train", "validation", "test", or '' when the source does not say.
        domain: Where the image comes from (a camera, a site); '' when the source does not say.
        group: What must not be torn apart by a split (a patient, a scene); '' when the source does not say.
    """

    path: Path
    name: str
    label: str
    split: str = ""
    domain: str = ""
    group: str = ""


@dataclass(frozen=True)
class Source:
    """The listing of a source.

    Attributes:
        images: All image files, sorted by name.
        labels: Class names, also those of empty class folders.
        ignored: Number of files left aside, by reason.
    """

    images: list[SourceImage]
    labels: list[str]
    ignored: dict[str, int] = field(default_factory=dict)


@contextlib.contextmanager
def open_source(source: str) -> Iterator[Source]:
    """Lists the images of a source; an archive is unpacked for as long as the block runs.

    Args:
        source: Path of a folder, a manifest or an archive.

    Raises:
        DataError: The path is missing, or what it holds has none of the known forms.
    """
    path = _existing(source)
    if not path.name.lower().endswith(_ARCHIVES):
        yield _list_source(path)
        return
    with tempfile.TemporaryDirectory(prefix="graftline-") as folder:
        _unpack(path, Path(folder))
        yield _list_source(_only_folder(Path(folder)))


def source_fingerprint(source: str) -> str:
    """Returns a hexadecimal SHA-256 that changes when the source does, without reading any image.

    It covers the names, sizes and modification times of all files and the bytes of the manifest: a key for a cache, not
    an identity of the content.

    Raises:
        DataError: As `open_source`.
    """
    path = _existing(source)
    manifest = _manifest_of(path)
    if manifest:
        files = {row["path"]: manifest.parent / row["path"] for row in read_manifest(manifest)}
    else:
        files = {file.relative_to(path).as_posix(): file for file in (_walk(path) if path.is_dir() else [path])}
    lines = sorted(f"{name}\0{_state(file)}" for name, file in files.items())
    return sha256_bytes("\n".join([sha256_file(manifest) if manifest else "", *lines]).encode())


def find_images(folder: str) -> list[Path]:
    """Returns all image files below a folder, sorted, whatever the folders between are called.

    Raises:
        DataError: It is not a folder, or holds no image.
    """
    path = Path(folder).expanduser()
    found = [file for file in _walk(path) if _is_image(file)]
    if not found:
        raise DataError(
            f"{folder} {'holds no images' if path.is_dir() else 'is not a folder'}: give a folder of images"
        )
    return found


def _existing(source: str) -> Path:
    if "://" in source:
        raise DataError(f"{source} is not on this machine: copy it to a folder first and give that folder")
    path = Path(source).expanduser()
    if not source or not path.exists():
        raise DataError(f"the source {source!r} does not exist: give a folder of images, a manifest or an archive")
    if path.is_dir() or path.name.lower().endswith((*MANIFEST_SUFFIXES, *_ARCHIVES)):
        return path
    raise DataError(f"{path} is not a folder, nor a .csv or .parquet manifest, nor a .zip or .tar archive")


def _manifest_of(path: Path) -> Path | None:
    if path.is_file():
        return path if path.suffix.lower() in MANIFEST_SUFFIXES else None
    return next((path / name for name in _MANIFESTS if (path / name).is_file()), None)


def _list_source(path: Path) -> Source:
    manifest = _manifest_of(path)
    return _list_manifest(manifest) if manifest else _list_folders(path)


def _list_manifest(manifest: Path) -> Source:
    rows = read_manifest(manifest)
    images = [
        SourceImage(
            path=manifest.parent / row["path"],
            name=row["path"],
            label=_composed(row["label"]),
            split=_split_name(manifest, row["split"]),
            domain=_composed(row["domain"]),
            group=_composed(row["group"]),
        )
        for row in rows
    ]
    without = sum(not image.split for image in images)
    if 0 < without < len(images):
        raise DataError(f"{manifest} gives a split for some rows but not for {without}: fill in all of them or none")
    return Source(sorted(images, key=lambda i: (i.name, i.label)), sorted({image.label for image in images}))


def _split_name(manifest: Path, text: str) -> str:
    if text and text.lower() not in SPLIT_NAMES:
        raise DataError(f"{manifest} has the split {text!r}: use train, validation or test")
    return SPLIT_NAMES[text.lower()] if text else ""


def _list_folders(root: Path) -> Source:
    """Class folders, directly in the root or below its split folders."""
    ignored: Counter[str] = Counter()
    stray = _image_files(root, ignored)
    parents = {root: ""}
    if _folders(root) and all(folder.name.lower() in SPLIT_NAMES for folder in _folders(root)):
        parents = {folder: SPLIT_NAMES[folder.name.lower()] for folder in _folders(root)}
        stray += [path for folder in parents for path in _image_files(folder, ignored)]
    images, labels = [], set()
    for parent, split in parents.items():
        for folder in _class_folders(parent):
            label = _composed(folder.name)
            labels.add(label)
            for path in _image_files(folder, ignored):
                images.append(SourceImage(path, path.relative_to(root).as_posix(), label, split))
    if not images:
        raise DataError(f"{root} has class folders but no images in them: {_LAYOUTS}")
    if stray:
        ignored["outside class folders"] = len(stray)
    return Source(sorted(images, key=lambda image: image.name), sorted(labels), dict(ignored))


def _class_folders(parent: Path) -> list[Path]:
    folders = _folders(parent)
    if not folders:
        stray = len(_image_files(parent, Counter()))
        found = f"found {stray} images directly in {parent} but" if stray else f"{parent} has"
        raise DataError(f"{found} no class folders: {_LAYOUTS}")
    for inner in (inner for folder in folders for inner in _folders(folder)):
        deep = next((path for path in _walk(inner) if _is_image(path)), None)
        if deep:
            raise DataError(f"{deep} lies too deep: {_LAYOUTS} (for ROOT/DOMAIN/CLASS: one with a domain column)")
    return folders


def _image_files(folder: Path, ignored: Counter[str]) -> list[Path]:
    """Returns the image files directly in `folder`, and counts the other files by reason."""
    files = sorted(path for path in folder.iterdir() if not path.is_dir())
    for path in files:
        if path.name.startswith("."):
            ignored["hidden"] += 1
        elif not _is_image(path):
            ignored["not an image"] += 1
    return [path for path in files if _is_image(path)]


def _folders(parent: Path) -> list[Path]:
    return sorted(p for p in parent.iterdir() if p.is_dir() and not p.name.startswith((".", "__MACOSX")))


def _walk(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(parent) / name for name in sorted(files) if not name.startswith("."))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def _composed(name: str) -> str:
    """One spelling for names with accents, which file systems store in two ways."""
    return unicodedata.normalize("NFC", name)


def _state(path: Path) -> str:
    try:
        stat = path.stat()
    except OSError:
        return "missing"
    return f"{stat.st_size} {stat.st_mtime_ns}"


def _unpack(archive: Path, folder: Path) -> None:
    try:
        if archive.suffix.lower() == ".zip":
            shutil.unpack_archive(archive, folder)
        else:
            shutil.unpack_archive(archive, folder, filter="data")
    except (shutil.ReadError, EOFError, OSError) as error:
        raise DataError(f"{archive} cannot be unpacked: {error}") from error


def _only_folder(folder: Path) -> Path:
    """Goes down while there is nothing but one folder, as archives of a folder have it."""
    while len(list(folder.iterdir())) == 1 and len(_folders(folder)) == 1:
        folder = _folders(folder)[0]
    return folder
