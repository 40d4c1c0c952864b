"""Component `register_model`: the step of that name with KFP artifacts for its folders."""

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Model, Output

from graftline.components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def register_model(
    dataset: Input[Dataset],
    bundle: Input[Model],
    evaluation: Input[Artifact],
    model: Input[Model],
    registration: Output[Artifact],
    *,
    name: str = "graftline",
    promote: str = "not_worse",
    tracking_uri: str = "",
    code_version: str,
    data_version: str,
    inputs_version: str,
) -> str:
    """Registers the bundle and returns its version number in the registry.

    `code_version`, `data_version` and `inputs_version` only tell the cache when the step must run again.
    """
    from pathlib import Path

    from graftline.components.index import write_index
    from graftline.components.task import as_task
    from graftline.steps.register_model import register_model as step

    record = as_task(step)(
        Path(dataset.path),
        Path(bundle.path),
        Path(evaluation.path),
        Path(registration.path),
        model=Path(model.path),
        name=name,
        promote=promote,  # type: ignore[arg-type]
        tracking_uri=tracking_uri,
    )
    read = {"dataset": dataset, "bundle": bundle, "evaluation": evaluation, "model": model}
    write_index(Path(registration.path), {artifact: each.uri for artifact, each in read.items()})
    registration.metadata.update(name=record.name, version=record.version, alias=record.alias, reason=record.reason)
    return record.version
