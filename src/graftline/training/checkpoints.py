"""Checkpoints written beside and renamed; a damaged one is skipped and the one before it used.

They hold tensors, numbers and strings only and are read with `weights_only=True`, so nothing in them is executed.
"""

import os
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from graftline.errors import StoreError
from graftline.files import sha256_bytes
from graftline.progress import say
from graftline.storage.store import Store

_KEPT = 2
_MIRRORED = "latest.pt"
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
        store: Where a copy of the last one is kept, for machines that are taken away; None: nowhere.
        writes: Whether this process writes; of several that train together one does.
    """

    def __init__(self, folder: Path, store: Store | None = None, writes: bool = True) -> None:
        self._folder, self._store, self._writes = folder, store, writes
        folder.mkdir(parents=True, exist_ok=True)

    def save(self, state: dict[str, Any], epoch: int, step: int = 0) -> None:
        """Saves the state. Kept are this one, the one before it, the last one after a whole epoch, and none beyond.

        Args:
            state: Nested dicts and lists of tensors, numbers and strings.
            epoch: Epochs finished.
            step: Steps made since.
        """
        if not self._writes:
            return
        path = self._folder / f"epoch-{epoch:04d}-{step:06d}.pt"
        beside = path.with_suffix(f".{os.getpid()}.part")  # the same run may be started twice
        torch.save(state, beside)
        beside.replace(path)
        self._forget(path)
        self._mirror(path)

    def latest(self) -> dict[str, Any] | None:
        """Returns the newest readable state, None when there is none. Says so when it skips a damaged file."""
        if not self._paths():
            self._fetch()
        return self._first_readable(self._paths()[::-1])

    def latest_whole(self) -> dict[str, Any] | None:
        """Returns the newest readable state after a whole epoch; where it was not kept, the newest of all."""
        return self._first_readable(sorted(self._paths(), key=_is_whole)[::-1])

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
        for path in self._folder.glob("epoch-*"):
            path.unlink(missing_ok=True)
        if self._store and self._store.exists(self._key()):
            self._store.delete(self._key())

    def _forget(self, newest: Path) -> None:
        """Removes what is not to be kept; what lies beyond the newest is of steps that were taken back."""
        until = [path for path in self._paths() if path <= newest]
        kept = {*until[-_KEPT:], *list(filter(_is_whole, until))[-1:]}
        for path in set(self._paths()) - kept:
            path.unlink(missing_ok=True)

    def _mirror(self, path: Path) -> None:
        if not self._store:
            return
        try:
            self._store.upload(path, self._key())
        except StoreError as error:
            say(f"the checkpoint is on this machine only: {error}")

    def _fetch(self) -> None:
        if self._store and self._store.exists(self._key()):
            self._store.download(self._key(), self._folder / "epoch-0000-000000.pt")
            say("continuing from the checkpoint in the store")

    def _key(self) -> str:
        return f"checkpoints/{self._folder.name}/{_MIRRORED}"

    def _paths(self) -> list[Path]:
        return sorted(self._folder.glob("epoch-*.pt"))


def _is_whole(path: Path) -> bool:
    """Whether a checkpoint was saved between two epochs."""
    return path.stem.endswith("-000000")
