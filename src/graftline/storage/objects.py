"""Objects of S3 that a user gives as a source: listed with what tells a new one from an old one, and fetched.

They lie at the same endpoint as the store, and are read with the same credentials.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from graftline.errors import StoreError
from graftline.storage.errors import clear_errors
from graftline.storage.locks import lock
from graftline.storage.store import s3_client

CONNECTIONS = 16
_ATTEMPTS = 4
_BLOCK = 1 << 20
_CHANGED = frozenset({"404", "NoSuchKey", "412", "PreconditionFailed", "416", "InvalidRange"})


@dataclass(frozen=True)
class StoredObject:
    """An object as a listing shows it.

    Attributes:
        bucket: Its bucket.
        key: Its name in the bucket; anybody may have written it, so it never becomes a path.
        size: In bytes.
        etag: What S3 changes with the content; '' for an object that is not there.
    """

    bucket: str
    key: str
    size: int
    etag: str

    @property
    def url(self) -> str:
        """`s3://bucket/key`."""
        return f"s3://{self.bucket}/{self.key}"

    @cached_property
    def stamp(self) -> str:
        """Hexadecimal SHA-256 over all of it: the same stamp is the same content."""
        return hashlib.sha256("\0".join((self.bucket, self.key, str(self.size), self.etag)).encode()).hexdigest()


def is_url(address: str) -> bool:
    """Returns whether an address is a URL rather than a path."""
    return "://" in address


def split_url(url: str) -> tuple[str, str]:
    """Returns bucket and key (or prefix, or '') of an `s3://` URL.

    Raises:
        StoreError: It is no such URL, or has credentials in it, which the message does not repeat.
    """
    scheme, _, rest = url.partition("://")
    bucket, _, key = rest.partition("/")
    if "@" in bucket:
        raise StoreError(f"{scheme}:// addresses must not hold credentials: give them in the environment")
    if scheme != "s3" or not bucket:
        raise StoreError(f"{url} cannot be read: give a path, or s3://bucket/prefix")
    return bucket, key


class Objects:
    """The objects at the endpoint of the standard AWS variables; may be used by several threads."""

    def under(self, url: str) -> Iterator[StoredObject]:
        """Yields the objects whose URL begins with `url`, sorted by key, a thousand to a request.

        Raises:
            StoreError: Missing bucket, wrong or missing credentials, an endpoint that does not answer.
        """
        bucket, prefix = split_url(url)
        with clear_errors(url, "source"):
            for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
                for entry in page.get("Contents", ()):
                    yield StoredObject(bucket, entry["Key"], entry["Size"], entry["ETag"])

    def find(self, url: str) -> StoredObject:
        """Returns the object of that URL.

        Raises:
            StoreError: There is none, or as `under`.
        """
        bucket, key = split_url(url)
        with clear_errors(url, "source"):
            # A HEAD says 404 for a missing bucket too.
            page = self._client.list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=1)
        for entry in page.get("Contents", ()):
            if entry["Key"] == key:
                return StoredObject(bucket, key, entry["Size"], entry["ETag"])
        raise StoreError(f"the source {url} does not exist: check its name")

    def fetch(self, item: StoredObject, path: Path) -> None:
        """Copies an object to `path`, which appears when it is whole; what came before a stop is not fetched again.

        Raises:
            StoreError: It is gone or changed since it was listed, or cannot be read after several attempts.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.part")
        with lock(part):
            if is_whole(path, item):  # another process had the lock
                return
            with part.open("ab") as file:
                for left in reversed(range(_ATTEMPTS)):
                    if self._receive(item, file, left):
                        break
            part.replace(path)

    def _receive(self, item: StoredObject, file: IO[bytes], left: int) -> bool:
        """Appends what is missing and returns True; False when the connection broke and attempts are left."""
        from botocore.exceptions import ClientError, FlexibleChecksumError, HTTPClientError, IncompleteReadError

        at = file.seek(0, os.SEEK_END)
        if at == item.size:
            return True
        if at > item.size:
            at = file.truncate(0)
        with clear_errors(item.url, "source"):
            try:
                answer = self._client.get_object(Bucket=item.bucket, Key=item.key, IfMatch=item.etag, **_from(at))
                shutil.copyfileobj(answer["Body"], file, _BLOCK)
            except ClientError as error:
                if str(error.response["Error"]["Code"]) not in _CHANGED:
                    raise
                raise _changed(item) from error
            except (HTTPClientError, IncompleteReadError, FlexibleChecksumError) as error:
                if isinstance(error, FlexibleChecksumError):
                    file.truncate(0)
                if not left:
                    raise
                return False
        if file.tell() != item.size:
            file.truncate(0)
            raise _changed(item)
        return True

    @cached_property
    def _client(self) -> Any:
        return s3_client(connect_timeout=5, read_timeout=60, total_max_attempts=4, connections=CONNECTIONS)


def _changed(item: StoredObject) -> StoreError:
    return StoreError(f"{item.url} changed while the source was read: run the same command again")


def _from(at: int) -> dict[str, str]:
    """Asks for all bytes from `at` on; for the whole object S3 adds a checksum, which boto3 holds against them."""
    return {"Range": f"bytes={at}-"} if at else {}


def is_whole(path: Path, item: StoredObject) -> bool:
    """Returns whether `path` holds as many bytes as the object."""
    return path.is_file() and path.stat().st_size == item.size
