"""Commands whose modules are too heavy to load for a help text."""

from pathlib import Path
from typing import Any

from graftline.records import DataVersion


def pull(version: str, out: Path, *, registry: str = "") -> DataVersion:
    """Fetches a version of the data from the object store, byte for byte.

    Args:
        version: Name of the version, `d` and 16 hexadecimal digits.
        out: Folder to write the dataset to.
        registry: Git repository of data versions; empty means the one in the workspace.

    Returns:
        The record of the version.

    Raises:
        GraftlineError: The registry or the store does not have it.
    """
    from graftline.data.versions import pull_version
    from graftline.storage import connect_store

    with connect_store():
        return pull_version(version, out, registry)


def lineage(file: Path) -> dict[str, Any]:
    """Shows where an edge model comes from: weights, plan, data, each by its hash.

    Args:
        file: An ONNX file that `export_onnx` wrote, wherever it lies now, or a bundle folder.

    Returns:
        The chain of records, a tree at a terminal and JSON elsewhere.

    Raises:
        GraftlineError: The file is missing or carries no lineage.
    """
    from graftline.export.lineage import read_lineage

    return read_lineage(file)


def serve(bundle: Path, *, port: int = 0) -> None:
    """Serves a bundle's web page on this machine, until Ctrl-C.

    Args:
        bundle: A bundle folder that holds the page.
        port: Port on 127.0.0.1; 0 takes a free one.

    Raises:
        GraftlineError: The bundle holds no page, or the port is taken.
    """
    from graftline.export.web import serve_page

    serve_page(bundle, port=port)
