"""The names below a root, be it a folder or a prefix of a bucket. Nothing is opened."""

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from graftline.errors import DataError
from graftline.storage.objects import StoredObject
from graftline.workspace import workspace

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif")
File = Path | StoredObject


@dataclass(frozen=True)
class Tree:
    """The files and folders below a root, without hidden folders.

    Attributes:
        root: How the user calls it.
        files: Where each file lies, by its name relative to the root, with slashes.
        folders: Names of all folders, also of empty ones; '' is the root.
    """

    root: str
    files: Mapping[str, File]
    folders: frozenset[str]

    def files_in(self, folder: str) -> list[str]:
        """Returns the names of the files directly in a folder, sorted."""
        return sorted(self._files_by_folder.get(folder, ()))

    def folders_in(self, folder: str) -> list[str]:
        """Returns the names of the folders directly in a folder, sorted."""
        return sorted(self._folders_by_folder.get(folder, ()))

    def address(self, name: str) -> str:
        """Returns how the user calls what has that name."""
        return f"{self.root}/{name}" if name else self.root

    @cached_property
    def images(self) -> list[str]:
        """Names of all image files, sorted."""
        return sorted(filter(is_image, self.files))

    @cached_property
    def _files_by_folder(self) -> dict[str, list[str]]:
        return _by_parent(self.files)

    @cached_property
    def _folders_by_folder(self) -> dict[str, list[str]]:
        return _by_parent(self.folders - {""})


def tree_of_folder(folder: Path, name: str) -> Tree:
    """Lists a folder, which the user calls `name`; links are followed.

    A workspace in it is left out: the one by default lies in the current folder, which may be that of the images.

    Raises:
        DataError: A name in it is not UTF-8, so that it cannot be written down.
    """
    files: dict[str, File] = {}
    folders, own = {""}, workspace().resolve()
    for parent, inner, names in os.walk(folder, followlinks=True):
        inner[:] = [each for each in inner if not _is_hidden(each) and Path(parent, each).resolve() != own]
        for each in (*inner, *names):
            _refuse_unreadable(each, parent)
        base = Path(parent).relative_to(folder).as_posix()
        start = "" if base == "." else f"{base}/"
        folders |= {f"{start}{each}" for each in inner}
        files |= {f"{start}{each}": Path(parent, each) for each in names}
    return Tree(name, files, frozenset(folders))


def tree_of_objects(url: str, objects: Iterable[StoredObject]) -> Tree:
    """Makes a tree of what lies below a prefix; an object whose name ends with a slash is an empty folder.

    Args:
        url: `s3://bucket/prefix`, without a slash at the end.
        objects: All objects below it.
    """
    files: dict[str, File] = {}
    folders = {""}
    for item in objects:
        *parents, last = item.url.removeprefix(f"{url}/").split("/")
        if any(_is_hidden(name) for name in parents):
            continue
        folders |= {"/".join(parents[:depth]) for depth in range(1, len(parents) + 1)}
        if last:
            files["/".join([*parents, last])] = item
    return Tree(url, files, frozenset(folders))


def is_image(name: str) -> bool:
    """Returns whether a file's name is that of an image, and not hidden."""
    return name.lower().endswith(IMAGE_SUFFIXES) and not is_hidden_file(name)


def is_hidden_file(name: str) -> bool:
    """Returns whether a file's name, with or without folders before it, begins with a dot."""
    return name.rpartition("/")[2].startswith(".")


def _refuse_unreadable(name: str, parent: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        spelt = os.fsencode(name).decode(errors="backslashreplace")
        raise DataError(f"the name of {spelt} in {parent} is not UTF-8: rename it") from error


def _is_hidden(folder: str) -> bool:
    """Hidden folders, and names that only keys of objects can have: '', '.' and '..'."""
    return not folder or folder.startswith((".", "__MACOSX"))


def _by_parent(names: Iterable[str]) -> dict[str, list[str]]:
    found = defaultdict(list)
    for name in names:
        found[name.rpartition("/")[0]].append(name)
    return found
