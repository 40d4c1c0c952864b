"""Environment variables that hold for a block, and what remembers them."""

import contextlib
import os
from collections.abc import Iterator, Mapping

EMBEDDED = "GRAFTLINE_STORE_IS_EMBEDDED"  # set beside GRAFTLINE_STORE for child processes


@contextlib.contextmanager
def environment(values: Mapping[str, str | None]) -> Iterator[None]:
    """Sets environment variables (None: removes them) and puts back what was there before."""
    before = {name: os.environ.get(name) for name in values}
    _set(values)
    try:
        yield
    finally:
        _set(before)


def forget_credentials() -> None:
    """Renews boto3's default session, which other libraries use: it would keep the credentials of an earlier store."""
    import boto3
    from botocore.exceptions import ProfileNotFound

    with contextlib.suppress(ProfileNotFound):  # a store in a folder needs no profile, one in S3 has said so before
        boto3.setup_default_session()


def _set(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
