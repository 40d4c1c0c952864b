"""The step `detect_change`: has anything changed since the champion was trained?"""

from pathlib import Path

from graftline.files import output_folder
from graftline.progress import say
from graftline.records import Change


def detect_change(
    source: str,
    out: Path,
    *,
    production: str = "",
    name: str = "graftline",
    registry: str = "",
    tracking_uri: str = "",
) -> Change:
    """Compares the images of a source with those the champion was trained on, and says whether to train again.

    Images are compared by their pixels, so that renamed files are no change; new, missing and relabelled images are.
    When a version was trained on exactly these images already, training again is no use, whether it became champion or
    not. Production images, which need no labels, are compared with the champion's test images by the champion's
    answers. Drift alone is no reason to train on the same images again: it is one to label production images.

    Args:
        source: Folder of class folders, manifest or archive, here or in S3, as for `version_data`.
        out: Folder to write the record to.
        production: Folder, or `s3://bucket/prefix`, of images that the champion met in production; '' leaves drift
            unmeasured.
        name: Name of the registered model.
        registry: Git repository of data versions; '' is `data-registry` in the workspace.
        tracking_uri: An MLflow tracking URI; '' is `MLFLOW_TRACKING_URI`, and when that is not set a SQLite database in
            the workspace.

    Returns:
        The record: what changed, whether to train again, and why.

    Raises:
        DataError: The source or the production images cannot be used.
        StoreError: The object store refuses or does not answer.
        GraftlineError: A registry cannot be used, or does not hold the champion's data or file.
    """
    from graftline.data.checks import check_source
    from graftline.data.sources import find_images, open_source
    from graftline.registry.change import find_change
    from graftline.registry.client import open_registry
    from graftline.registry.drift import MOST
    from graftline.registry.versions import check_name
    from graftline.storage import connect_store

    check_name(name)
    with (
        connect_store() as store,
        open_source(source) as listing,
        open_registry(store, tracking_uri) as models,
        output_folder(out) as folder,
    ):
        seen = list(find_images(production, MOST).values()) if production else []
        pictures = check_source(listing).pictures
        record = find_change(models, name, pictures, seen, registry).write(folder)
    say(f"{'training' if record.retrain else 'nothing to train'}: {record.reason}")
    if record.retrain and record.champion and not record.champion_model:
        say(f"champion version {record.champion} was registered without its weights: training cannot start from them")
    return record
