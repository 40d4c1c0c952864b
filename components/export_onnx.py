"""Component `export_onnx`: the step of that name with KFP artifacts for its folders."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Model, Output

from graftline.components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def export_onnx(
    dataset: Input[Dataset],
    model: Input[Model],
    bundle: Output[Model],
    *,
    calibration_images: int = 200,
    min_agreement: float = 0.97,
    seed: int = 0,
    code_version: str,
    data_version: str,
    inputs_version: str,
) -> str:
    """Makes the edge bundle and returns the SHA-256 of its record.

    `code_version`, `data_version` and `inputs_version` only tell the cache when the step must run again.
    """
    from pathlib import Path

    from graftline.components.task import as_task
    from graftline.steps.export_onnx import export_onnx as step

    record = as_task(step)(
        Path(dataset.path),
        Path(model.path),
        Path(bundle.path),
        calibration_images=calibration_images,
        min_agreement=min_agreement,
        seed=seed,
    )
    bundle.metadata.update(framework="ONNX", shipped=record.shipped, why=record.why)
    return record.sha256
