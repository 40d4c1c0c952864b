"""The object store: the only code that touches S3, and the embedded S3 server.

One setting, `GRAFTLINE_STORE`, says where everything that is shared lies: `s3://bucket/prefix` or a folder. Unset, an
S3 server of our own runs under the workspace for as long as somebody uses it.
"""

from graftline.storage.connect import connect_store
from graftline.storage.store import Store

__all__ = ["Store", "connect_store"]
