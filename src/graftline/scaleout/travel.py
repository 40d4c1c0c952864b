"""Folders through the store, between machines that see none of each other's disks.

A folder's record goes last: where it lies, everything does.
"""

from pathlib import Path

from graftline.files import output_folder
from graftline.progress import track
from graftline.records.base import RECORD_FILE
from graftline.storage import Store


def send_folder(store: Store, folder: Path, key: str) -> None:
    """Uploads a step's output folder.

    Args:
        store: Where to.
        folder: It has a record.
        key: The folder's place in the store; what other folder lay there is gone before.

    Raises:
        StoreError: The store refuses or does not answer.
    """
    remove_folder(store, key)
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / RECORD_FILE)
    for path in track([*paths, folder / RECORD_FILE], f"sending {key.rpartition('/')[2]}"):
        store.upload(path, f"{key}/{path.relative_to(folder).as_posix()}")


def fetch_folder(store: Store, key: str, out: Path) -> None:
    """Downloads a folder.

    Args:
        store: Where from.
        key: The folder's place in the store.
        out: The folder to make.

    Raises:
        StoreError: It is not there or not whole, or the store refuses or does not answer.
    """
    with output_folder(out) as folder:
        store.download(f"{key}/{RECORD_FILE}", folder / RECORD_FILE)
        for name in track(list(store.keys(key)), f"fetching {key.rpartition('/')[2]}"):
            store.download(name, folder / name.removeprefix(f"{key}/"))


def remove_folder(store: Store, key: str) -> None:
    """Removes all that lies below a key, the record first.

    Raises:
        StoreError: The store refuses or does not answer.
    """
    store.delete(f"{key}/{RECORD_FILE}")
    for name in list(store.keys(key)):
        store.delete(name)
