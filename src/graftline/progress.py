"""Progress of long work: a rich bar at a terminal, JSON lines for whoever started the process.

A step that runs inside a pipeline task has its output captured, so the process that started it sets
`GRAFTLINE_PROGRESS` to a file; every update is appended there as one JSON line and drawn by the starter.
"""

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

T = TypeVar("T")
_EVERY_SECONDS = 0.2


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Yields `items` and shows how far it has come.

    Args:
        items: Anything iterable.
        description: What is being done, in a few words ("decoding images").
        total: Number of items; taken from `len(items)` when it has one.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    with _reporter(description, total) as report:
        for done, item in enumerate(items, start=1):
            yield item
            report(done)


def say(message: str) -> None:
    """Tells the user one line of what is happening, at a terminal or through the progress file."""
    if not speaks():
        return
    target = os.environ.get("GRAFTLINE_PROGRESS")
    if target:
        _append(Path(target), {"message": message})
    else:
        print(message, file=sys.stderr)


def speaks() -> bool:
    """Whether this process speaks to the user: of several that train together (torchrun) only the first does."""
    return os.environ.get("RANK", "0") == "0"


@contextlib.contextmanager
def _reporter(description: str, total: int | None) -> Iterator["_Report"]:
    target = os.environ.get("GRAFTLINE_PROGRESS")
    if not speaks():
        yield _Report()
    elif target:
        yield _FileReport(Path(target), description, total)
    elif sys.stderr.isatty():
        with _bar() as progress:
            task = progress.add_task(description, total=total)
            yield _BarReport(progress, task)
    else:
        yield _Report()


class _Report:
    """Shows nothing: there is no terminal and nobody listens, or another process speaks."""

    def __call__(self, done: int) -> None:
        """Reports that `done` items are finished."""


class _BarReport(_Report):
    """Draws a bar."""

    def __init__(self, progress: "Progress", task: "TaskID") -> None:
        self._progress, self._task = progress, task

    def __call__(self, done: int) -> None:
        self._progress.update(self._task, completed=done)


class _FileReport(_Report):
    """Appends JSON lines, at most five a second, and always the last one."""

    def __init__(self, path: Path, description: str, total: int | None) -> None:
        self._path, self._description, self._total, self._last = path, description, total, 0.0

    def __call__(self, done: int) -> None:
        now = time.monotonic()
        if done == self._total or now - self._last >= _EVERY_SECONDS:
            self._last = now
            _append(self._path, {"description": self._description, "done": done, "total": self._total})


def _append(path: Path, event: dict[str, object]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(event) + "\n")


def _bar() -> "Progress":
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=Console(stderr=True), transient=True)
