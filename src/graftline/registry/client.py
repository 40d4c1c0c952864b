"""Opening the MLflow registry: quiet, with artifacts in the store, and failures told in one line."""

import contextlib
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import sqlalchemy
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.exceptions import MlflowException
from mlflow.store.db.db_types import DATABASE_ENGINES
from sqlalchemy.exc import SQLAlchemyError

from graftline.errors import RegistryError, StoreError
from graftline.progress import say
from graftline.registry.address import full_address
from graftline.storage import Store
from graftline.storage.addresses import without_password
from graftline.storage.environment import environment, forget_credentials
from graftline.storage.errors import clear_errors
from graftline.storage.locks import lock
from graftline.workspace import workspace

DATABASE = "mlflow.db"
_PROBE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10", "PGCONNECT_TIMEOUT": "10"}
_FAILURES = (MlflowException, SQLAlchemyError)


class OtherStoreError(StoreError):
    """The files of a run lie in another store than the present one, and cannot be read from here."""


@dataclass(frozen=True)
class Registry:
    """An open MLflow registry.

    Attributes:
        client: For tracking and registry.
        store: Keeps the files of runs in its folder `mlflow`.
        shown: The tracking URI without its password, for messages.
    """

    client: MlflowClient
    store: Store
    shown: str

    @property
    def artifacts(self) -> str:
        """URL of the folder that takes the files of runs."""
        folder = self.store.child("mlflow")
        return folder if self.store.is_s3 else Path(folder).as_uri()

    def upload(self, run_id: str, folder: Path) -> None:
        """Copies the content of a folder to a run's artifacts.

        Raises:
            StoreError: The store refuses or does not answer.
        """
        with clear_errors(self.artifacts):
            self.client.log_artifacts(run_id, str(folder))

    def download(self, run_id: str, path: str, folder: Path) -> Path:
        """Copies a file or folder of a run's artifacts into an existing folder and returns where it is.

        Raises:
            OtherStoreError: It lies in another store than the present one, and cannot be read.
            StoreError: It is not there, or the store refuses or does not answer.
        """
        location = self.client.get_run(run_id).info.artifact_uri
        try:
            with clear_errors(location), _clear_artifact_errors(f"{location}/{path}"):
                return Path(download_artifacts(artifact_uri=f"{location}/{path}", dst_path=str(folder)))
        except StoreError as error:
            if location.startswith(f"{self.artifacts}/"):
                raise
            raise OtherStoreError(
                f"the files in {location}, outside the present store {self.store.url}, cannot be read "
                f"({_last_line(error.__cause__)}): give access to that address, or copy them to it"
            ) from error


@contextlib.contextmanager
def open_registry(store: Store, tracking_uri: str = "") -> Iterator[Registry]:
    """Opens the registry for the length of a block.

    Args:
        store: An open store; MLflow keeps its artifacts in its folder `mlflow`.
        tracking_uri: As for `full_address`; without any address SQLite in the workspace.

    Raises:
        RegistryError: The server or database cannot be used (told within 15 s), or a call inside the block failed.
    """
    uri = full_address(tracking_uri) or _workspace_database()
    shown = without_password(uri)
    forget_credentials()
    with _quiet(), environment(_variables()), _plain_errors(shown):
        yield Registry(_connect(uri, shown), store, shown)


def _workspace_database() -> str:
    path = workspace() / DATABASE
    if not path.exists():
        say(f"making the model registry in {path} (a few seconds, the first time only)")
    return sqlalchemy.URL.create("sqlite", database=str(path)).render_as_string()


def _connect(uri: str, shown: str) -> MlflowClient:
    """Connects and makes one small request, so that a bad URI is told early and fast.

    MLflow repeats a failing request for minutes; during the real work that is right, here it is not.
    """
    try:
        with environment(_PROBE), lock(workspace() / ".mlflow-database.lock"):
            if urlsplit(uri).scheme.partition("+")[0] in DATABASE_ENGINES:
                sqlalchemy.create_engine(uri, poolclass=sqlalchemy.NullPool).connect().close()
            client = MlflowClient(uri, uri)
            client.search_registered_models(max_results=1)
            return client
    except (*_FAILURES, OSError, ImportError) as error:
        raise RegistryError(
            f"the MLflow registry at {shown} cannot be used ({_reason(error)}): "
            "check MLFLOW_TRACKING_URI or tracking_uri and that the server runs"
        ) from error


def _variables() -> dict[str, str]:
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    quiet = {"MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true"}
    return quiet | ({"MLFLOW_S3_ENDPOINT_URL": endpoint} if endpoint else {})


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps MLflow's and Alembic's reports of their database work off the user's terminal."""
    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def _plain_errors(shown: str) -> Iterator[None]:
    try:
        yield
    except _FAILURES as error:
        raise RegistryError(f"the MLflow registry at {shown} or its artifact store failed: {_reason(error)}") from error


@contextlib.contextmanager
def _clear_artifact_errors(url: str) -> Iterator[None]:
    try:
        yield
    except MlflowException as error:
        raise StoreError(f"{url} cannot be read: {_last_line(error)}") from error


def _last_line(error: BaseException | None) -> str:
    """Returns the reason in an error about files: MLflow tells first, in lines of their own, which ones it wanted."""
    return str(error).strip().rpartition("\n")[2]


def _reason(error: BaseException) -> str:
    """Returns the first line of the innermost system error (connection refused, name not known) or of the error."""
    told, inner = error, error.__cause__ or error.__context__
    while inner:
        told = inner if isinstance(inner, OSError) else told
        inner = inner.__cause__ or inner.__context__
    text = str(told).strip()
    return without_password(text.splitlines()[0]) if text else type(told).__name__
