"""Component `augment`: the step of that name with KFP artifacts for its folders."""

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Output

from graftline.components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def augment(
    dataset: Input[Dataset],
    policy: Output[Artifact],
    *,
    flips: str = "auto",
    seed: int = 0,
    code_version: str,
    data_version: str,
) -> str:
    """Chooses the augmentation policy for the dataset and returns the SHA-256 of its record.

    `code_version` and `data_version` only tell the cache when the step must run again.
    """
    from pathlib import Path

    from graftline.components.task import as_task
    from graftline.steps.augment import augment as step

    record = as_task(step)(Path(dataset.path), Path(policy.path), flips=flips, seed=seed)  # type: ignore[arg-type]
    policy.metadata.update(data_version=record.data_version, reasons=" ".join(record.reasons))
    return record.sha256
