"""Component `version_data`: the step of that name with KFP artifacts for its folders."""

from kfp import dsl
from kfp.dsl import Dataset, Output

from graftline.components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def version_data(
    source: str,
    dataset: Output[Dataset],
    *,
    validation_fraction: float = 0.15,
    test_fraction: float = 0.2,
    registry: str = "",
    previous: str = "",
    code_version: str,
    source_fingerprint: str,
) -> str:
    """Reads images from `source` into a versioned dataset and returns its version.

    `code_version` and `source_fingerprint` only tell the cache when the step must run again.
    """
    from pathlib import Path

    from graftline.components.task import as_task
    from graftline.steps.version_data import version_data as step

    record = as_task(step)(
        source,
        Path(dataset.path),
        validation_fraction=validation_fraction,
        test_fraction=test_fraction,
        registry=registry,
        previous=previous,
    )
    dataset.metadata.update(version=record.version, images=record.images, classes=", ".join(record.classes))
    return record.version
