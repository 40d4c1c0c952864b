"""The step `register_model`: the edge bundle becomes a registry version, and champion if it is not worse."""

from pathlib import Path
from typing import Literal, get_args

from graftline.errors import check_choice
from graftline.files import output_folder
from graftline.progress import say
from graftline.records import Registration


def register_model(
    dataset: Path,
    bundle: Path,
    evaluation: Path,
    out: Path,
    *,
    model: Path | None = None,
    name: str = "graftline",
    promote: Literal["not_worse", "better"] = "not_worse",
    tracking_uri: str = "",
) -> Registration:
    """Registers an edge bundle in MLflow, with its lineage and the alias `champion` or `challenger`.

    The first version becomes champion. A later one is compared with the champion, shipped file with shipped file, on
    the same test images of `dataset`: with `not_worse` it becomes champion when it is right at least as often, with
    `better` only when the paired 95 % interval of the difference lies above zero; otherwise it becomes challenger. The
    reason gives the difference with its interval. A model with other classes is not compared: it becomes challenger. A
    bundle that is registered already keeps its version and its outcome, and nothing is uploaded. What became of a
    version is added to the promotion log, which `graftline history` shows.

    Args:
        dataset: Dataset folder that `version_data` wrote; its test images decide the alias.
        bundle: Folder that `export_onnx` wrote.
        evaluation: Folder that `evaluate` wrote, of the same model on the test split.
        out: Folder to write the record of the registration to.
        model: Folder that `fine_tune` wrote, of the same model; its weights go into the registry beside the bundle, so
            that a retraining can start from them.
        name: Name of the registered model; it is made when it does not exist.
        promote: What it takes to become champion in the place of another: to be not worse, or to be better beyond
            chance.
        tracking_uri: An MLflow tracking URI; '' is `MLFLOW_TRACKING_URI`, and when that is not set a SQLite database in
            the workspace. Files go to the folder `mlflow` of the store.

    Returns:
        The record: version, alias, reason and measured difference.

    Raises:
        GraftlineError: The folders do not belong together, a file of the bundle was changed, the name is not allowed,
            or the registry cannot be used.
        StoreError: The object store refuses or does not answer.
    """
    from graftline.registry.candidate import read_candidate
    from graftline.registry.client import open_registry
    from graftline.registry.comparison import Promote
    from graftline.registry.register import register
    from graftline.registry.versions import check_name
    from graftline.storage import connect_store

    check_name(name)
    check_choice("promote", promote, get_args(Promote))
    candidate = read_candidate(dataset, bundle, evaluation, model)
    with output_folder(out) as folder, connect_store() as store, open_registry(store, tracking_uri) as registry:
        record = register(registry, dataset, candidate, name, promote).write(folder)
    say(f"{name} version {record.version} is {record.alias}: {record.reason}")
    return record
