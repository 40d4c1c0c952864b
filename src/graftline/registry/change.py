"""Is there a reason to train again? The source against the data of the champion, and of the newest version."""

from collections.abc import Sequence
from pathlib import Path

from graftline.data.checks import Picture
from graftline.data.contents import Contents, Difference, compare
from graftline.data.versions import read_contents
from graftline.records import Change, Drift
from graftline.registry.client import Registry
from graftline.registry.drift import measure_drift
from graftline.registry.promotions import past_champions
from graftline.registry.versions import RegisteredVersion, champion, newest_version


def find_change(
    registry: Registry, name: str, pictures: Sequence[Picture], production: Sequence[Path], data_registry: str
) -> Change:
    """Compares a source with the champion's data version and, when given, production images with its test images.

    Drift alone is no reason: the same images would give the same model. It is one to label production images.

    Args:
        registry: An open registry.
        name: Registered model's name.
        pictures: The usable pictures of the source, one of each.
        production: Image files; may be none.
        data_registry: Git repository of data versions; '' is the workspace's own.

    Raises:
        GraftlineError: The champion's data version or file is not to be had.
        DataError: None of the production images can be read.
    """
    holder = champion(registry, name)
    if holder is None or not holder.bundle:
        return _unknown(name, holder, len(pictures), _trained_on(registry, name, pictures, data_registry))
    contents = read_contents(holder.tags["data_version"], data_registry)
    difference = compare(pictures, contents)
    drift = _drift(registry, holder, pictures, contents, production)
    twin = _trained_on(registry, name, pictures, data_registry) if difference else None
    reason = _of_data(holder, difference, len(pictures), twin)
    retrain = bool(difference) and not twin
    return Change(
        name=name,
        champion=holder.version,
        data_version=contents.version,
        learned_before=holder.learned_from[1:],
        champion_model=holder.tags["model_sha256"] if holder.model_files else "",
        images=len(pictures),
        added=difference.added,
        removed=difference.removed,
        relabelled=difference.relabelled,
        moved=difference.moved,
        drift=drift,
        retrain=retrain,
        reason=reason + _of_drift(drift, retrain) if production else reason,
    )


def _unknown(name: str, holder: RegisteredVersion | None, images: int, twin: RegisteredVersion | None) -> Change:
    """There is no champion whose data are known."""
    reason = f"{name} has no champion yet"
    if holder:
        reason = f"champion version {holder.version} was not registered by graftline: its data are not known"
    return Change(
        name=name,
        champion=holder.version if holder else "",
        data_version="",
        images=images,
        added=images,
        removed=0,
        relabelled=0,
        moved=0,
        retrain=twin is None,
        reason=f"{reason}; {_twin(twin)}" if twin else reason,
    )


def _trained_on(
    registry: Registry, name: str, pictures: Sequence[Picture], data_registry: str
) -> RegisteredVersion | None:
    """Returns the newest version if it was trained on exactly these images; None if it was not."""
    newest = newest_version(registry, name, past_champions(registry, name))
    if newest and not compare(pictures, read_contents(newest.tags["data_version"], data_registry)):
        return newest
    return None


def _drift(
    registry: Registry,
    holder: RegisteredVersion,
    pictures: Sequence[Picture],
    contents: Contents,
    production: Sequence[Path],
) -> Drift | None:
    test = {row.id for row in contents.rows if row.split == "test"}
    reference = [picture.source.path for picture in pictures if picture.id in test]
    return measure_drift(registry, holder, reference, production) if production and reference else None


def _of_data(holder: RegisteredVersion, difference: Difference, images: int, twin: RegisteredVersion | None) -> str:
    trained = f"data version {holder.tags['data_version']}, on which champion version {holder.version} was trained"
    if not difference:
        return f"the source holds the same {images:,} images and labels as {trained}"
    changed = f"the source differs from {trained}: {difference}"
    return f"{changed}; {_twin(twin)}" if twin else changed


def _twin(version: RegisteredVersion) -> str:
    return (
        f"version {version.version} was trained on exactly these images already and is not the champion: "
        "training again would give the same model"
    )


def _of_drift(drift: Drift | None, retrain: bool) -> str:
    if drift is None:
        return "; drift could not be measured, the source holds none of the champion's test images"
    measured = (
        f"largest distance {drift.distance:.2f}, p = {drift.p_value:.2g}, "
        f"{drift.images:,} production images against {drift.reference:,} test images"
    )
    if not drift.detected:
        return f"; no drift of the champion's answers was found ({measured})"
    advice = "" if retrain else ": label some of them and add them to the source, the same images give the same model"
    return f"; the champion answers differently to production images ({measured}){advice}"
