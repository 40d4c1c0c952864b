"""Component `choose_model`: the step of that name with KFP artifacts for its folders."""

from kfp import dsl
from kfp.dsl import Input, Model, Output

from graftline.components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def choose_model(
    models: Input[list[Model]],
    model: Output[Model],
    *,
    code_version: str,
    data_version: str,
    inputs_version: list[str],
) -> str:
    """Chooses one of the trained candidates and returns the SHA-256 of the choice's record.

    `code_version`, `data_version` and `inputs_version` only tell the cache when the step must run again.
    """
    from pathlib import Path

    from graftline.components.task import as_task
    from graftline.steps.choose_model import choose_model as step

    record = as_task(step)([Path(candidate.path) for candidate in models], Path(model.path))
    chosen = next(candidate for candidate in record.candidates if candidate.model == record.chosen)
    model.metadata.update(
        framework="PyTorch",
        backbone=chosen.backbone,
        strategy=chosen.strategy,
        validation_accuracy=chosen.validation_accuracy.value,
        reason=record.reason,
    )
    return record.sha256
