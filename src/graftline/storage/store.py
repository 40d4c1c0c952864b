"""A place for shared files: a prefix of an S3 bucket, or a folder."""

import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from graftline.errors import StoreError
from graftline.files import beside
from graftline.storage.errors import clear_errors
from graftline.workspace import expanded

ANSWER_WITHIN_SECONDS = 12.0
_NO_SUCH_KEY = frozenset({"404", "NoSuchKey", "NotFound"})


@dataclass(frozen=True)
class Store:
    """A prefix of an S3 bucket, or a folder.

    Attributes:
        url: `s3://bucket/prefix` or an absolute path, without a slash at the end.
    """

    url: str

    @classmethod
    def parse(cls, value: str) -> "Store":
        """Reads what a user wrote in `GRAFTLINE_STORE`.

        Raises:
            StoreError: It is neither `s3://bucket/prefix` nor a folder's path.
        """
        scheme, separator, rest = value.partition("://")
        if separator and (scheme != "s3" or not rest.strip("/") or rest.startswith("/")):
            raise StoreError(f"GRAFTLINE_STORE is '{value}': give s3://bucket/prefix or the path of a folder")
        if separator:
            return cls(value.rstrip("/"))
        return cls(str(expanded(value).absolute()))

    @property
    def is_s3(self) -> bool:
        """Whether the store is a bucket rather than a folder."""
        return self.url.startswith("s3://")

    def child(self, key: str) -> str:
        """Returns the URL (or path) of what lies at `key`, for other libraries."""
        return f"{self.url}/{key}"

    def upload(self, path: Path, key: str) -> None:
        """Copies the file `path` to `key`, in the place of what is there.

        Raises:
            StoreError: The store refuses or does not answer.
        """
        with clear_errors(self.url):
            if self.is_s3:
                self._client.upload_file(str(path), self._bucket, self._object(key))
            else:
                with beside(Path(self.child(key))) as new:
                    shutil.copyfile(path, new)

    def download(self, key: str, path: Path) -> None:
        """Copies what lies at `key` to the file `path`, in the place of what is there.

        Raises:
            StoreError: There is nothing at `key`, or the store refuses or does not answer.
        """
        if not self.exists(key):
            raise StoreError(f"the store {self.url} holds no {key}")
        path.parent.mkdir(parents=True, exist_ok=True)
        with clear_errors(self.url):
            if self.is_s3:
                self._client.download_file(self._bucket, self._object(key), str(path))
            else:
                with beside(path) as new:
                    shutil.copyfile(self.child(key), new)

    def write_text(self, text: str, key: str) -> None:
        """Puts a text at `key`, in the place of what is there.

        Raises:
            StoreError: The store refuses or does not answer.
        """
        with tempfile.TemporaryDirectory(prefix="graftline-") as scratch:
            path = Path(scratch) / "text"
            path.write_text(text, encoding="utf-8")
            self.upload(path, key)

    def read_text(self, key: str) -> str:
        """Returns the text at `key`.

        Raises:
            StoreError: There is nothing at `key`, or the store refuses or does not answer.
        """
        with tempfile.TemporaryDirectory(prefix="graftline-") as scratch:
            path = Path(scratch) / "text"
            self.download(key, path)
            return path.read_text(encoding="utf-8")

    def exists(self, key: str) -> bool:
        """Returns whether a file lies at `key`.

        Raises:
            StoreError: The store refuses or does not answer.
        """
        if not self.is_s3:
            return Path(self.child(key)).is_file()
        from botocore.exceptions import ClientError

        with clear_errors(self.url):
            try:
                self._client.head_object(Bucket=self._bucket, Key=self._object(key))
            except ClientError as error:
                if error.response["Error"]["Code"] in _NO_SUCH_KEY:
                    return False
                raise
        return True

    def delete(self, key: str) -> None:
        """Removes what lies at `key`; nothing there is no error.

        Raises:
            StoreError: The store refuses or does not answer.
        """
        with clear_errors(self.url):
            if self.is_s3:
                self._client.delete_object(Bucket=self._bucket, Key=self._object(key))
            else:
                Path(self.child(key)).unlink(missing_ok=True)

    def keys(self, prefix: str = "") -> Iterator[str]:
        """Yields the keys of all files below `prefix`, a folder.

        Raises:
            StoreError: The store refuses or does not answer.
        """
        if not self.is_s3:
            root = Path(self.url)
            yield from sorted(p.relative_to(root).as_posix() for p in (root / prefix).rglob("*") if p.is_file())
            return
        with clear_errors(self.url):
            pages = self._client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._object(f"{prefix}/" if prefix else "")):
                for entry in page.get("Contents", ()):
                    yield entry["Key"].removeprefix(self._object(""))

    def check(self) -> None:
        """Makes sure that the store is there, creating a folder.

        Raises:
            StoreError: Wrong or missing credentials, a missing bucket, an endpoint that does not answer, a folder that
                cannot be written: one line each, within 15 seconds.
        """
        if self.is_s3:
            _within(ANSWER_WITHIN_SECONDS, self._list, self.url)
        else:
            self._check_folder()

    def _check_folder(self) -> None:
        folder = Path(self.url)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"the store's folder {folder} cannot be made: {error.strerror}") from error
        if not os.access(folder, os.W_OK | os.X_OK):
            raise StoreError(f"the store's folder {folder} cannot be written: change its mode or GRAFTLINE_STORE")

    def _list(self) -> None:
        with clear_errors(self.url):
            client = s3_client(connect_timeout=4, read_timeout=8, total_max_attempts=2)
            client.list_objects_v2(Bucket=self._bucket, Prefix=self._object(""), MaxKeys=1)

    @cached_property
    def _client(self) -> Any:
        return s3_client(connect_timeout=10, read_timeout=60, total_max_attempts=5)

    @property
    def _bucket(self) -> str:
        return self.url.removeprefix("s3://").partition("/")[0]

    def _object(self, key: str) -> str:
        prefix = self.url.removeprefix("s3://").partition("/")[2]
        return f"{prefix}/{key}" if prefix else key


def s3_client(*, connect_timeout: float, read_timeout: float, total_max_attempts: int, connections: int = 10) -> Any:
    """Returns a boto3 client of the endpoint and credentials in the standard AWS variables (seconds, all attempts)."""
    import boto3
    from botocore.config import Config

    config = Config(
        connect_timeout=connect_timeout,
        read_timeout=read_timeout,
        max_pool_connections=connections,
        retries={"mode": "standard", "total_max_attempts": total_max_attempts},
    )
    return boto3.Session().client("s3", config=config)


def _within(seconds: float, action: Callable[[], None], url: str) -> None:
    """Runs `action`, giving it up after `seconds`: name lookups and lists of addresses know no time limit."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            action()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise StoreError(
            f"the store {url} did not answer within {seconds:.0f} s: check AWS_ENDPOINT_URL_S3 and the network"
        )
    if failures:
        raise failures[0]
