"""Component `select_strategy`: the step of that name with KFP artifacts for its folders."""

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Output

from graftline.components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def select_strategy(
    dataset: Input[Dataset],
    policy: Input[Artifact],
    plans: Output[Artifact],
    *,
    backbones: str = "",
    strategy: str = "auto",
    image_size: int = 0,
    seed: int = 0,
    code_version: str,
    data_version: str,
    inputs_version: str,
) -> str:
    """Ranks transfer plans for the dataset and returns the SHA-256 of their record.

    `code_version`, `data_version` and `inputs_version` only tell the cache when the step must run again.
    """
    from pathlib import Path

    from graftline.steps.select_strategy import select_strategy as step

    record = step(
        Path(dataset.path),
        Path(policy.path),
        Path(plans.path),
        backbones=backbones,
        strategy=strategy,  # type: ignore[arg-type]
        image_size=image_size,
        seed=seed,
    )
    best = record.plans[0]
    plans.metadata.update(backbone=best.backbone, strategy=best.strategy, reasons=" ".join(best.reasons))
    return record.sha256
