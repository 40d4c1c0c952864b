"""Champion against challenger: both shipped files on the same current test images, and the verdict in plain words.

The rule: a new version becomes champion when it is right at least as often as the champion on the same test images.
Requiring proof that it is better would keep the older model, trained on older data, through every tie; the paired
interval tells whether the difference could be chance, and the reason says so.
"""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime as ort

from graftline.data.dataset import iter_images, open_split
from graftline.data.parallel import map_threads
from graftline.errors import GraftlineError
from graftline.intervals import paired_difference
from graftline.progress import track
from graftline.records import DataVersion, Interval, read_record
from graftline.registry.bundles import download_shipped
from graftline.registry.candidate import Candidate
from graftline.registry.client import Registry
from graftline.registry.versions import RegisteredVersion


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
) -> Verdict:
    """Decides the alias of a new version.

    Args:
        registry: An open registry.
        dataset: The current dataset folder; its test images are read.
        candidate: The checked bundle.
        version: The version made from it.
        champion: The present champion, None when there is none.

    Raises:
        GraftlineError: The champion's file is not the one that was registered, or a file does not run.
    """
    if champion is None:
        return Verdict("champion", "it is the first: the registry had no champion to compare it with")
    before = champion.version
    if before == version.version:
        return Verdict("champion", "it is the champion already: an earlier registration was interrupted after that")
    if not champion.bundle:
        reason = f"champion version {before} was not registered by graftline, so its answers cannot be compared"
        return Verdict("challenger", f"{reason}; {_by_hand(champion)}", before)
    if set(champion.classes) != set(candidate.bundle.classes):
        new, old = (", ".join(names) for names in (candidate.bundle.classes, champion.classes))
        reason = f"its classes ({new}) are not those of champion version {before} ({old}), so they cannot be compared"
        return Verdict("challenger", f"{reason}; {_by_hand(champion)}", before)
    with tempfile.TemporaryDirectory() as temporary:
        old_file = download_shipped(registry, champion, Path(temporary))
        new_right, old_right = right_answers(dataset, [candidate.shipped, old_file])
    return verdict(new_right, old_right, champion, _leak(candidate, champion))


def verdict(new_right: np.ndarray, old_right: np.ndarray, champion: RegisteredVersion, caveat: str = "") -> Verdict:
    """Applies the rule to the two models' answers.

    Args:
        new_right: bool [n], whether the new model is right on each test image.
        old_right: bool [n], the champion's, on the same images.
        champion: The present champion.
        caveat: What to say at the end of the reason.
    """
    gap = paired_difference(new_right, old_right)
    more = int(new_right.sum()) - int(old_right.sum())
    count = "as many" if more == 0 else f"{abs(more)} {'more' if more > 0 else 'fewer'}"
    against = f"{'as' if more == 0 else 'than'} champion version {champion.version}"
    value, low, high = (f"{100 * share:+.1f}" for share in (gap.value, gap.low, gap.high))
    sure = ", beyond chance" if gap.low > 0 or gap.high < 0 else ", which may be chance" if more else ""
    measured = f"({value} points, 95 % interval {low} to {high})"
    reason = f"it is right on {count} of the same {gap.n} test images {against} {measured}{sure}{caveat}"
    if gap.value >= 0:
        return Verdict("champion", reason, champion.version, gap)
    return Verdict("challenger", f"{reason}; {_by_hand(champion)}", champion.version, gap)


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
    models = [_Classifier(file) for file in files]
    rows = map_threads(lambda image: [model.top_class(image) for model in models], iter_images(dataset, "test"))
    answers = list(track(rows, "comparing with the champion", total=len(truth)))
    return np.array(classes)[truth] == np.array(answers).T


class _Classifier:
    """An edge model in onnxruntime on one CPU thread; may be shared by several threads."""

    def __init__(self, file: Path) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3  # errors only
        try:
            self._session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
            self._classes = json.loads(self._session.get_modelmeta().custom_metadata_map["labels"])
        except Exception as error:  # onnxruntime's own exceptions have no common base
            reason = str(error).partition("\n")[0]
            raise GraftlineError(f"{file.name} is not an edge model that onnxruntime can run: {reason}") from error
        self._input = self._session.get_inputs()[0].name

    def top_class(self, image: np.ndarray) -> str:
        (probabilities,) = self._session.run(None, {self._input: image[None]})
        return self._classes[int(probabilities[0].argmax())]


def _by_hand(champion: RegisteredVersion) -> str:
    return f"to make it the champion all the same, set the alias on {champion.name} in MLflow by hand"


def _leak(candidate: Candidate, champion: RegisteredVersion) -> str:
    theirs = champion.tags["data_version"]
    if theirs == candidate.bundle.data_version:
        return ""
    return (
        f" (the champion was trained on data version {theirs}, which may hold some of these test images "
        "among its training images: that can only flatter the champion)"
    )
