"""Images that lie in S3: found by one listing, copied once, and kept in the cache under a name made of their stamp.

A key is anybody's text, so no key becomes a path. An object that has changed has another stamp, and is fetched anew.
"""

import os
import posixpath
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from graftline.data.parallel import map_threads
from graftline.data.trees import File
from graftline.errors import DataError
from graftline.progress import say, track
from graftline.storage.objects import CONNECTIONS, Objects, StoredObject, is_url, is_whole, split_url
from graftline.words import size
from graftline.workspace import cache_folder


def place_of(file: File, suffix: str = "") -> Path:
    """Returns where a file lies: of an object, where its copy does, or will.

    Args:
        file: A path or an object.
        suffix: One of our own for the copy's name, where a reader goes by it.
    """
    if isinstance(file, Path):
        return file
    return cache_folder() / "objects" / file.stamp[:2] / f"{file.stamp}{suffix}"


def fetch_one(objects: Objects, item: StoredObject, suffix: str = "") -> Path:
    """Returns the copy of an object, fetched unless it is there.

    Raises:
        StoreError: It cannot be fetched.
    """
    path = place_of(item, suffix)
    if not is_whole(path, item):
        objects.fetch(item, path)
    return path


def fetch_all(objects: Objects, items: Iterable[StoredObject]) -> None:
    """Fetches the objects whose copies are not there; what was fetched stays, also when this is stopped.

    Raises:
        StoreError: One of them cannot be fetched; the rest is given up.
    """
    there = {item.stamp: item for item in items if item.etag}
    new = [item for item in there.values() if not is_whole(place_of(item), item)]
    if not new:
        return
    copies = map_threads(lambda item: fetch_one(objects, item), new, CONNECTIONS)
    for _ in track(copies, "fetching images", total=len(new)):
        pass
    fetched, before = sum(item.size for item in new), len(there) - len(new)
    say(f"fetched {len(new):,} images ({size(fetched)}); {before:,} were here already")


def locate(objects: Objects, manifest: str, base: Path | str, paths: Sequence[str]) -> dict[str, File]:
    """Finds the images that a manifest names.

    Args:
        objects: Where S3 is asked, once for each bucket.
        manifest: How the user calls it.
        base: What relative paths are relative to: a folder, or `s3://bucket/prefix`.
        paths: As its rows have them: relative, absolute, or `s3://` URLs.

    Returns:
        A file for each path; an object that is not there has no etag.

    Raises:
        DataError: A manifest in S3 names a file of a machine, or one outside its bucket.
        StoreError: S3 cannot be asked.
    """
    addresses = {path: _address(manifest, base, path) for path in paths}
    found = _find_all(objects, {address for address in addresses.values() if isinstance(address, str)})
    return {path: found[place] if isinstance(place, str) else place for path, place in addresses.items()}


def _address(manifest: str, base: Path | str, path: str) -> Path | str:
    if is_url(path):
        return path
    if isinstance(base, Path):
        return base / path
    bucket, prefix = split_url(base)
    key = posixpath.normpath(posixpath.join(prefix, path))
    if posixpath.isabs(path) or key.split("/")[0] == "..":
        raise DataError(f"{manifest} names {path}, which is not in its bucket: write paths relative to it, or s3://")
    return f"s3://{bucket}/{key}"


def _find_all(objects: Objects, urls: Iterable[str]) -> dict[str, StoredObject]:
    """Finds objects by one listing per bucket, of the deepest prefix that they share."""
    keys = defaultdict(list)
    for url in urls:
        bucket, key = split_url(url)
        keys[bucket].append(key)
    found = {}
    for bucket, wanted in keys.items():
        listed = {item.key: item for item in objects.under(f"s3://{bucket}/{_shared_folder(wanted)}")}
        for key in wanted:
            found[f"s3://{bucket}/{key}"] = listed.get(key) or StoredObject(bucket, key, 0, "")
    return found


def _shared_folder(keys: Sequence[str]) -> str:
    """Returns the longest common beginning that ends with a slash, or ''."""
    before, slash, _ = os.path.commonprefix(list(keys)).rpartition("/")  # noqa: RUF071 - cut at a slash here
    return before + slash
