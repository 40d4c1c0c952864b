"""Component `evaluate`: the step of that name with KFP artifacts for its folders."""

from kfp import dsl
from kfp.dsl import HTML, Artifact, Dataset, Input, Metrics, Model, Output

from graftline.components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def evaluate(
    dataset: Input[Dataset],
    model: Input[Model],
    evaluation: Output[Artifact],
    metrics: Output[Metrics],
    report: Output[HTML],
    *,
    split: str = "test",
    seed: int = 0,
    code_version: str,
    data_version: str,
    inputs_version: str,
) -> str:
    """Measures the model on a split and returns the SHA-256 of the evaluation's record.

    `code_version`, `data_version` and `inputs_version` only tell the cache when the step must run again.
    """
    import shutil
    from pathlib import Path

    from graftline.components.task import as_task
    from graftline.records import with_ends
    from graftline.steps.evaluate import evaluate as step

    record = as_task(step)(Path(dataset.path), Path(model.path), Path(evaluation.path), split=split, seed=seed)  # type: ignore[arg-type]
    shutil.copyfile(Path(evaluation.path) / "report.html", report.path)
    shutil.copyfile(Path(evaluation.path) / "metrics.json", metrics.path)
    for name, value in with_ends(record.metrics).items():
        metrics.log_metric(name, value)
    metrics.log_metric("images", record.accuracy.n)
    evaluation.metadata.update(split=record.split, **{name: one.value for name, one in record.metrics.items()})
    return record.sha256
