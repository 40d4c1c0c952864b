"""Step 7: the edge bundle becomes a registry version, and champion if it is not worse than the present one."""

from pathlib import Path

from graftline.files import output_folder
from graftline.progress import say
from graftline.records import Registration


def register_model(
    dataset: Path, bundle: Path, evaluation: Path, out: Path, *, name: str = "graftline", tracking_uri: str = ""
) -> Registration:
    """Registers an edge bundle in MLflow, with its lineage and the alias `champion` or `challenger`.

    The first version becomes champion. A later one becomes champion when its shipped file is right at least as often
    as the champion's shipped file on the same test images of `dataset`; otherwise it becomes challenger. The reason
    gives the difference with its paired 95 % interval. A model with other classes is not compared: it becomes
    challenger. A bundle that is registered already keeps its version and its outcome, and nothing is uploaded.

    Args:
        dataset: Dataset folder that `version_data` wrote; its test images decide the alias.
        bundle: Folder that `export_onnx` wrote.
        evaluation: Folder that `evaluate` wrote, of the same model on the test split.
        out: Folder to write the record of the registration to.
        name: Name of the registered model; it is made when it does not exist.
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
    from graftline.registry.register import register
    from graftline.registry.versions import check_name
    from graftline.storage import connect_store

    check_name(name)
    candidate = read_candidate(dataset, bundle, evaluation)
    with output_folder(out) as folder, connect_store() as store, open_registry(store, tracking_uri) as registry:
        record = register(registry, dataset, candidate, name).write(folder)
    say(f"{name} version {record.version} is {record.alias}: {record.reason}")
    return record
