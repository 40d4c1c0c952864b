"""Where graftline keeps what outlives a command: the embedded store, the registries, caches and runs."""

import os
from pathlib import Path


def workspace() -> Path:
    """Returns the workspace: `GRAFTLINE_WORKSPACE`, or `graftline-work` in the current folder. Not created here."""
    return expanded(os.environ.get("GRAFTLINE_WORKSPACE") or "graftline-work").absolute()


def cache_folder() -> Path:
    """Returns the folder of what can be computed again (decoded images, features), created if missing.

    It is `GRAFTLINE_CACHE`, which several machines may share, or `cache` in the workspace.
    """
    folder = expanded(os.environ.get("GRAFTLINE_CACHE") or str(workspace() / "cache")).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def expanded(path: str) -> Path:
    """Returns a path as a user writes it: `~` is their home; what names nobody's home stays as it is."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - Path.expanduser raises where there is no such home
