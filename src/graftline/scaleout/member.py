"""One of several processes that train together: `python -m graftline.scaleout.member MODULE:FUNCTION ARGUMENTS`.

`graftline.scaleout.launch` starts it through torch's launcher, with the function's arguments as JSON. What goes wrong
it leaves in the folder that `GRAFTLINE_FAILURES` names, and it ends when the process that started it is gone.
"""

import contextlib
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path

from pydantic import BaseModel, TypeAdapter, validate_call

from graftline.errors import GraftlineError
from graftline.files import write_atomic

FAILURES = "GRAFTLINE_FAILURES"
_LOOK_EVERY_SECONDS = 0.5


class Failure(BaseModel):
    """Why a process ended.

    Attributes:
        rank: Which of the processes.
        message: One line.
        clear: Whether it is one of our errors, which say how to mend it, rather than what another one's end led to.
        time: When, in seconds since the epoch.
        trace: Python's account of it, where it is not clear.
    """

    rank: int
    message: str
    clear: bool = False
    time: float = 0.0
    trace: str = ""


def earliest(failures: Iterable[Failure]) -> Failure:
    """Returns the failure that led to the others: a clear one before those that are not, then the first in time."""
    return min(failures, key=lambda failure: (not failure.clear, failure.time))


def main(function: str, arguments: str) -> int:
    """Calls the function and returns the exit code."""
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    module, _, name = function.partition(":")
    try:
        values = TypeAdapter(dict[str, object]).validate_json(arguments)
        validate_call(getattr(import_module(module), name))(**values)
        _leave_group()
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except SystemExit as stop:
        return int(stop.code or 0)
    except Exception as error:
        _report(error)
        return 1
    return 0


def _end_with(launcher: int) -> None:
    """Asks this process to end, which writes a checkpoint, once the launcher is gone."""
    while os.getppid() == launcher:
        time.sleep(_LOOK_EVERY_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)


def _leave_group() -> None:
    from torch import distributed

    if distributed.is_initialized():
        distributed.destroy_process_group()


def _report(error: Exception) -> None:
    clear, rank = isinstance(error, GraftlineError), int(os.environ["RANK"])
    message = str(error) if clear else f"{type(error).__name__}: {' '.join(str(error).split())}"
    trace = "" if clear else "".join(traceback.format_exception(error))
    failure = Failure(rank=rank, message=message, clear=clear, time=time.time(), trace=trace)
    with contextlib.suppress(OSError):  # the launcher then knows the exit code only
        write_atomic(Path(os.environ[FAILURES]) / f"{rank}.json", failure.model_dump_json())


if __name__ == "__main__":
    exit_code = main(*sys.argv[1:])
    sys.stdout.flush()
    if exit_code:  # at once: tidying up a broken group may wait for the others for ever, and they for this one's end
        os._exit(exit_code)
