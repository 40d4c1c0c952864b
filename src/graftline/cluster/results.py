"""What a run on a cluster reached, read from where Kubeflow Pipelines keeps its artifacts."""

import re
from pathlib import Path
from typing import Any

from graftline.components.index import read_index
from graftline.errors import GraftlineError
from graftline.runs.summary import Summary, summarise
from graftline.storage.store import Store
from graftline.workspace import workspace

# Where KFP keeps it in a run's folder: `<task>/.../<artifact>/`.
_REGISTRATION = r"(?:.*/)?register-model/.*/registration/(record\.json|index\.json)"
# The files of the other artifacts that the table is made from: of data and model the records.
_WANTED = {
    "dataset": r"(record\.json)",
    "model": r"(record\.json|choice\.json)",
    "evaluation": r"(record\.json|report\.html)",
    "bundle": r"(.*)",
}
_PIPELINES = ("graftline-train", "graftline-retrain")


def read_results(run: Any) -> Summary | str:
    """Fetches a run's report and bundle.

    Its registration lies below the run's pipeline root, and its index says where the rest does: steps that were
    answered from the cluster's cache have left theirs in an earlier run's folder.

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
        outputs = _outputs(root.rstrip("/"), run.run_id, folder / "artifacts")
    except GraftlineError as error:
        return f"they lie below {root}: {error}"
    if not outputs:
        return f"below {root} the run has no registration: there was nothing to train, or the cluster's cache had it"
    return summarise(folder, outputs, _seconds(run), 0)


def _outputs(root: str, run: str, folder: Path) -> dict[str, Path]:
    """Copies what is wanted of a run; returns the artifacts' folders, none when the run registered nothing.

    Raises:
        GraftlineError: An artifact is gone, the run is of an earlier version, or the store refuses.
    """
    registration = folder / "registration"
    if not any(_fetch(f"{root}/{pipeline}/{run}", _REGISTRATION, registration) for pipeline in _PIPELINES):
        return {}
    outputs, places = {"registration": registration}, read_index(registration)
    for name, files in _WANTED.items():
        outputs[name] = folder / name
        if not _fetch(places[name], files, outputs[name]):
            raise GraftlineError(f"its {name} is not in {places[name]} any more")
    return outputs


def _fetch(place: str, files: str, folder: Path) -> bool:
    """Copies the files below a place whose paths there match, under the names in the match; says whether any does."""
    store = Store(place)
    found = list(filter(None, (re.fullmatch(files, key) for key in store.keys(""))))
    for match in found:
        store.download(match[0], folder / match[1])
    return bool(found)


def _seconds(run: Any) -> float:
    if run.created_at and run.finished_at:
        return float((run.finished_at - run.created_at).total_seconds())
    return 0.0
