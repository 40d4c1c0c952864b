"""The step `version_data`: images of any of the known forms become a versioned dataset in the object store."""

from pathlib import Path

from graftline.files import output_folder
from graftline.progress import say
from graftline.records import DataVersion


def version_data(
    source: str,
    out: Path,
    *,
    validation_fraction: float = 0.15,
    test_fraction: float = 0.2,
    registry: str = "",
    previous: str = "",
) -> DataVersion:
    """Checks and splits the images of a source and records them as a data version.

    Unreadable files, pictures with two labels and exact duplicates are set aside and listed in `report.json`. Splits
    that the source gives are kept; a missing validation or test split is made, stratified by class and domain, from a
    hash of the content, so that renaming or reordering files changes nothing. The store is reached before the images
    are read, and `out` appears only once the version is recorded.

    Args:
        source: Folder of class folders (with or without train/validation/test above them), CSV or Parquet manifest
            (columns path, label and, if wanted, split, domain, group), or a .zip or .tar archive of such a folder; each
            on this machine or in S3 as `s3://bucket/...`, at the store's endpoint.
        out: Folder to write the dataset to (`record.json`, `shards/`, `report.json`, `files.csv`).
        validation_fraction: Share of the images for validation, in (0, 1); of the training images when the source gives
            splits but not this one.
        test_fraction: Share of the images for the test, in (0, 1); of the training images when the source gives splits
            but not this one. Both shares together stay below 0.9.
        registry: Git repository in which the version is recorded; '' is `data-registry` in the workspace, created when
            it is missing.
        previous: A version in that registry whose images stay in their splits, so that old test images stay test images
            when the data grow; new images fill up the shares. Several are separated by commas, the newest first: an
            image that had left the data comes back to where it was. '' divides all images anew.

    Returns:
        The record of the version; the same content gives the same one.

    Raises:
        DataError: The source is missing or has an unknown form; more than half of its files are unreadable; a class is
            empty or too small; there are fewer than two classes; the same picture is in two given splits.
        StoreError: The object store refuses or does not answer.
        GraftlineError: The registry has no version `previous` or cannot be used, or `out` holds something else.
    """
    from graftline.data.build import build_dataset
    from graftline.data.sources import open_source
    from graftline.data.splits import check_fractions
    from graftline.data.versions import read_contents, record_version
    from graftline.storage import connect_store

    check_fractions(validation_fraction, test_fraction)
    with connect_store() as store, open_source(source) as listing, output_folder(out) as folder:
        earlier = [read_contents(version, registry) for version in previous.split(",") if version]
        record = build_dataset(listing, folder, validation_fraction, test_fraction, earlier)
        record_version(folder, store, registry)
    say(f"data version {record.version}: {record.images:,} images in {len(record.classes)} classes, in {out}")
    return record
