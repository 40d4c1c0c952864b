"""The step `fetch_champion`: the weights of a registered model, from which a retraining may start."""

from pathlib import Path

from graftline.records import TrainedModel


def fetch_champion(
    out: Path, *, name: str = "graftline", version: str = "champion", tracking_uri: str = ""
) -> TrainedModel:
    """Fetches the model of a registered version, so that training can start from its weights.

    Args:
        out: Folder to write: record.json and model.safetensors, as `fine_tune` wrote them.
        name: Name of the registered model.
        version: Alias or version number.
        tracking_uri: An MLflow tracking URI; '' is `MLFLOW_TRACKING_URI`, and when that is not set a SQLite database in
            the workspace.

    Returns:
        The model's record.

    Raises:
        GraftlineError: There is no such version, it was registered without its model, or its files were changed.
        StoreError: The object store refuses or does not answer.
    """
    from graftline.registry.bundles import download_model
    from graftline.registry.client import open_registry
    from graftline.registry.versions import check_name
    from graftline.storage import connect_store

    check_name(name)
    with connect_store() as store, open_registry(store, tracking_uri) as registry:
        return download_model(registry, name, version, out)
