"""Component `detect_change`: the step of that name with a KFP artifact for its folder.

It looks at what may have changed outside the pipeline, so it has no keys for the cache: a pipeline turns that off.
The answer is the function's own result, as kfp.local 2.17 resolves no named outputs in a condition.
"""

from kfp import dsl
from kfp.dsl import Artifact, Output, OutputPath

from graftline.components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def detect_change(
    source: str,
    change: Output[Artifact],
    champion_data: OutputPath(str),  # type: ignore[valid-type]
    champion_version: OutputPath(str),  # type: ignore[valid-type]
    champion_model: OutputPath(str),  # type: ignore[valid-type]
    *,
    production: str = "",
    name: str = "graftline",
    registry: str = "",
    tracking_uri: str = "",
) -> bool:
    """Compares the source with the champion's data and returns whether to train again.

    For what comes after, it writes the data versions that the champion has learned from, newest first, its own version
    in the registry, and the SHA-256 of its model's record, each '' when there is none.
    """
    from pathlib import Path

    from graftline.components.task import as_task
    from graftline.steps.detect_change import detect_change as step

    record = as_task(step)(
        source,
        Path(change.path),
        production=production,
        name=name,
        registry=registry,
        tracking_uri=tracking_uri,
    )
    change.metadata.update(retrain=record.retrain, reason=record.reason)
    Path(champion_data).write_text(",".join([record.data_version, *record.learned_before]), encoding="utf-8")
    Path(champion_version).write_text(record.champion, encoding="utf-8")
    Path(champion_model).write_text(record.champion_model, encoding="utf-8")
    return record.retrain
