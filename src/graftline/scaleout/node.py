"""One machine of a training job: `python -m graftline.scaleout.node KEY MODULE:FUNCTION`, the command of its pod.

It fetches the folders that the function reads from the store, trains in one process per GPU together with the other
machines, and the first machine sends what came out back to the store. Kubeflow Trainer says which machine this is.
"""

import contextlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from graftline.errors import GraftlineError, StoreError
from graftline.scaleout.launch import MemberError, count_processes, launch
from graftline.scaleout.member import Failure
from graftline.scaleout.travel import fetch_folder, send_folder
from graftline.storage import Store
from graftline.storage.connect import lasting_store

ARGUMENTS, FAILURES, OUT = "arguments.json", "failures", "out"
SECRETS = "GRAFTLINE_SECRETS"


def main(key: str, function: str) -> int:
    """Trains on this machine and returns the exit code."""
    _read_secrets()
    store = lasting_store()
    assert store, "the job was created with a store"
    rank = os.environ.get("PET_NODE_RANK", "0")
    try:
        with tempfile.TemporaryDirectory(prefix="graftline-") as folder:
            _train(store, key, function, Path(folder), is_first=rank == "0")
    except GraftlineError as error:
        failure = error.failure if isinstance(error, MemberError) else _failure(error, int(rank))
        with contextlib.suppress(StoreError):  # the task then knows the last lines of the log only
            store.write_text(failure.model_dump_json(), f"{key}/{FAILURES}/{rank}.json")
        print(f"graftline: {error}", file=sys.stderr)
        return 1
    return 0


def _failure(error: GraftlineError, rank: int) -> Failure:
    """What befell this machine itself, before or after its processes trained."""
    return Failure(rank=rank, message=str(error), clear=not error.may_pass, time=time.time())


def _train(store: Store, key: str, function: str, folder: Path, is_first: bool) -> None:
    arguments = _fetch_arguments(store, key, folder)
    out = folder / OUT
    processes = count_processes(arguments["processes"], arguments["device"])
    launch(function, {**arguments, "out": out}, processes)
    if is_first:
        send_folder(store, out, f"{key}/{OUT}")


def _fetch_arguments(store: Store, key: str, folder: Path) -> dict[str, Any]:
    sent: dict[str, Any] = json.loads(store.read_text(f"{key}/{ARGUMENTS}"))
    for name in sent["folders"]:
        fetch_folder(store, f"{key}/{name}", folder / name)
    return sent["options"] | {name: folder / name for name in sent["folders"]}


def _read_secrets() -> None:
    """Takes the mounted secret's files as environment variables, which Kubeflow Trainer's client cannot set."""
    folder = os.environ.get(SECRETS)
    for path in Path(folder).iterdir() if folder else ():
        if path.is_file():
            os.environ[path.name] = path.read_text(encoding="utf-8").strip()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
