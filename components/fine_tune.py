"""Component `fine_tune`: the step of that name with KFP artifacts for its folders."""

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Model, Output

from graftline.components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def fine_tune(
    dataset: Input[Dataset],
    policy: Input[Artifact],
    plans: Input[Artifact],
    model: Output[Model],
    champion: Input[Model] = None,  # type: ignore[assignment]
    *,
    rank: int = 1,
    epochs: int = 0,
    batch_size: int = 0,
    learning_rate: float = 0.0,
    settings: str = "",
    seed: int = 0,
    device: str = "auto",
    precision: str = "auto",
    memory_format: str = "auto",
    torch_compile: bool = False,
    processes: int = 0,
    checkpoints: str = "",
    show_times: bool = False,
    code_version: str,
    data_version: str,
    inputs_version: str,
) -> str:
    """Carries out a transfer plan and returns the SHA-256 of the trained model's record.

    `code_version`, `data_version` and `inputs_version` only tell the cache when the step must run again.
    """
    from pathlib import Path

    from graftline.components.task import as_task
    from graftline.steps.fine_tune import fine_tune as step

    record = as_task(step)(
        Path(dataset.path),
        Path(policy.path),
        Path(plans.path),
        Path(model.path),
        champion=Path(champion.path) if champion and any(Path(champion.path).glob("record.json")) else None,
        rank=rank,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        settings=settings,
        seed=seed,
        device=device,  # type: ignore[arg-type]
        precision=precision,  # type: ignore[arg-type]
        memory_format=memory_format,  # type: ignore[arg-type]
        torch_compile=torch_compile,
        processes=processes,
        checkpoints=checkpoints,
        show_times=show_times,
    )
    model.metadata.update(
        framework="PyTorch",
        backbone=record.plan.backbone,
        strategy=record.plan.strategy,
        validation_accuracy=record.validation_accuracy.value,
    )
    return record.sha256
