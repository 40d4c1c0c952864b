"""The one door to the store: the user's own, or the embedded server."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from graftline.storage.embedded import BUCKET, embedded_server
from graftline.storage.environment import EMBEDDED, environment
from graftline.storage.store import Store
from graftline.workspace import workspace

# What would turn the embedded server's clients elsewhere: a user's profile, session, proxy or ban on endpoints.
_IN_THE_WAY = (
    "AWS_ENDPOINT_URL",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_REGION",
    "AWS_SESSION_TOKEN",
    "AWS_SECURITY_TOKEN",
)

_NO_PROXY = ("NO_PROXY", "no_proxy")  # of both, clients heed the second


@contextlib.contextmanager
def connect_store(folder: Path | None = None) -> Iterator[Store]:
    """Yields the store that `GRAFTLINE_STORE` names, or the embedded server's when it is unset.

    While the block runs, the environment names the store (`GRAFTLINE_STORE`, and for the embedded server
    `AWS_ENDPOINT_URL_S3`, `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_DEFAULT_REGION`), so that child processes
    use the same one; afterwards it is as before. The embedded server runs while any process of the workspace is in
    such a block, and ends with the last of them, however that one ends.

    Args:
        folder: Where the embedded server keeps its data; `store` in the workspace by default.

    Raises:
        StoreError: The setting is malformed, the store refuses or does not answer within 15 seconds, or the embedded
            server does not start.
    """
    value = os.environ.get("GRAFTLINE_STORE", "").strip()
    if value:
        store = Store.parse(value)
        store.check()
        with environment({"GRAFTLINE_STORE": store.url}):
            yield store
        return
    store = Store(f"s3://{BUCKET}")
    # Out of the way first: boto3 looks a profile up even when it is given keys.
    with environment(dict.fromkeys(_IN_THE_WAY)), embedded_server(folder or workspace() / "store") as access:
        here = {"GRAFTLINE_STORE": store.url, EMBEDDED: "1", **dict.fromkeys(_NO_PROXY, _no_proxy())}
        with environment(access.environment | here):
            yield store


def lasting_store() -> Store | None:
    """Returns the user's own store, which outlives this machine; None when there is only the embedded one."""
    value = os.environ.get("GRAFTLINE_STORE", "").strip()
    return Store.parse(value) if value and EMBEDDED not in os.environ else None


def _no_proxy() -> str:
    before = [host for name in _NO_PROXY for host in os.environ.get(name, "").split(",") if host]
    return ",".join(dict.fromkeys([*before, "127.0.0.1"]))
