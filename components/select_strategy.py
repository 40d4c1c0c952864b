"""Component `select_strategy`: the step of that name with KFP artifacts for its folders."""

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Model, Output

from graftline.components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def select_strategy(
    dataset: Input[Dataset],
    policy: Input[Artifact],
    plans: Output[Artifact],
    champion: Input[Model] = None,  # type: ignore[assignment]
    *,
    backbones: str = "",
    strategy: str = "auto",
    image_size: int = 0,
    candidates: int = 0,
    seed: int = 0,
    code_version: str,
    data_version: str,
    inputs_version: str,
) -> list[dict]:
    """Ranks transfer plans for the dataset and returns those to be trained, as `fine_tune` takes them.

    Rank and cache keys come together, as kfp.local 2.17 gives a loop's tasks its item in the place of any other task's
    parameter.
    `code_version`, `data_version` and `inputs_version` only tell the cache when the step must run again.
    """
    from pathlib import Path

    from graftline.components.task import as_task
    from graftline.steps.select_strategy import select_strategy as step

    record = as_task(step)(
        Path(dataset.path),
        Path(policy.path),
        Path(plans.path),
        champion=Path(champion.path) if champion and any(Path(champion.path).glob("record.json")) else None,
        backbones=backbones,
        strategy=strategy,  # type: ignore[arg-type]
        image_size=image_size,
        candidates=candidates,
        seed=seed,
    )
    best = record.plans[0]
    plans.metadata.update(backbone=best.backbone, strategy=best.strategy, reasons=" ".join(best.reasons))
    keys = {"data_version": record.data_version, "inputs_version": record.sha256}
    return [{"rank": rank, **keys} for rank in record.candidates]
