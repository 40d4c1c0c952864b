"""Records of whether there is reason to train again."""

from typing import Literal

from pydantic import Field

from graftline.records.base import Part, Record


class Drift(Part):
    """Whether a model answers differently to production images than to its test images, labels unseen.

    The probabilities of each class are compared by the two-sample Kolmogorov-Smirnov test; the smallest p-value counts,
    times the number of classes (Bonferroni). Source: S. Rabanser, S. Günnemann and Z. Lipton, "Failing Loudly: An
    Empirical Study of Methods for Detecting Dataset Shift", NeurIPS 2019 (BBSDs).

    Attributes:
        images: Number of production images it was measured on.
        reference: Number of test images.
        distance: Largest distance between the distributions of a class's probability, in [0, 1].
        p_value: Probability of such a distance without drift, corrected for the number of classes.
        detected: Whether that is below 0.05.
    """

    images: int
    reference: int
    distance: float
    p_value: float
    detected: bool


class Change(Record):
    """How a source differs from the champion's data, and whether that is a reason to train again.

    Attributes:
        name: Registered model's name.
        champion: Its present champion; empty when there is none.
        data_version: The data the champion was trained on; empty when that is not known.
        learned_before: Data versions that the champion's weights were trained on before those, newest first.
        champion_model: SHA-256 of the record of the champion's model; empty when the registry has no weights of it.
        images: Usable images of the source.
        added: Images that the champion's data do not hold, by their pixels.
        removed: Images of the champion's data that are not in the source any more.
        relabelled: Images with another class than there.
        moved: Images that the source puts in another split, domain or group than there.
        drift: Of production images, when some were given.
        retrain: Whether there is a reason.
        reason: In plain words.
    """

    step = "detect_change"
    kind: Literal["change"] = "change"
    name: str
    champion: str
    data_version: str
    learned_before: list[str] = Field(default_factory=list)
    champion_model: str = ""
    images: int
    added: int
    removed: int
    relabelled: int
    moved: int
    drift: Drift | None = None
    retrain: bool
    reason: str
