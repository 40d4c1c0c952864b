"""The MLflow server's address, which may have a password in it."""

import os

from graftline.storage.addresses import without_password


def full_address(tracking_uri: str = "") -> str:
    """Returns the address to connect to, or ''.

    Args:
        tracking_uri: An MLflow tracking URI. Empty: `MLFLOW_TRACKING_URI`, which is also meant by its own address
            without the password.
    """
    address = os.environ.get("MLFLOW_TRACKING_URI", "")
    return address if tracking_uri in ("", without_password(address)) else tracking_uri
