"""What a run on a cluster reached, read from where Kubeflow Pipelines keeps its artifacts."""

import re
from pathlib import Path
from typing import Any

from graftline.errors import StoreError
from graftline.runs.summary import Summary, summarise
from graftline.storage.store import Store
from graftline.workspace import workspace

# The artifacts, the tasks that make them, and the files that the table is made from: of data and model the records.
_WANTED = {
    "dataset": ("version-data", r"record\.json"),
    "model": ("choose-model", r"record\.json|choice\.json"),
    "evaluation": ("evaluate", r"record\.json|report\.html"),
    "bundle": ("export-onnx", r".*"),
    "registration": ("register-model", r"record\.json"),
}
_PIPELINES = ("graftline-train", "graftline-retrain")


def read_results(run: Any) -> Summary | str:
    """Fetches a run's report and bundle.

    They lie below the run's pipeline root: in `<pipeline>/<run>/<task>/.../<artifact>/`. Steps that were answered from
    the cluster's cache have left theirs in an earlier run's folder.

    Args:
        run: A `V2beta1Run` that has succeeded.

    Returns:
        The run's figures, or, when they cannot be read from here, why, in one line.
    """
    root = (run.runtime_config and run.runtime_config.pipeline_root) or ""
    if not root:
        return "they lie in the cluster's own pipeline root (give --pipeline-root s3://... to have them shown here)"
    if "://" in root and not root.startswith("s3://"):
        return f"they lie below {root}, which graftline does not read"
    folder = workspace() / "runs" / f"cluster-{run.run_id}"
    try:
        outputs: dict[str, Path] = {}
        for pipeline in _PIPELINES:
            outputs |= _fetch(Store(root.rstrip("/")), f"{pipeline}/{run.run_id}", folder / "artifacts")
    except StoreError as error:
        return f"they lie below {root}: {error}"
    missing = _WANTED.keys() - outputs.keys()
    if missing:
        lacking = ", ".join(sorted(missing))
        return f"below {root} the run has no {lacking}: there was nothing to train, or the cluster's cache had it"
    return summarise(folder, outputs, _seconds(run), 0)


def _fetch(store: Store, prefix: str, folder: Path) -> dict[str, Path]:
    """Copies what is wanted of a run's artifacts; returns the folder of each artifact that was found."""
    outputs = {}
    for key in store.keys(prefix):
        for name, (task, files) in _WANTED.items():
            found = re.fullmatch(rf"{re.escape(prefix)}/(?:.*/)?{task}/.*/{name}/({files})", key)
            if found:
                store.download(key, folder / name / found[1])
                outputs[name] = folder / name
    return outputs


def _seconds(run: Any) -> float:
    if run.created_at and run.finished_at:
        return float((run.finished_at - run.created_at).total_seconds())
    return 0.0
