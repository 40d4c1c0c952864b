"""Trains again on this machine, when there is reason to: `graftline retrain DATASET`."""

from dataclasses import dataclass
from pathlib import Path

from graftline.components.index import read_index
from graftline.options import Value, read, with_options_of
from graftline.records import RECORD_FILE, Change, read_record
from graftline.runs.local import execute, in_workspace
from graftline.runs.summary import Summary, summarise
from graftline.wiring import options_of


@dataclass(frozen=True)
class Retraining:
    """What came of a retraining.

    Attributes:
        change: What had changed.
        summary: Of the new model; None when nothing was trained.
        promoted: Whether the new model became champion.
        conclusion: The outcome and its reason, in one line.
    """

    change: Change
    summary: Summary | None
    promoted: bool
    conclusion: str


@with_options_of(options_of("retrain"))
def retrain(source: str, *, workspace: str = "", image: str = "", **options: Value) -> Retraining:
    """Trains again if the images have changed, and promotes the new model only with evidence.

    Compares the source with the data that the champion was trained on; when nothing has changed, it says so and ends.
    Otherwise it versions the data, where old test images stay test images, trains, and compares the new model with the
    champion on the same present test images.

    Args:
        source: As for `graftline run`.
        workspace: As for `graftline run`.
        image: As for `graftline run`.

    Returns:
        What changed, what was trained, and whether it was promoted.

    Raises:
        GraftlineError: The source cannot be read, or a step failed; the message names the log and how to resume.
        RunStopped: The run was interrupted.
    """
    from graftline.data.sources import absolute

    production = read(options, "production", str)
    pictures = absolute(production) if production else ""
    with in_workspace(workspace):
        done = execute("retrain", source, {**options, "production": pictures}, image)
        change = read_record(done.outputs["change"], Change)
        outputs = _trained(done.outputs["change"])
        if outputs is None:
            return Retraining(change, None, False, f"nothing to train: {change.reason}")
        summary = summarise(done.folder, outputs, done.seconds, done.peak_memory_bytes)
        return _concluded(change, summary, read(options, "tracking_uri", str))


def _concluded(change: Change, summary: Summary, tracking_uri: str) -> Retraining:
    """Asks the promotion log what became of the new version: a registration that was made before changes nothing."""
    from graftline.registry.client import open_registry
    from graftline.registry.promotions import read_promotions
    from graftline.storage import connect_store

    done = summary.records.registration
    with connect_store() as store, open_registry(store, tracking_uri) as registry:
        mine = [entry for entry in read_promotions(registry, done.name) if entry.run == summary.folder.name]
    version = f"{done.name} version {done.version}"
    if not mine:
        return Retraining(change, summary, False, f"not promoted: this model is {version} already")
    promoted = mine[-1].event == "promoted"
    outcome = f"promoted: {version} is champion" if promoted else f"not promoted: {version} is challenger"
    return Retraining(change, summary, promoted, f"{outcome}: {done.reason}")


def _trained(change: Path) -> dict[str, Path] | None:
    """Finds the folders of the steps that a condition guards, which kfp does not count among a pipeline's outputs.

    `register_model` is never cached, so its folder lies beside that of `detect_change`; its index leads to the others.

    Args:
        change: Output folder of `detect_change`: PIPELINE_ROOT/RUN/detect-change/change.

    Returns:
        The folders as `summarise` takes them; None when nothing was trained.
    """
    registration = change.parents[1] / "register-model" / "registration"
    if not (registration / RECORD_FILE).is_file():
        return None
    return {"registration": registration, **{name: Path(path) for name, path in read_index(registration).items()}}
