"""Component `fetch_champion`: the step of that name with a KFP artifact for its folder.

A task of its own, as KFP's caches know an artifact by where it lies: that of `detect_change`, which always runs, would
lie elsewhere in each run, and nothing that reads it would ever be answered from the cache.
"""

from kfp import dsl
from kfp.dsl import Model, Output

from graftline.components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def fetch_champion(
    champion: Output[Model],
    *,
    name: str = "graftline",
    version: str = "champion",
    tracking_uri: str = "",
    code_version: str,
    inputs_version: str,
) -> str:
    """Fetches the model that training may start from and returns its record's SHA-256; '' when `inputs_version` is ''.

    `code_version` and `inputs_version`, the record's SHA-256, only tell the cache when the step must run again; without
    a record there is nothing to fetch, and the folder stays empty.
    """
    from pathlib import Path

    from graftline.components.task import as_task
    from graftline.steps.fetch_champion import fetch_champion as step

    if not inputs_version:
        Path(champion.path).mkdir(parents=True, exist_ok=True)
        return ""
    record = as_task(step)(Path(champion.path), name=name, version=version, tracking_uri=tracking_uri)
    champion.metadata.update(backbone=record.plan.backbone, data_version=record.data_version)
    return record.sha256
