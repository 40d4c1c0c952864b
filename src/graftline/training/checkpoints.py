"""Checkpoints written beside and renamed; a damaged one is skipped and the one before it used.

They hold tensors, numbers and strings only and are read with `weights_only=True`, so nothing in them is executed.
"""

from pathlib import Path
from typing import Any

import torch

from graftline.progress import say

_KEPT = 2


class Checkpoints:
    """The last checkpoints of one training run.

    Args:
        folder: Where they lie; created if missing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def save(self, epoch: int, state: dict[str, Any]) -> None:
        """Saves the state after `epoch` epochs and forgets all but the last two.

        Args:
            epoch: Epochs finished.
            state: Nested dicts and lists of tensors, numbers and strings.
        """
        path = self._folder / f"epoch-{epoch:04d}.pt"
        beside = path.with_suffix(".part")
        torch.save(state, beside)
        beside.replace(path)
        for old in self._paths()[:-_KEPT]:
            old.unlink()

    def latest(self) -> dict[str, Any] | None:
        """Returns the newest readable state, None when there is none. Says so when it skips a damaged file."""
        for path in reversed(self._paths()):
            try:
                state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
                return state
            except (RuntimeError, EOFError, OSError, ValueError) as error:
                say(f"{path.name} is damaged ({type(error).__name__}); using the checkpoint before it")
        return None

    def clear(self) -> None:
        """Removes all checkpoints: the run is finished and its output is written."""
        for path in self._folder.glob("epoch-*"):
            path.unlink()

    def _paths(self) -> list[Path]:
        return sorted(self._folder.glob("epoch-*.pt"))
