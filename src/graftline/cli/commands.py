"""Commands whose modules are too heavy to load for a help text."""

import contextlib
from pathlib import Path
from typing import Any

from graftline.progress import say
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


def predict(model: Path, images: str, *, out: str = "") -> None:
    """Says what an edge model sees in images: a line of CSV for each, with the probability of every class.

    Args:
        model: An ONNX file that `export_onnx` wrote, wherever it lies now, or a bundle folder, whose shipped file is
            taken.
        images: An image, or a folder of images at any depth, here or in S3.
        out: File to write to; empty means standard output.

    Raises:
        DataError: There are no images, or some of them cannot be read: the lines of the others are written.
        GraftlineError: The model is missing or does not run.
    """
    from graftline.data.sources import find_images
    from graftline.export.predictions import open_model, predict_files
    from graftline.files import write_atomic
    from graftline.storage import connect_store
    from graftline.storage.objects import is_url

    edge = open_model(model)
    with connect_store() if is_url(images) else contextlib.nullcontext():
        files = find_images(images)
    predictions = predict_files(edge, files)
    if out:
        write_atomic(Path(out), predictions.csv)
        say(f"out: {out}")
    else:
        print(predictions.csv, end="")
    predictions.require_whole()


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
    from graftline.export.page import serve_page

    serve_page(bundle, port=port)


def history(*, name: str = "graftline", tracking_uri: str = "") -> str:
    """Shows which version was champion when, and why, from the promotion log.

    Args:
        name: Name of the registered model.
        tracking_uri: MLflow server; empty means `MLFLOW_TRACKING_URI`, or a database in the workspace.

    Returns:
        The log, oldest entry first, and the present champion.

    Raises:
        GraftlineError: The registry cannot be used, or knows no champion of that name.
    """
    from graftline.registry.champions import tell_history
    from graftline.registry.client import open_registry
    from graftline.registry.versions import check_name
    from graftline.storage import connect_store

    check_name(name)
    with connect_store() as store, open_registry(store, tracking_uri) as registry:
        return tell_history(registry, name)


def rollback(*, to: str = "", name: str = "graftline", tracking_uri: str = "") -> str:
    """Makes the champion before the present one champion again, and logs it.

    Args:
        to: Version to make champion instead; empty is the champion before the present one. A second rollback goes one
            champion further back.
        name: Name of the registered model.
        tracking_uri: MLflow server; empty means `MLFLOW_TRACKING_URI`, or a database in the workspace.

    Returns:
        What was done, in one line.

    Raises:
        GraftlineError: The registry cannot be used, there is no champion before the present one, or no such version.
    """
    from graftline.registry.champions import roll_back
    from graftline.registry.client import open_registry
    from graftline.registry.versions import check_name
    from graftline.storage import connect_store

    check_name(name)
    with connect_store() as store, open_registry(store, tracking_uri) as registry:
        done = roll_back(registry, name, to)
    return f"{name} version {done.version} is champion now, in the place of version {done.before}"
