"""Champion against challenger: both shipped files on the same current test images, and the verdict in plain words.

Two rules, both with the paired interval of the difference. `not_worse`: the new version becomes champion when it is
right at least as often as the champion; the newer data win a tie, and the reason says what could be chance. `better`:
it becomes champion only when the whole interval lies above zero; nothing changes by chance.
"""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from graftline.data.build import keeps_splits_of
from graftline.data.dataset import iter_images, open_split
from graftline.data.parallel import map_threads
from graftline.intervals import paired_difference
from graftline.models.edge import EdgeModel
from graftline.progress import track
from graftline.records import DataVersion, Interval, read_record
from graftline.registry.bundles import download_shipped
from graftline.registry.candidate import Candidate
from graftline.registry.client import OtherStoreError, Registry
from graftline.registry.versions import RegisteredVersion
from graftline.words import points

Promote = Literal["not_worse", "better"]


@dataclass(frozen=True)
class Verdict:
    """Which alias a new version gets.

    Attributes:
        alias: "champion" or "challenger".
        reason: Why, in plain words.
        champion_before: Version that it was compared with; empty when there was none.
        difference: Its accuracy minus the champion's on the same test images; None when they were not compared.
    """

    alias: Literal["champion", "challenger"]
    reason: str
    champion_before: str = ""
    difference: Interval | None = None


def judge(
    registry: Registry,
    dataset: Path,
    candidate: Candidate,
    version: RegisteredVersion,
    champion: RegisteredVersion | None,
    promote: Promote = "not_worse",
) -> Verdict:
    """Decides the alias of a new version.

    Args:
        registry: An open registry.
        dataset: The current dataset folder; its test images are read.
        candidate: The checked bundle.
        version: The version made from it.
        champion: The present champion, None when there is none.
        promote: The rule.

    Raises:
        GraftlineError: The champion's file is not the one that was registered, or a file does not run.
    """
    found = _judge(registry, dataset, candidate, version, champion, promote)
    if found.alias == "champion":
        return found
    by_hand = f"to make it the champion by hand: `graftline rollback --to {version.version} --name {version.name}`"
    return replace(found, reason=f"{found.reason}; {by_hand}")


def _judge(
    registry: Registry,
    dataset: Path,
    candidate: Candidate,
    version: RegisteredVersion,
    champion: RegisteredVersion | None,
    promote: Promote,
) -> Verdict:
    if champion is None:
        return Verdict("champion", "it is the first: the registry had no champion to compare it with")
    before = champion.version
    if before == version.version:
        return Verdict("champion", "it is the champion already: made so by hand before its registration was finished")
    if not champion.bundle:
        reason = f"champion version {before} was not registered by graftline, so its answers cannot be compared"
        return Verdict("challenger", reason, before)
    if set(champion.classes) != set(candidate.bundle.classes):
        new, old = (", ".join(names) for names in (candidate.bundle.classes, champion.classes))
        reason = f"its classes ({new}) are not those of champion version {before} ({old}), so they cannot be compared"
        return Verdict("challenger", reason, before)
    with tempfile.TemporaryDirectory() as temporary:
        try:
            old_file = download_shipped(registry, champion, Path(temporary))
        except OtherStoreError as error:
            return Verdict("challenger", f"it cannot be compared with champion version {before}: {error}", before)
        new_right, old_right = right_answers(dataset, [candidate.shipped, old_file])
    return verdict(new_right, old_right, champion, promote, _leak(dataset, candidate, champion))


def verdict(
    new_right: np.ndarray, old_right: np.ndarray, champion: RegisteredVersion, promote: Promote, caveat: str = ""
) -> Verdict:
    """Applies the rule to the two models' answers.

    Args:
        new_right: bool [n], whether the new model is right on each test image.
        old_right: bool [n], the champion's, on the same images.
        champion: The present champion.
        promote: The rule.
        caveat: What to say at the end of the reason.
    """
    gap = paired_difference(new_right, old_right)
    more = int(new_right.sum()) - int(old_right.sum())
    count = "as many" if more == 0 else f"{abs(more)} {'more' if more > 0 else 'fewer'}"
    against = f"{'as' if more == 0 else 'than'} champion version {champion.version}"
    sure = ", beyond chance" if gap.low > 0 or gap.high < 0 else ", which may be chance" if more else ""
    reason = f"it is right on {count} of the same {gap.n} test images {against} ({points(gap)}){sure}{caveat}"
    if gap.low > 0 or (promote == "not_worse" and gap.value >= 0):
        return Verdict("champion", reason, champion.version, gap)
    if gap.value >= 0:
        reason = f"{reason}: too little evidence that it is better"
    return Verdict("challenger", reason, champion.version, gap)


def right_answers(dataset: Path, files: list[Path]) -> np.ndarray:
    """Runs edge models on the test images of a dataset.

    Args:
        dataset: A dataset folder.
        files: ONNX files as `export_onnx` writes them: uint8 [batch, H, W, 3] in, probabilities [batch, classes] out,
            class names as JSON in the metadata `labels`.

    Returns:
        bool [files, n]: whether each model's top class is the image's.

    Raises:
        GraftlineError: A file does not run.
    """
    truth, classes = open_split(dataset, "test").labels, read_record(dataset, DataVersion).classes
    models = [EdgeModel(file) for file in files]
    rows = map_threads(lambda image: [model.top_class(image) for model in models], iter_images(dataset, "test"))
    answers = list(track(rows, "comparing with the champion", total=len(truth)))
    return np.array(classes)[truth] == np.array(answers).T


def _leak(dataset: Path, candidate: Candidate, champion: RegisteredVersion) -> str:
    theirs = champion.learned_from
    if theirs[0] == candidate.bundle.data_version or set(theirs) <= keeps_splits_of(dataset):
        return ""
    return (
        f" (the champion was trained on data version {theirs[0]}, which may hold some of these test images "
        "among its training images: that can only flatter the champion)"
    )
