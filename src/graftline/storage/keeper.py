"""Keeps the embedded S3 server of a workspace: starts it, waits until nobody uses it any more, and ends it.

A process of its own (`python -m graftline.storage.keeper FOLDER PROGRAM`), so the server ends however its users end.
It is started by graftline.storage.embedded only.
"""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from graftline.storage.embedded import GRPC_OFFSET, LOG_FILE, ROLES, STATE_FILE
from graftline.storage.keys import CREDENTIALS_FILE, SECURITY_FILE
from graftline.storage.locks import EXCLUSIVE, try_lock

_MEMORY_LIMIT = "300MiB"
_STOP_SECONDS = 10.0
_PR_SET_PDEATHSIG = 1


def keep(folder: Path, program: str) -> int:
    """Runs the server of `folder` until no user holds `users.lock`; returns the process's exit code."""
    with contextlib.ExitStack() as stack:
        keeper, server_lock, users = (
            stack.enter_context((folder / name).open("a")) for name in ("keeper.lock", "server.lock", "users.lock")
        )
        if not (try_lock(keeper, EXCLUSIVE) and try_lock(server_lock, EXCLUSIVE)):
            return 3
        server = _start(folder, program, server_lock)
        try:
            while server.poll() is None and not try_lock(users, EXCLUSIVE):
                time.sleep(0.1)
        finally:
            _stop(server)
            _remove_sockets(folder)
    return server.returncode


def _start(folder: Path, program: str, server_lock: IO[str]) -> subprocess.Popen[bytes]:
    state = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
    credentials = json.loads((folder / CREDENTIALS_FILE).read_text(encoding="utf-8"))
    (folder / "data").mkdir(exist_ok=True)
    server = subprocess.Popen(
        [program, *_arguments(folder, state)],
        cwd=folder,
        env={
            "PATH": os.defpath,
            "HOME": str(folder),
            "GOMEMLIMIT": _MEMORY_LIMIT,
            "AWS_ACCESS_KEY_ID": credentials["key"],
            "AWS_SECRET_ACCESS_KEY": credentials["secret"],
        },
        pass_fds=[server_lock.fileno()],  # the lock lasts as long as the server, even when this process is killed
        preexec_fn=_end_with_parent(),
    )
    (folder / STATE_FILE).write_text(json.dumps(state | {"pid": server.pid}), encoding="utf-8")
    return server


def _arguments(folder: Path, state: dict[str, int]) -> list[str]:
    return [
        f"-config_dir={(folder / SECURITY_FILE).parent}",
        f"-logdir={(folder / LOG_FILE).parent}",
        "-stderrthreshold=2",
        "-alsologtostderr=false",
        "mini",
        "-dir=data",  # below the working directory: a comma in the whole path would make two folders of it
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-disableHttp",  # the master's and the filer's: anyone could delete the bucket there
        "-master.telemetry=false",
        "-volume.preStopSeconds=0",
        "-master.resumeState=false",  # the resumed election of the one master now and then takes 5-20 s
        "-admin.ui=false",
        "-webdav=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        *(f"-{role}.port={state[role]}" for role in ROLES),
    ]


def _end_with_parent() -> Callable[[], None] | None:
    """Returns what makes the server end when this process is killed (Linux only; elsewhere the next start does it)."""
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return lambda: library.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _stop(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    try:
        server.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def _remove_sockets(folder: Path) -> None:
    """Removes the server's socket files, some of which it leaves behind."""
    state = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
    for role in ROLES:
        port = state[role]
        for name in (f"seaweedfs-{role}-{port}.sock", f"seaweedfs-{role}-grpc-{port + GRPC_OFFSET}.sock"):
            Path("/tmp", name).unlink(missing_ok=True)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    sys.exit(keep(Path(sys.argv[1]), sys.argv[2]))
