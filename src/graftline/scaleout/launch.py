"""Several processes that train together, on one machine or as one of several: torch's launcher around a step.

On one machine the processes meet on loopback; where a job gives every machine the launcher's settings (`PET_NNODES`
and so on, as Kubeflow Trainer does), they meet at its first machine.
"""

import contextlib
import json
import logging
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from graftline.errors import GraftlineError
from graftline.scaleout.member import FAILURES, Failure, earliest
from graftline.storage.environment import environment
from graftline.training.interruption import PREEMPTED

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

_HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
_ASKED = (PREEMPTED, -signal.SIGTERM)


class MemberError(GraftlineError):
    """One of several processes that train together failed.

    Attributes:
        failure: What the first one says.
    """

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message if failure.clear else f"process {failure.rank} failed: {failure.message}")
        self.failure, self.may_pass = failure, not failure.clear


def is_member() -> bool:
    """Whether this process is one of several that train together already."""
    return "WORLD_SIZE" in os.environ


def count_processes(processes: int, device: str) -> int:
    """Returns how many processes train together on this machine.

    Args:
        processes: As many; 0 means one per GPU, or one without GPUs.
        device: auto, cpu or cuda.

    Raises:
        GraftlineError: There are fewer GPUs, or the number is negative.
    """
    import torch

    gpus = 0 if device == "cpu" else torch.cuda.device_count()
    if processes < 0:
        raise GraftlineError(f"processes is {processes}: give how many train together, or 0 for one per GPU")
    if gpus and processes > gpus:
        raise GraftlineError(f"processes is {processes} but PyTorch finds {gpus} GPUs: give at most {gpus}, or 0")
    return processes or max(1, gpus)


def launch(function: str, arguments: Mapping[str, Any], processes: int) -> None:
    """Calls a function in several processes that train together, and waits for them.

    SIGTERM is passed on to them, which makes them write a checkpoint. Ctrl-C ends them, and so does the end of this
    process, however it comes.

    Args:
        function: Its `module:name`; it must be importable.
        arguments: Its keyword arguments: texts, numbers, paths.
        processes: How many on this machine.

    Raises:
        MemberError: One of them failed; the others were ended.
        SystemExit: SIGTERM came, here or to one of them.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import get_args_parser, run

    with tempfile.TemporaryDirectory(prefix="graftline-") as folder, _as_before(), _quiet():
        options = [*_meeting_place(), f"--nproc-per-node={processes}", "--max-restarts=0", f"--log-dir={folder}"]
        command = ["--module", "graftline.scaleout.member", function, json.dumps(dict(arguments), default=str)]
        with environment({FAILURES: folder, "OMP_NUM_THREADS": _threads(processes)}):
            try:
                run(get_args_parser().parse_args([*options, *command]))
            except SignalException as stop:
                _stop(stop.sigval)
            except ChildFailedError as error:
                first = _first(Path(folder), error.failures)
                if error.failures[first.rank].exitcode == PREEMPTED:
                    _stop(signal.SIGTERM)
                sys.stderr.write(first.trace)
                raise MemberError(first) from None


def _meeting_place() -> list[str]:
    if int(os.environ.get("PET_NNODES", "1").partition(":")[0]) > 1:
        return []
    return ["--standalone", "--local-addr=127.0.0.1"]


def _threads(processes: int) -> str:
    """Returns the threads of each process: all that torch would use, shared out."""
    import torch

    return os.environ.get("OMP_NUM_THREADS") or str(max(1, torch.get_num_threads() // processes))


def _stop(number: int) -> NoReturn:
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)


def _first(folder: Path, ended: "Mapping[int, ProcessFailure]") -> Failure:
    """Returns the failure that led to the others."""
    told = [Failure.model_validate_json(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")]
    ranks = {failure.rank for failure in told}
    # The launcher's time is in whole seconds: others may have told of the lost connection before. It ends those others.
    silent = [
        Failure(rank=rank, message=_how(one.exitcode), time=one.timestamp + (1 if one.exitcode in _ASKED else -1))
        for rank, one in ended.items()
        if rank not in ranks
    ]
    return earliest([*told, *silent])


def _how(code: int) -> str:
    if code >= 0:
        return f"it ended with exit code {code}"
    return f"it was killed by {signal.Signals(-code).name}{' (out of memory?)' if -code == signal.SIGKILL else ''}"


@contextlib.contextmanager
def _as_before() -> Iterator[None]:
    """Puts back the signal handlers that the launcher replaces in the main thread; elsewhere Python allows none."""
    in_main = threading.current_thread() is threading.main_thread()
    handlers = {number: signal.getsignal(number) for number in _HANDLED} if in_main else {}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences the launcher's own log: what there is to say, the error says."""
    names = [name for name in logging.root.manager.loggerDict if name.startswith("torch.distributed")]
    loggers = [logging.getLogger(name) for name in names]
    before = [logger.disabled for logger in loggers]
    for logger in loggers:
        logger.disabled = True
    try:
        yield
    finally:
        for logger, disabled in zip(loggers, before, strict=True):
            logger.disabled = disabled
