"""Runs a pipeline on this machine, as `graftline run DATASET` and `graftline retrain DATASET` do.

A run lives in `WORKSPACE/runs/<time>-<id>`: the arguments, kfp's log, the events, the report, the edge bundle, and
`summary.json`. What the steps write, and the cache by which a second run resumes, are in `WORKSPACE/pipeline`.
"""

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from graftline.errors import GraftlineError
from graftline.files import write_json
from graftline.models.weights_at_hand import weights_fingerprint
from graftline.options import Options, Value, read, with_options_of
from graftline.runs.board import Board, show
from graftline.runs.checks import check_options
from graftline.runs.code_version import code_version
from graftline.runs.containers import containers
from graftline.runs.memory import tree_bytes
from graftline.runs.summary import Summary, summarise
from graftline.runs.worker import ARGUMENTS, OUTPUTS
from graftline.storage.addresses import without_password
from graftline.storage.environment import environment
from graftline.wiring import STEPS_OF, PipelineName, options_of
from graftline.words import clock
from graftline.workspace import expanded
from graftline.workspace import workspace as default_workspace

LOG, PROGRESS = "pipeline.log", "progress.jsonl"
RESUME = "run the same command again: finished steps are cached, training resumes from its last checkpoint"
_STOP_SECONDS = 10.0
_MEMORY_EVERY_SECONDS = 2.0


@dataclass(frozen=True)
class Finished:
    """A pipeline that has run to its end.

    Attributes:
        folder: The run's folder.
        outputs: Paths of the pipeline's output artifacts, by name.
        seconds: Wall-clock time.
        peak_memory_bytes: As in `Summary`.
    """

    folder: Path
    outputs: dict[str, Path]
    seconds: float
    peak_memory_bytes: int


class RunStopped(KeyboardInterrupt):
    """The user stopped a run; the message says how to resume."""


@with_options_of(options_of("train"))
def run(
    source: str,
    *,
    workspace: str = "",
    image: str = "",
    published: Sequence[tuple[str, float]] = (),
    **options: Value,
) -> Summary:
    """Runs the whole pipeline on your images, up to a registered edge model.

    Args:
        source: Folder of class folders (with or without train/val/test), CSV or Parquet manifest, or archive of these;
            here or in S3, as s3://bucket/prefix.
        workspace: Folder for data, store, registry and runs; empty means `GRAFTLINE_WORKSPACE`, or `graftline-work`.
        image: Container image in which each step runs, as on a cluster; empty means this Python.
        published: Names and accuracies of others on the same data, to be shown beside the run's.

    Returns:
        What was reached, as in the run's `summary.json`.

    Raises:
        GraftlineError: The source cannot be read, or a step failed; the message names the log and how to resume.
        RunStopped: The run was interrupted.
    """
    with in_workspace(workspace):
        done = execute("train", source, options, image)
        return summarise(done.folder, done.outputs, done.seconds, done.peak_memory_bytes, published)


@contextlib.contextmanager
def in_workspace(folder: str) -> Iterator[None]:
    """Makes a folder the workspace while the block runs; '' leaves it as it is."""
    home = expanded(folder).absolute() if folder else default_workspace()
    with environment({"GRAFTLINE_WORKSPACE": str(home)}):
        yield


def execute(pipeline: PipelineName, source: str, options: Options, image: str = "") -> Finished:
    """Runs a pipeline in a process of its own, with the embedded store or the given one, and shows its steps.

    Args:
        pipeline: Its name.
        source: The images.
        options: Of its steps.
        image: Container image of each step; empty means this Python.

    Raises:
        GraftlineError: An option or the source cannot be used, or a step failed; the message names the log and how to
            resume.
        RunStopped: The run was interrupted.
    """
    from graftline.data.sources import absolute, require_source, source_fingerprint
    from graftline.storage import connect_store

    began = time.monotonic()
    home = default_workspace()
    check_options(options)
    require_source(source)  # before anything is begun; what lies in S3 may lie in the store itself
    pictures = [source, str(options.get("production", ""))]
    with containers(image, pictures, read(options, "registry", str)) as boxes, connect_store() as store:
        fingerprint = source_fingerprint(source)
        folder = _new_run(home)
        print(f"run      {folder}\nlog      {folder / LOG}", file=sys.stderr)
        arguments = {
            **options,
            "source": absolute(source),
            # A changed store must get the data too.
            "source_fingerprint": f"{fingerprint} {store.url}",
            # Another server means another registration; the address is written down, so its password is left out.
            "tracking_uri": options["tracking_uri"] or without_password(os.environ.get("MLFLOW_TRACKING_URI", "")),
            "checkpoints": str(home / "checkpoints"),
            "code_version": boxes.image if boxes else code_version(),
            "weights_fingerprint": weights_fingerprint(),
        }
        if boxes:
            boxes.save(folder)
        peak = _supervise(folder, pipeline, Board(STEPS_OF[pipeline]), arguments)
    outputs = {key: Path(path) for key, path in json.loads((folder / OUTPUTS).read_text(encoding="utf-8")).items()}
    return Finished(folder, outputs, time.monotonic() - began, 0 if boxes else peak)


def _new_run(home: Path) -> Path:
    folder = home / "runs" / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"
    folder.mkdir(parents=True)
    (folder / PROGRESS).touch()
    return folder


def _supervise(folder: Path, pipeline: str, board: Board, arguments: Options) -> int:
    """Runs the worker to its end, shows the steps, and returns the peak of memory in bytes."""
    write_json(folder / ARGUMENTS, arguments)
    with _worker(folder, pipeline) as worker, show(board, folder / PROGRESS) as refresh:
        try:
            peak = _watch(worker, board, refresh)
        except KeyboardInterrupt:
            board.end("stopped")
            raise RunStopped(f"stopped{_where(folder)}") from None
        board.end("stopped" if board.failed else "failed")
    if board.failed or worker.returncode:
        raise GraftlineError(_failure(board, folder))
    return peak


def _watch(worker: "subprocess.Popen[bytes]", board: Board, refresh: Any) -> int:
    """Shows the board until the worker has ended or a step has failed; returns the peak of memory in bytes."""
    peak, sampled = 0, 0.0
    while worker.poll() is None and not board.failed:  # kfp goes on with what does not depend on a failed step
        refresh()
        if time.monotonic() - sampled > _MEMORY_EVERY_SECONDS:
            peak, sampled = max(peak, tree_bytes(os.getpid())), time.monotonic()
        time.sleep(0.1)
    refresh()
    return peak


@contextlib.contextmanager
def _worker(folder: Path, pipeline: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Starts the process that runs the pipeline; at the end of the block nothing that it started is left."""
    with tempfile.TemporaryDirectory(prefix="graftline-") as scratch, (folder / LOG).open("ab") as log:
        environment = os.environ | {
            "GRAFTLINE_PROGRESS": str(folder / PROGRESS),
            "GRAFTLINE_RUN": folder.name,
            "TMPDIR": scratch,  # kfp leaves a folder there for each task
            "PYTHONSAFEPATH": "1",  # a folder of the user's named `docker` is not the package that kfp imports
        }
        command = [sys.executable, "-m", "graftline.runs.worker", pipeline, str(folder)]
        worker = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment, start_new_session=True
        )
        try:
            yield worker
        finally:
            _stop(worker)


def _stop(worker: "subprocess.Popen[bytes]") -> None:
    """Interrupts the worker's process group, waits for it to tidy up, and kills what is left."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(worker.pid, signal.SIGINT)
        until = time.monotonic() + _STOP_SECONDS
        while time.monotonic() < until:
            worker.poll()
            os.killpg(worker.pid, 0)
            time.sleep(0.05)
        os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()


def _failure(board: Board, folder: Path) -> str:
    """Returns what the user has to know of a failed run: which step, why, the log, how to resume."""
    step = board.failed
    if not step:
        return f"the pipeline failed outside its steps, see the end of the log{_where(folder)}"
    kind, _, message = board.steps[step].error.partition(": ")
    reason = message if kind.startswith("graftline.") else board.steps[step].error
    reason = reason or "ended without a word (stopped from outside, or out of memory)"
    return f"{step} failed after {clock(board.steps[step].seconds)}: {reason}{_where(folder)}"


def _where(folder: Path) -> str:
    return f"\n  log      {folder / LOG}\n  resume   {RESUME}"
