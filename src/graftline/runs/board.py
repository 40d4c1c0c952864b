"""What a run looks like while it runs: one line per step, drawn from the events of the progress file.

A step that runs several times, once for each candidate, has a line for each: `fine_tune`, `fine_tune 2`.
"""

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftline.steps import STEPS
from graftline.words import clock

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

Event = dict[str, Any]
_MARKS = {
    "waiting": ("·", "dim"),
    "running": ("▸", "cyan"),
    "cached": ("✓", "green"),
    "done": ("✓", "green"),
    "failed": ("✗", "bold red"),
    "stopped": ("■", "yellow"),
}
_PLAIN_EVERY_SECONDS = 15.0


@dataclass
class Step:
    """A line of the board.

    Attributes:
        state: waiting, running, cached, done, failed or stopped.
        started: When it began, in seconds since the epoch.
        seconds: How long it took, once it has ended.
        message: The last thing it said.
        doing: What it is doing now; empty between long works.
        done: How far that has come.
        total: How far it has to go, when that is known.
        error: The last line of its traceback, if it failed.
    """

    state: str = "waiting"
    started: float = 0.0
    seconds: float = 0.0
    message: str = ""
    doing: str = ""
    done: int = 0
    total: int | None = None
    error: str = ""


def line_name(step: str, number: int) -> str:
    """Returns the name of the line of a step's task of that number, from 1 on."""
    return step if number == 1 else f"{step} {number}"


def step_of(line: str) -> str:
    """Returns the step that a line is of."""
    return line.partition(" ")[0]


class Board:
    """The state of all steps, kept up to date by events.

    Args:
        names: The steps, in the order of the pipeline.

    Attributes:
        steps: The lines, in the order of the pipeline.
        running: Name of the line of the step that is running, or ''.
    """

    def __init__(self, names: Sequence[str] = STEPS) -> None:
        self.steps = {name: Step() for name in names}
        self.running = ""

    def take(self, event: Event) -> None:
        """Takes one event: a step's change of state, or the progress or a message of the step that is running."""
        if "state" in event:
            self._change(event)
            return
        step = self.steps.get(self.running, Step())
        if "message" in event:
            step.message, step.doing = event["message"], ""
        else:
            finished = event["done"] == event["total"]
            step.doing = "" if finished else event["description"]
            step.done, step.total = event["done"], event["total"]

    def _change(self, event: Event) -> None:
        step = self._line(event["step"])
        step.state, step.doing, step.error = event["state"], "", event.get("error", "")
        if step.state == "running":
            self.running, step.started = event["step"], event["time"]
            return
        if step.started:  # on a cluster several steps run at a time
            step.seconds = event["time"] - step.started
        if self.running == event["step"]:
            self.running = ""

    def _line(self, name: str) -> Step:
        """Returns a line of that name; a new one goes below the others of its step."""
        if name not in self.steps:
            names = list(self.steps)
            last = max(at for at, other in enumerate(names) if step_of(other) == step_of(name))
            self.steps = {line: self.steps.get(line, Step()) for line in [*names[: last + 1], name, *names[last + 1 :]]}
        return self.steps[name]

    def end(self, state: str) -> None:
        """Gives a step that was still running its last state: the run has ended under it."""
        if self.running:
            self.take({"step": self.running, "state": state, "time": time.time()})

    @property
    def failed(self) -> str:
        """Name of the line of the step that failed, or ''."""
        return next((name for name, step in self.steps.items() if step.state == "failed"), "")


def plain_line(board: Board, event: Event) -> str:
    """Returns one line of text for an event that the board has just taken."""
    if "state" in event:
        step = board.steps[event["step"]]
        took = f" in {clock(step.seconds)}" if step.state in ("done", "failed") else ""
        return f"{event['step']}: {step.state}{took}"
    if "message" in event:
        return f"{board.running}: {event['message']}"
    total = "" if event["total"] is None else f" of {event['total']:,}"
    return f"{board.running}: {event['description']}, {event['done']:,}{total}"


def draw(board: Board) -> "Table":
    """Returns the board for rich: mark, name, time and what the step is doing."""
    from rich.table import Table
    from rich.text import Text

    names = max(map(len, board.steps))
    # Room is left at the right for the ^C of an interrupt, which would otherwise begin a new line.
    room = max(shutil.get_terminal_size().columns - names - 20, 20)
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(width=1)
    table.add_column(width=names)
    table.add_column(width=7, justify="right")
    table.add_column(max_width=room, no_wrap=True, overflow="ellipsis")
    for name, step in board.steps.items():
        mark, style = _MARKS[step.state]
        quiet = "dim" if step.state in ("waiting", "cached") else ""
        table.add_row(Text(mark, style), Text(name, quiet), Text(_time_of(step), "dim"), _note_of(step))
    return table


def _time_of(step: Step) -> str:
    if step.state == "waiting":
        return ""
    if step.state == "cached":
        return "cached"
    return clock(time.time() - step.started if step.state == "running" else step.seconds)


def _note_of(step: Step) -> "RenderableType":
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    if not step.doing:
        return Text(step.message, style="" if step.state == "running" else "dim")
    count = f"{step.done:,}" if step.total is None else f"{step.done:,}/{step.total:,}"
    row = Table.grid(padding=(0, 1, 0, 0))
    row.add_row(Text(step.doing), ProgressBar(step.total, step.done, width=24), Text(count, "dim"))
    return row


@contextmanager
def show(board: Board, progress: Path) -> Iterator[Callable[[], None]]:
    """Shows a board on standard error while the block runs: drawn in place at a terminal, as plain lines elsewhere.

    Args:
        board: What is shown.
        progress: The file whose events it takes.

    Yields:
        A function to call a few times a second: it takes what is new in the file and shows it.
    """
    events = _Events(progress)
    if not sys.stderr.isatty():
        yield _Plain(board, events)
        return
    from rich.console import Console
    from rich.live import Live

    def refresh() -> None:
        for event in events.read():
            board.take(event)

    with Live(console=Console(stderr=True), refresh_per_second=8, get_renderable=lambda: draw(board)):
        yield refresh


class _Plain:
    """Prints events as lines; of the progress of a long work only a line now and then."""

    def __init__(self, board: Board, events: "_Events") -> None:
        self._board, self._events, self._last = board, events, 0.0

    def __call__(self) -> None:
        for event in self._events.read():
            self._board.take(event)
            if "description" in event and time.monotonic() - self._last < _PLAIN_EVERY_SECONDS:
                continue
            self._last = time.monotonic()
            print(plain_line(self._board, event), file=sys.stderr, flush=True)


class _Events:
    """Reads the lines that were appended to a file since the last time."""

    def __init__(self, path: Path) -> None:
        self._path, self._offset = path, 0

    def read(self) -> list[Event]:
        with self._path.open("rb") as file:
            file.seek(self._offset)
            content = file.read()
        whole = content[: content.rfind(b"\n") + 1]
        self._offset += len(whole)
        return [json.loads(line) for line in whole.splitlines()]
