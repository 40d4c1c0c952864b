"""File locks that end with the process that holds them, however it ends."""

import contextlib
import fcntl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

EXCLUSIVE, SHARED = fcntl.LOCK_EX, fcntl.LOCK_SH


def try_lock(file: IO[str], how: int) -> bool:
    """Takes an exclusive or shared lock of an open file; returns False when others hold it against that."""
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def unlock(file: IO[str]) -> None:
    """Gives the lock of an open file back."""
    fcntl.flock(file, fcntl.LOCK_UN)


@contextlib.contextmanager
def lock(path: Path) -> Iterator[None]:
    """Holds the exclusive lock of `path` (created if missing) while the block runs; waits for its turn."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        fcntl.flock(file, EXCLUSIVE)
        yield


def is_held(path: Path) -> bool:
    """Returns whether another process holds the exclusive lock of `path`."""
    with path.open("a", encoding="utf-8") as file:
        return not try_lock(file, SHARED)


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Asks every 50 ms until `condition` holds; returns False when it does not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
