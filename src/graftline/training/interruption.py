"""Termination (SIGTERM: a spot machine is taken away) as a flag that the loop looks at between steps."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

PREEMPTED = 128 + signal.SIGTERM


class Termination:
    """Whether the process was asked to end."""

    def __init__(self) -> None:
        self.asked = False

    def ask(self, number: int = signal.SIGTERM, frame: FrameType | None = None) -> None:
        """Remembers the request; usable as a signal handler."""
        self.asked = True


@contextmanager
def caught_termination() -> Iterator[Termination]:
    """Turns SIGTERM into a flag while the block runs (in the main thread; elsewhere Python allows no handlers)."""
    termination = Termination()
    if threading.current_thread() is not threading.main_thread():
        yield termination
        return
    before = signal.signal(signal.SIGTERM, termination.ask)
    try:
        yield termination
    finally:
        signal.signal(signal.SIGTERM, before)
