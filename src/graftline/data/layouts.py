"""The forms that a source can have: class folders, split folders, or a manifest. Only the manifest is opened."""

import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from graftline.data.remote import place_of
from graftline.data.trees import File, Tree, is_hidden_file, is_image
from graftline.errors import DataError
from graftline.storage.objects import StoredObject

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}
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
        object: The object of which `path` is a copy; None for a file of the user's own.
    """

    path: Path
    name: str
    label: str
    split: str = ""
    domain: str = ""
    group: str = ""
    object: StoredObject | None = None


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


def list_manifest(name: str, rows: Sequence[Mapping[str, str]], files: Mapping[str, File]) -> Source:
    """Lists the images of a manifest.

    Args:
        name: How the user calls it.
        rows: Its rows, as `read_manifest` gives them.
        files: Where each image lies, by the row's path.

    Raises:
        DataError: A split has an unknown name, or is given for some rows only.
    """
    images = [
        SourceImage(
            path=place_of(files[row["path"]]),
            name=row["path"],
            label=_composed(row["label"]),
            split=_split_name(name, row["split"]),
            domain=_composed(row["domain"]),
            group=_composed(row["group"]),
            object=_object(files[row["path"]]),
        )
        for row in rows
    ]
    without = sum(not image.split for image in images)
    if 0 < without < len(images):
        raise DataError(f"{name} gives a split for some rows but not for {without}: fill in all of them or none")
    return Source(sorted(images, key=lambda i: (i.name, i.label)), sorted({image.label for image in images}))


def list_folders(tree: Tree) -> Source:
    """Lists class folders, directly in the root or below its split folders.

    Raises:
        DataError: The folders have neither form, or hold no images.
    """
    ignored: Counter[str] = Counter()
    stray = _images_in(tree, "", ignored)
    parents, top = {"": ""}, tree.folders_in("")
    if top and all(folder.lower() in SPLIT_NAMES for folder in top):
        parents = {folder: SPLIT_NAMES[folder.lower()] for folder in top}
        stray += [name for folder in parents for name in _images_in(tree, folder, ignored)]
    images, labels = [], set()
    for parent, split in parents.items():
        for folder in _class_folders(tree, parent):
            label = _composed(folder.rpartition("/")[2])
            labels.add(label)
            for name in _images_in(tree, folder, ignored):
                file = tree.files[name]
                images.append(SourceImage(place_of(file), name, label, split, object=_object(file)))
    if not images:
        raise DataError(f"{tree.root} has class folders but no images in them: {_LAYOUTS}")
    if stray:
        ignored["outside class folders"] = len(stray)
    return Source(sorted(images, key=lambda image: image.name), sorted(labels), dict(ignored))


def _object(file: File) -> StoredObject | None:
    return file if isinstance(file, StoredObject) else None


def _split_name(manifest: str, text: str) -> str:
    if text and text.lower() not in SPLIT_NAMES:
        raise DataError(f"{manifest} has the split {text!r}: use train, validation or test")
    return SPLIT_NAMES[text.lower()] if text else ""


def _class_folders(tree: Tree, parent: str) -> list[str]:
    folders, address = tree.folders_in(parent), tree.address(parent)
    if not folders:
        stray = len(_images_in(tree, parent, Counter()))
        found = f"found {stray} images directly in {address} but" if stray else f"{address} has"
        raise DataError(f"{found} no class folders: {_LAYOUTS}")
    start = f"{parent}/" if parent else ""
    deep = [name for name in tree.images if name.startswith(start) and name[len(start) :].count("/") > 1]
    if not parent:
        _refuse_odd(tree, {name.partition("/")[0] for name in deep})
    if deep:
        raise DataError(
            f"{tree.address(deep[0])} lies too deep: {_LAYOUTS} (for ROOT/DOMAIN/CLASS: one with a domain column)"
        )
    return folders


def _refuse_odd(tree: Tree, deep: Collection[str]) -> None:
    """Raises a DataError that names what lies beside split folders: `deep` are the folders with folders in them."""
    splits = sorted(folder for folder in deep if folder.lower() in SPLIT_NAMES)
    odd = [folder for folder in tree.folders_in("") if folder.lower() not in SPLIT_NAMES]
    if splits and odd:
        raise DataError(
            f"{tree.root} has the split folders {', '.join(splits)} and, beside them, {', '.join(odd)}: "
            "move what is no split elsewhere, or name it train, validation or test"
        )


def _images_in(tree: Tree, folder: str, ignored: Counter[str]) -> list[str]:
    """Returns the names of the images directly in a folder, and counts the other files by reason."""
    names = tree.files_in(folder)
    for name in names:
        if is_hidden_file(name):
            ignored["hidden"] += 1
        elif not is_image(name):
            ignored["not an image"] += 1
    return [name for name in names if is_image(name)]


def _composed(name: str) -> str:
    """One spelling for names with accents, which file systems store in two ways."""
    return unicodedata.normalize("NFC", name)
