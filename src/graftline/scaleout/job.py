"""Training on several machines of a cluster: a job is created, followed to its end, and its model brought back.

The job's name says what it computes, so that a task that is tried again finds the job of the first try.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from graftline.files import sha256_bytes
from graftline.progress import say
from graftline.records.base import RECORD_FILE
from graftline.scaleout.member import Failure, earliest
from graftline.scaleout.node import ARGUMENTS, FAILURES, OUT
from graftline.scaleout.settings import JobSettings
from graftline.scaleout.trainer import Job, Trainer, TrainerAwayError, TrainJobError
from graftline.scaleout.travel import fetch_folder, remove_folder, send_folder
from graftline.storage import Store
from graftline.storage.connect import lasting_store
from graftline.training.interruption import PREEMPTED, Termination, caught_termination

EVERY_SECONDS = 5.0
GIVE_UP_AFTER_SECONDS = 900.0
_LOOK_EVERY_SECONDS = 0.2
_SHOWN_LINES = 5


@dataclass(frozen=True)
class _Work:
    """What is to be done.

    Attributes:
        settings: The machines.
        function: The step's `module:name`.
        folders: What it reads, by the names of its arguments.
        options: Its other arguments.
    """

    settings: JobSettings
    function: str
    folders: dict[str, Path]
    options: dict[str, Any]

    @cached_property
    def name(self) -> str:
        """A name that is another when the machines, the inputs or the options are."""
        records = {name: (folder / RECORD_FILE).read_text(encoding="utf-8") for name, folder in self.folders.items()}
        content = json.dumps([self.settings.model_dump(), records, self.options], sort_keys=True)
        return f"graftline-{sha256_bytes(content.encode())[:16]}"

    @property
    def key(self) -> str:
        """Where everything of it lies in the store."""
        return f"trainjobs/{self.name}"


def train_on_nodes(settings: JobSettings, function: str, arguments: Mapping[str, Any]) -> None:
    """Calls a step's function on several machines of the cluster around this pod.

    SIGTERM and Ctrl-C delete the job; its processes write a checkpoint, from which the next one goes on.

    Args:
        settings: The machines.
        function: The step's `module:name`.
        arguments: All its arguments, by name: folders to read and `out` as paths.

    Raises:
        GraftlineError: There is no store that the machines share, Kubeflow Trainer is not there, or training failed.
        SystemExit: SIGTERM came.
    """
    store = lasting_store()
    if store is None:
        raise TrainJobError("several nodes need a store that all of them reach: set GRAFTLINE_STORE")
    folders = {name: value for name, value in arguments.items() if isinstance(value, Path) and name != "out"}
    options = {name: value for name, value in arguments.items() if name not in (*folders, "out")}
    # Checkpoints on one machine's disk would not be found by the next job: they go to the store.
    work = _Work(settings, function, folders, options | {"checkpoints": ""})
    trainer = Trainer()
    with caught_termination() as termination:
        try:
            _carry_out(trainer, store, work, termination)
        except (KeyboardInterrupt, SystemExit):
            say(f"asked to end: deleting the TrainJob {work.name}, which saves a checkpoint")
            trainer.delete(work.name)
            raise
    fetch_folder(store, f"{work.key}/{OUT}", arguments["out"])
    trainer.delete(work.name)
    remove_folder(store, work.key)


def _carry_out(trainer: Trainer, store: Store, work: _Work, termination: Termination) -> None:
    is_new = _start(trainer, store, work)
    if _follow(trainer, store, work, termination):
        return
    if is_new:
        raise TrainJobError(f"the TrainJob {work.name} was deleted while its task waited for it: run it again")
    _carry_out(trainer, store, work, termination)  # an earlier try was terminated, and its job on its way out


def _start(trainer: Trainer, store: Store, work: _Work) -> bool:
    """Creates the job and returns True, unless an earlier try of this task has and it has not failed."""
    job = trainer.job(work.name)
    if job and job.state != "Failed":
        say(f"the TrainJob {work.name} is there already: following it")
        return False
    if job:
        _delete(trainer, work.name)
    for left in (FAILURES, OUT):
        remove_folder(store, f"{work.key}/{left}")
    for name, folder in work.folders.items():
        # What an earlier try has sent is the same: the job's name says its content.
        if not store.exists(f"{work.key}/{name}/{RECORD_FILE}"):
            send_folder(store, folder, f"{work.key}/{name}")
    store.write_text(json.dumps({"folders": list(work.folders), "options": work.options}), f"{work.key}/{ARGUMENTS}")
    command = ["python", "-m", "graftline.scaleout.node", work.key, work.function]
    trainer.create(work.name, work.settings, command)
    say(f"the TrainJob {work.name} is created in {trainer.namespace}: {work.settings.nodes} nodes")
    return True


def _delete(trainer: Trainer, name: str) -> None:
    """Deletes a job and waits until it is gone."""
    trainer.delete(name)
    until = time.monotonic() + GIVE_UP_AFTER_SECONDS
    while trainer.job(name):
        if time.monotonic() > until:
            raise TrainJobError(f"the failed TrainJob {name} does not go away: kubectl delete trainjob {name}")
        time.sleep(_LOOK_EVERY_SECONDS)


@dataclass
class _Told:
    """What has been said of a job: its last state, and how many lines of each pod's log."""

    state: str = ""
    lines: dict[str, int] = field(default_factory=dict)


def _follow(trainer: Trainer, store: Store, work: _Work, termination: Termination) -> bool:
    """Passes on the job's state and the first machine's log until the job has ended well.

    Returns:
        False when it was deleted meanwhile.

    Raises:
        TrainJobError: It failed, or Kubernetes did not answer for 15 minutes.
        SystemExit: This process was asked to end.
    """
    told, away_since = _Told(), 0.0
    while True:
        try:
            job = trainer.job(work.name)
        except TrainerAwayError as error:
            if not away_since:
                say(f"{error}; trying again, the TrainJob {work.name} goes on")
            away_since = away_since or time.monotonic()
            if time.monotonic() - away_since > GIVE_UP_AFTER_SECONDS:
                raise
        else:
            away_since = 0.0
            if job is None:
                return False
            _tell(trainer, work.name, job, told)
            if job.state == "Failed":
                raise _failed(trainer, store, work, job)
            if job.state == "Complete":
                return True
        _pause(termination)


def _pause(termination: Termination) -> None:
    until = time.monotonic() + EVERY_SECONDS
    while time.monotonic() < until:
        if termination.asked:
            raise SystemExit(PREEMPTED)
        time.sleep(_LOOK_EVERY_SECONDS)


def _tell(trainer: Trainer, name: str, job: Job, told: _Told) -> None:
    if job.state != told.state:
        told.state = job.state
        pods = ", ".join(f"{pod} {phase.lower()}" for _, (pod, phase) in sorted(job.pods.items()))
        say(f"TrainJob {name}: {job.state.lower()}{f' ({pods})' if pods else ''}")
    if 0 in job.pods:
        pod = job.pods[0][0]
        lines = trainer.log(name, 0)
        for line in lines[told.lines.get(pod, 0) :]:
            say(line)
        told.lines[pod] = len(lines)


def _failed(trainer: Trainer, store: Store, work: _Work, job: Job) -> TrainJobError:
    """Says why a job failed, and whether that may pass."""
    failures = _failures(store, f"{work.key}/{FAILURES}")
    first = earliest(failures) if failures else None
    error = TrainJobError(first.message if first and first.clear else _reason(trainer, work.name, job, first))
    error.may_pass = not (first and first.clear)
    return error


def _reason(trainer: Trainer, name: str, job: Job, first: Failure | None) -> str:
    """Returns what a process left in the store, or the last lines of a machine that failed."""
    if first:
        return f"process {first.rank} of the TrainJob {name} failed: {first.message}"
    broken = [number for number, (_, phase) in sorted(job.pods.items()) if phase == "Failed"]
    lines = trainer.log(name, (broken or [0])[0])[-_SHOWN_LINES:]
    last = " | ".join(lines) or f"without a word: see `kubectl describe trainjob {name}`"
    return f"the TrainJob {name} failed{f' in {job.pods[broken[0]][0]}' if broken else ''}: {last}"


def _failures(store: Store, key: str) -> list[Failure]:
    return [Failure.model_validate_json(store.read_text(name)) for name in store.keys(key)]
