"""Termination (SIGTERM: a spot machine is taken away; SIGINT: Ctrl-C) as a flag to be looked at between steps."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

PREEMPTED = 128 + signal.SIGTERM


class Termination:
    """Whether the process was asked to end."""

    def __init__(self) -> None:
        self.asked = False
        self._by_user = False

    def ask(self, number: int = signal.SIGTERM, frame: FrameType | None = None) -> None:
        """Remembers the request; a second Ctrl-C is not made to wait. Usable as a signal handler.

        Raises:
            KeyboardInterrupt: The user asks again.
        """
        if number == signal.SIGINT and self._by_user:
            raise KeyboardInterrupt
        self.asked, self._by_user = True, number == signal.SIGINT

    def end(self) -> NoReturn:
        """Ends the process as it was asked to."""
        raise KeyboardInterrupt if self._by_user else SystemExit(PREEMPTED)


@contextmanager
def caught_termination() -> Iterator[Termination]:
    """Turns signals into a flag while the block runs (in the main thread; elsewhere Python allows no handlers)."""
    termination = Termination()
    if threading.current_thread() is not threading.main_thread():
        yield termination
        return
    before = {number: signal.signal(number, termination.ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield termination
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
