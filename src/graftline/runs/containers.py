"""Runs the steps of a local run in containers: `graftline run DATASET --image IMAGE`.

Each step is started with the command line that a cluster gives it, in the same image, on a root that cannot be written,
without rights, and without a network unless the step uses the store. KFP's own `DockerRunner` is of no use here: it
reports failed containers as succeeded.
"""

import contextlib
import json
import os
import secrets
import subprocess
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from graftline.errors import GraftlineError
from graftline.files import write_json
from graftline.runs.code_version import code_version
from graftline.steps import TABLE
from graftline.storage.environment import EMBEDDED
from graftline.workspace import cache_folder, expanded, workspace

CONTAINERS = "containers.json"
ENGINES = ("docker", "podman")
_LAST_LINES = 5
_HARDENED = (
    *("--rm", "--read-only", "--tmpfs=/tmp", "--cap-drop=all", "--security-opt=no-new-privileges"),
    "--security-opt=label=disable",  # SELinux would want the user's own folders to be labelled anew
    "--shm-size=1g",
)
# What every step reads of the environment; store and MLflow are told to those that a cluster tells them.
_SETTINGS = ("GRAFTLINE_WORKSPACE", "GRAFTLINE_CACHE", "GRAFTLINE_WEIGHTS", "GRAFTLINE_PROGRESS", "GRAFTLINE_RUN")


@dataclass(frozen=True)
class Containers:
    """How the steps of one run are put into containers.

    Attributes:
        engine: docker or podman.
        image: Identity of the image, by its content: a name may come to mean another image while the run lasts.
        folders: What the containers see of this machine, at the same paths: "ro" or "rw" by path.
        label: Marks the containers of this run.
    """

    engine: str
    image: str
    folders: dict[str, str]
    label: str

    def save(self, run: Path) -> None:
        """Writes `containers.json` into a run's folder, for the process that runs the pipeline."""
        write_json(run / CONTAINERS, asdict(self))

    def command(self, step: str, words: list[str]) -> list[str]:
        """Returns the command line that runs `words`, those of a step, in a container.

        Args:
            step: The step's name; it decides about the network.
            words: Program and arguments.
        """
        from graftline.pipelines.resources import ACCESS_KEYS, MLFLOW_KEYS, STORE_KEYS

        needs = TABLE[step]
        # The store is on this machine's loopback, which only the host's own network reaches.
        network = "host" if needs.store or needs.mlflow else "none"
        keys = [*(STORE_KEYS + ACCESS_KEYS + (EMBEDDED,)) * needs.store, *MLFLOW_KEYS * needs.mlflow]
        names = [name for name in (*_SETTINGS, *keys) if name in os.environ]
        return [
            *(self.engine, "run", *_HARDENED, *_particular(self.engine)),
            *(f"--label={self.label}", f"--network={network}"),
            *(f"--volume={path}:{path}:{access}" for path, access in self.folders.items()),
            *(f"--env={name}" for name in names),  # without values, which are nobody's business in a process list
            *(f"--entrypoint={words[0]}", self.image, *words[1:]),
        ]

    def remove(self) -> None:
        """Ends and removes what is left of this run's containers."""
        left = _ask(self.engine, "ps", "--all", "--quiet", f"--filter=label={self.label}").stdout.split()
        if left:
            _ask(self.engine, "kill", *left)  # `rm` alone waits ten seconds for each with podman
            _ask(self.engine, "rm", "--force", *left)

    def take_over(self) -> None:
        """Lets `kfp.local`, in this process, run its tasks in containers: it has no door for other runners."""
        from kfp.local import subprocess_task_handler

        subprocess_task_handler.SubprocessTaskHandler = partial(_Task, self)


def saved(run: Path) -> Containers | None:
    """Returns what `save` wrote into a run's folder; None for a run without containers."""
    path = run / CONTAINERS
    return Containers(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


@contextlib.contextmanager
def containers(image: str, pictures: Sequence[str], registry: str = "") -> Iterator[Containers | None]:
    """Yields how to put a run's steps into containers; None without an image. None of them outlives the block.

    Root's containers run as the image's own user, who is in group 0: while the block runs, what is written here may be
    written by the group too. Everybody else's containers run as who starts them.

    Args:
        image: The image's name; empty means no containers.
        pictures: Folders and files that the containers must see; addresses and '' are none.
        registry: The repository of data versions, when it is not the workspace's.

    Raises:
        GraftlineError: No engine answers, none has the image, or the image holds another state of the library.
    """
    if not image:
        yield None
        return
    engine, identity = _find(image)
    _check_code(engine, identity, image)
    before = os.umask(0o002) if os.getuid() == 0 else None
    try:
        workspace().mkdir(parents=True, exist_ok=True)
        boxes = Containers(engine, identity, _folders(pictures, registry), f"graftline.run={secrets.token_hex(8)}")
        try:
            yield boxes
        finally:
            boxes.remove()
    finally:
        if before is not None:
            os.umask(before)


def _find(image: str) -> tuple[str, str]:
    """Returns the engine that has an image, and the image's identity."""
    answering = [engine for engine in ENGINES if _ask(engine, "info").returncode == 0]
    for engine in answering:
        found = _ask(engine, "image", "inspect", "--format={{.Id}}", image)
        if found.returncode == 0:
            return engine, found.stdout.strip()
    if not answering:
        raise GraftlineError(f"no container can be started: neither {' nor '.join(ENGINES)} answers, start one of them")
    raise GraftlineError(f"{' and '.join(answering)} has no image {image!r}: pull it, or build one with `make images`")


def _check_code(engine: str, identity: str, image: str) -> None:
    """Refuses an image with another library: the steps' command lines come from here, what they call from there."""
    says = "from graftline.runs.code_version import code_version; print(code_version())"
    run = _ask(engine, "run", *_HARDENED, "--network=none", "--entrypoint=python", identity, "-c", says)
    here, there = code_version(), run.stdout.strip()
    if run.returncode:
        raise GraftlineError(
            f"{image} cannot say which graftline it holds: {_reason(run.returncode, _tail(run.stderr))}"
        )
    if here != there:
        raise GraftlineError(
            f"{image} holds another graftline ({there}) than is installed here ({here}): `make images`"
        )


def _tail(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()][-_LAST_LINES:]


def _ask(*command: str) -> "subprocess.CompletedProcess[str]":
    """Runs a command of an engine; one that is not installed has failed."""
    try:
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return subprocess.CompletedProcess(command, 127, "", "")


def _folders(pictures: Sequence[str], registry: str) -> dict[str, str]:
    """Returns what the containers see: the user's images to read, the workspace, cache and registry to write."""
    wanted = (*pictures, os.environ.get("GRAFTLINE_WEIGHTS", ""))
    read = [expanded(path).absolute() for path in wanted if path and "://" not in path]
    # A manifest names files beside it.
    seen = {str(path.parent if path.is_file() else path): "ro" for path in read}
    own = (workspace(), cache_folder(), Path(registry or workspace()).absolute(), _store())
    return seen | {str(path): "rw" for path in own if path.exists()}


def _store() -> Path:
    """Returns the store's folder, where it is one: the workspace else."""
    value = os.environ.get("GRAFTLINE_STORE", "")
    if not value or "://" in value:
        return workspace()
    folder = expanded(value).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _particular(engine: str) -> list[str]:
    """Returns options for the containers' user, and what makes podman as strict as docker about writing."""
    strict = ["--read-only-tmpfs=false"] if engine == "podman" else []
    if os.getuid() == 0:
        return strict
    return [*strict, f"--user={os.getuid()}:{os.getgid()}", *(["--userns=keep-id"] if engine == "podman" else [])]


class _Task:
    """A task of `kfp.local` in a container, in the place of its `SubprocessTaskHandler`.

    Args:
        boxes: How to put it there.
        full_command: The component's command line.
        **_: What else kfp gives, none of which has a meaning here: the image is the run's.
    """

    def __init__(self, boxes: Containers, full_command: list[str], **_: Any) -> None:
        step = full_command[full_command.index("--function_to_execute") + 1]
        self._boxes, self._command = boxes, boxes.command(step, full_command)

    def run(self) -> Any:
        """Runs it to its end and returns kfp's status; at a failure the last line of the log says why."""
        from kfp.local.status import Status

        last: deque[str] = deque(maxlen=_LAST_LINES)
        try:
            code = self._follow(last)
        except KeyboardInterrupt:  # which the first process of a container does not hear of
            self._boxes.remove()
            raise
        if code == 0:
            return Status.SUCCESS
        print(f"graftline.runs.containers.Failed: {_reason(code, list(last))}")
        return Status.FAILURE

    def _follow(self, last: deque[str]) -> int:
        """Prints what the container says, keeps its last lines, and returns its exit code."""
        none, pipe, with_output = subprocess.DEVNULL, subprocess.PIPE, subprocess.STDOUT
        with subprocess.Popen(
            self._command, stdin=none, stdout=pipe, stderr=with_output, text=True, errors="replace"
        ) as process:
            assert process.stdout
            for line in process.stdout:
                print(line, end="")
                last.extend([line.strip()] if line.strip() else [])
        return process.returncode


def _reason(code: int, last: list[str]) -> str:
    """Says why a container failed: in the words of the library where it spoke last, else by its last lines."""
    final = last[-1] if last else "nothing"
    kind, _, message = final.partition(": ")
    if kind.startswith("graftline.") and message:
        return f"{message} (exit code {code} of its container)"
    said = " | ".join(last) or "nothing"
    return f"its container ended with exit code {code}, its last lines: {said}"
