"""Checkpoints written beside and renamed; a damaged one is skipped and the one before it used.

They hold tensors, numbers and strings only and are read with `weights_only=True`, so nothing in them is executed.
"""

import shutil
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from pickle import UnpicklingError
from typing import Any

import torch

from graftline.errors import GraftlineError, StoreError
from graftline.files import beside, sha256_bytes
from graftline.progress import say
from graftline.storage.store import Store
from graftline.words import size

_KEPT = 2
_TOOLS = ("graftline", "timm", "torch")


def run_name(parts: Sequence[str]) -> str:
    """Names a training run by what decides its weights, and by the versions that its checkpoints can be read with.

    Args:
        parts: Data, policy, plan, seed, arithmetic.
    """
    return sha256_bytes("\n".join([*parts, *map(version, _TOOLS)]).encode())[:16]


class Checkpoints:
    """The last checkpoints of one training run.

    Args:
        folder: Where they lie; created if missing. Its name is that of the run.
        store: Where copies of them are kept, for machines that are taken away; None: nowhere.
        writes: Whether this process writes; of several that train together one does.
    """

    def __init__(self, folder: Path, store: Store | None = None, writes: bool = True) -> None:
        self._folder, self._store, self._writes = folder, store, writes
        folder.mkdir(parents=True, exist_ok=True)

    def save(self, state: dict[str, Any], epoch: int, step: int = 0) -> None:
        """Saves the state. Kept are this one, the one before it, the last two after whole epochs, and none beyond.

        Args:
            state: Nested dicts and lists of tensors, numbers and strings.
            epoch: Epochs finished.
            step: Steps made since.

        Raises:
            GraftlineError: The disk is full, or the folder cannot be written to.
        """
        if not self._writes:
            return
        path = self._folder / f"epoch-{epoch:04d}-{step:06d}.pt"
        try:
            with beside(path) as new:  # the same run may be started twice
                torch.save(state, new)
        except (OSError, RuntimeError) as error:  # PyTorch's writer has errors of its own for a full disk
            free = shutil.disk_usage(self._folder).free
            raise GraftlineError(
                f"the checkpoint cannot be written to {self._folder} ({size(free)} free): {error}; "
                "run the same again when it can, it goes on from the checkpoint before"
            ) from error
        self._mirror(path, self._forget(path))

    def latest(self) -> dict[str, Any] | None:
        """Returns the newest readable state, None when there is none. Says so when it skips a damaged file."""
        if not self._paths():
            self._fetch()
        return self._first_readable(self._paths()[::-1])

    def latest_whole(self, before_last: bool = False) -> dict[str, Any] | None:
        """Returns the newest readable state after a whole epoch; where none can be read, the newest of all.

        Args:
            before_last: The one before it, where there is one.
        """
        whole = list(filter(_is_whole, self._paths()))
        wanted = whole[:-1] if before_last and len(whole) > 1 else whole
        others = [path for path in self._paths() if path not in wanted]
        return self._first_readable([*wanted[::-1], *others[::-1]])

    def _first_readable(self, paths: list[Path]) -> dict[str, Any] | None:
        for path in paths:
            try:
                state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
                return state
            except (RuntimeError, EOFError, OSError, ValueError, UnpicklingError) as error:
                say(f"{path.name} is damaged ({type(error).__name__}); using the checkpoint before it")
        return None

    def clear(self) -> None:
        """Removes all checkpoints: the run is finished and its output is written."""
        if not self._writes:
            return
        for path in self._folder.glob("*epoch-*"):  # and what a kill left half written
            path.unlink(missing_ok=True)
        if self._store:
            for key in list(self._store.keys(self._place)):
                self._store.delete(key)

    def _forget(self, newest: Path) -> list[Path]:
        """Removes what is not to be kept; what lies beyond the newest is of steps that were taken back."""
        until = [path for path in self._paths() if path <= newest]
        kept = {*until[-_KEPT:], *list(filter(_is_whole, until))[-_KEPT:]}
        gone = [path for path in self._paths() if path not in kept]
        for path in gone:
            path.unlink(missing_ok=True)
        return gone

    def _mirror(self, path: Path, gone: Sequence[Path]) -> None:
        if not self._store:
            return
        try:
            self._store.upload(path, f"{self._place}/{path.name}")
            for old in gone:
                self._store.delete(f"{self._place}/{old.name}")
        except StoreError as error:
            say(f"the checkpoint is on this machine only: {error}")

    def _fetch(self) -> None:
        if not self._store:
            return
        for key in self._store.keys(self._place):
            name = PurePosixPath(key).name
            self._store.download(key, self._folder / name)
            say(f"continuing from what the store holds: {name}")

    @property
    def _place(self) -> str:
        return f"checkpoints/{self._folder.name}"

    def _paths(self) -> list[Path]:
        return sorted(self._folder.glob("epoch-*.pt"))


def _is_whole(path: Path) -> bool:
    """Whether a checkpoint was saved between two epochs."""
    return path.stem.endswith("-000000")
