"""Versions of the data: DVC keeps their bytes in the store, a Git registry their history."""

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from graftline.data.contents import Contents, Row
from graftline.data.git_registry import GitRegistry, open_registry
from graftline.errors import GraftlineError, StoreError
from graftline.files import output_folder, sha256_file
from graftline.progress import track
from graftline.records import RECORD_FILE, DataVersion, read_record
from graftline.storage import Store, connect_store
from graftline.storage.environment import environment
from graftline.storage.errors import clear_errors
from graftline.workspace import cache_folder

if TYPE_CHECKING:
    from dvc.api import DVCFileSystem
    from dvc.repo import Repo

REMOTE = "graftline"
_DATASET, _DVC_FILE = "dataset", "dataset.dvc"
_COMMITTED = [".dvc/config", ".dvc/.gitignore", ".dvcignore", ".gitignore", _DVC_FILE]
_ATTEMPTS = 5
_SHOWN = 10


def record_version(folder: Path, store: Store, registry: str) -> str:
    """Pushes a dataset's bytes to the store with DVC and records them in the Git registry, commit and tag.

    The same content again uploads nothing and commits nothing. The registry holds no credentials: they stay in the
    environment.

    Args:
        folder: A folder that version_data wrote; its record and shards are the version.
        store: Where the bytes go, under `dvc`.
        registry: Root folder or URL of a Git repository; '' for `data-registry` in the workspace.

    Returns:
        The version, which is also the tag's name.

    Raises:
        GraftlineError: The registry or the store refuses.
    """
    record = read_record(folder, DataVersion)
    if damaged := _damaged(folder, record):
        raise GraftlineError(f"{folder / damaged} is not what its record says: run `graftline version_data` again")
    with open_registry(registry, create=True) as git, _quiet_dvc(store) as log:
        for _ in range(_ATTEMPTS):
            _initialise(git.root)
            with contextlib.closing(_open(git.root, store)) as repo:
                dataset = _push(repo, folder, record, store, log)
                if git.has(record.version):
                    return record.version
                _write(repo, dataset, store)
            if git.publish(record.version, _message(record), _COMMITTED):
                return record.version
            git.refresh()
    raise GraftlineError(f"others keep pushing to the data registry {git.name}: try again")


def pull_version(version: str, out: Path, registry: str = "") -> DataVersion:
    """Writes the exact bytes of a recorded version.

    Args:
        version: As printed by version_data.
        out: The dataset folder to write.
        registry: Root folder or URL of the Git registry; the workspace's own by default.

    Returns:
        The version's record.

    Raises:
        GraftlineError: The registry does not know the version, or the store does not hold its bytes.
    """
    with _recorded(version, registry) as (git, store), output_folder(out) as folder:
        with _files(git, store, version) as files:
            _fetch(files, folder, version)
        record = read_record(folder, DataVersion)
        if damaged := _damaged(folder, record):
            raise StoreError(f"{damaged} of version {version} arrived damaged from the store {store.url}")
    return record


def read_contents(version: str, registry: str = "") -> Contents:
    """Reads what a recorded version holds, without fetching its images.

    Args:
        version: As printed by version_data.
        registry: Root folder or URL of the Git registry; the workspace's own by default.

    Raises:
        GraftlineError: The registry does not know the version, or the store does not hold its bytes.
    """
    with _recorded(version, registry) as (git, store), _files(git, store, version) as files:
        record = DataVersion.model_validate_json(files.read_text(f"/{_DATASET}/{RECORD_FILE}"))
        tables = []
        for shard in record.shards:
            with files.open(f"/{_DATASET}/{shard.file}") as file:
                tables.append(pq.read_table(file, columns=["id", "label", "split", "group", "domain"]))
    rows = pa.concat_tables(tables).to_pylist()
    return Contents(version, [Row(**{**row, "label": record.classes[row["label"]]}) for row in rows])


@contextlib.contextmanager
def _recorded(version: str, registry: str) -> Iterator[tuple[GitRegistry, Store]]:
    """Opens the registry and the store of a version that the registry knows."""
    with open_registry(registry, create=False) as git, connect_store() as store:
        if not git.has(version):
            raise GraftlineError(f"the data registry {git.name} has no version {version}: {_known(git)}")
        yield git, store


def _known(git: GitRegistry) -> str:
    versions = git.versions()
    more = ", ..." if len(versions) > _SHOWN else ""
    return f"it has {', '.join(versions[:_SHOWN])}{more}" if versions else "it has none yet"


def _message(record: DataVersion) -> str:
    return (
        f"Data {record.version}: {record.images} images of {len(record.classes)} classes ({', '.join(record.classes)})"
    )


def _initialise(root: Path) -> None:
    """Makes a Git repository one of DVC too."""
    from dvc.repo import Repo

    if not (root / ".dvc").exists():
        Repo.init(str(root)).close()


def _open(root: Path, store: Store, version: str | None = None) -> "Repo":
    """Opens the repository, at a tag if given, with the store as its remote in memory: no credentials are written."""
    from dvc.repo import Repo

    remote = {"url": store.child("dvc")}
    if store.is_s3:
        remote |= _of_environment()
    return Repo(str(root), rev=version, config={"core": {"remote": REMOTE}, "remote": {REMOTE: remote}})


def _of_environment() -> dict[str, str]:
    """Returns DVC's names for the standard AWS variables; explicit, as its connections are cached by these values."""
    values = {
        "endpointurl": os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"),
        "region": os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"),
        "access_key_id": os.environ.get("AWS_ACCESS_KEY_ID"),
        "secret_access_key": os.environ.get("AWS_SECRET_ACCESS_KEY"),
        "session_token": os.environ.get("AWS_SESSION_TOKEN"),
    }
    return {name: value for name, value in values.items() if value}


class _Versioned:
    """Shows DVC the record and the shards of a dataset folder and nothing else that lies there."""

    def __init__(self, folder: Path, record: DataVersion) -> None:
        self._paths = {folder / name for name in [RECORD_FILE, *(shard.file for shard in record.shards)]}

    def find(self, fs: Any, path: str) -> Iterator[str]:
        """Yields the paths of the files below `path`."""
        for root, _, files in self.walk(fs, path):
            yield from (str(Path(root, file)) for file in files)

    def walk(self, fs: Any, path: str, **options: Any) -> Iterator[tuple[str, list[str], list[str]]]:
        """Walks like `fs.walk`."""
        for root, folders, files in fs.walk(path, **options):
            yield root, folders, [file for file in files if Path(root, file) in self._paths]


def _push(repo: "Repo", folder: Path, record: DataVersion, store: Store, log: "_Log") -> tuple[Any, Any]:
    """Uploads what the store does not hold yet, straight from the dataset folder; returns DVC's hash and metadata."""
    from dvc.fs import LocalFileSystem
    from dvc_data.hashfile.build import build
    from dvc_data.hashfile.transfer import transfer

    folder = folder.absolute()
    remote = repo.cloud.get_remote_odb(name=REMOTE)
    objects, meta, tree = build(remote, str(folder), LocalFileSystem(), "md5", ignore=_Versioned(folder, record))
    failed = transfer(objects, remote, {tree.hash_info}, shallow=False).failed
    if failed:
        raise StoreError(f"the store {store.url} did not take {len(failed)} files of {folder}: {log.reason}")
    return tree.hash_info, meta


def _write(repo: "Repo", dataset: tuple[Any, Any], store: Store) -> None:
    """Writes dataset.dvc, and where its bytes lie, so that plain `dvc pull` works in a clone of the registry."""
    stage = repo.stage.create(
        single_stage=True,
        validate=False,
        fname=str(Path(repo.root_dir) / _DVC_FILE),
        wdir=repo.root_dir,
        outs=[_DATASET],
    )
    stage.outs[0].hash_info, stage.outs[0].meta = dataset
    stage.dump()
    stage.ignore_outs()
    with repo.config.edit("repo") as config:
        config.setdefault("core", {}).setdefault("remote", REMOTE)
        config.setdefault("remote", {})[REMOTE] = {"url": store.child("dvc")}


@contextlib.contextmanager
def _files(git: GitRegistry, store: Store, version: str) -> Iterator["DVCFileSystem"]:
    """Opens the files of a recorded version, which lie in the store, below `/dataset`."""
    from dvc.api import DVCFileSystem
    from dvc_data.index import DataIndexDirError

    with _quiet_dvc(store), contextlib.closing(_open(git.root, store, version)) as repo:
        try:
            yield DVCFileSystem(repo=repo)
        except (DataIndexDirError, FileNotFoundError) as error:
            raise StoreError(
                f"the store {store.url} does not hold version {version}: "
                "set GRAFTLINE_STORE to the one it was pushed to"
            ) from error


def _fetch(files: "DVCFileSystem", folder: Path, version: str) -> None:
    paths = files.find(f"/{_DATASET}")
    if not paths:
        raise FileNotFoundError(_DATASET)
    for path in track(paths, f"pulling {version}"):
        target = folder / Path(path).relative_to(f"/{_DATASET}")
        target.parent.mkdir(parents=True, exist_ok=True)
        files.get_file(path, str(target))


def _damaged(folder: Path, record: DataVersion) -> str:
    """Returns the first shard that is missing or not what the record says; '' when all are well."""
    for shard in record.shards:
        path = folder / shard.file
        if not path.is_file() or sha256_file(path) != shard.sha256:
            return shard.file
    return ""


class _Log(logging.Handler):
    """Keeps what DVC would have printed."""

    reason = "DVC gave no reason"

    def emit(self, record: logging.LogRecord) -> None:
        """Remembers the last failure."""
        error = record.exc_info[1] if record.exc_info else None
        self.reason = " ".join(str(error or record.getMessage()).split())


@contextlib.contextmanager
def _quiet_dvc(store: Store) -> Iterator[_Log]:
    """Keeps DVC silent and within the workspace, and turns its errors into ours."""
    from dvc.exceptions import DvcException

    log, loggers = _Log(), [logging.getLogger(name) for name in ("dvc", "dvc_data", "dvc_objects", "scmrepo")]
    before = [(logger.handlers, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.handlers, logger.propagate = [log], False
    try:
        settings = {"DVC_SITE_CACHE_DIR": str(cache_folder() / "dvc"), "DVC_NO_ANALYTICS": "1"}
        with environment(settings), clear_errors(store.url):
            yield log
    except DvcException as error:
        raise GraftlineError(f"DVC failed: {' '.join(str(error).split())}") from error
    finally:
        for logger, (handlers, propagate) in zip(loggers, before, strict=True):
            logger.handlers, logger.propagate = handlers, propagate
