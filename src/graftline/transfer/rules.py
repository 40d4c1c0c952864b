"""The field's guidelines for how to transfer, as rules that give their reasons.

By the number of images and how far they are from what the backbone was trained on (Yosinski et al. 2014: early layers
are general, late ones specific): under 1,000 images feature extraction at 1e-3; 1,000 to 10,000 fine-tuning with early
layers frozen; above, fine-tuning of all layers; middle sizes with a domain difference, progressive unfreezing.
"""

from dataclasses import dataclass

from graftline.records import Strategy
from graftline.words import percent

SMALL = 1_000
LARGE = 10_000
GOOD_ENOUGH = 0.98


@dataclass(frozen=True)
class Choice:
    """A strategy and why.

    Attributes:
        strategy: Which.
        reason: Why, in plain words.
        bold: Whether all layers train, at a higher rate: far images may need it, near ones be harmed.
    """

    strategy: Strategy
    reason: str
    bold: bool = False


def rank_strategies(images: int, domain_differs: bool, probe_accuracy_low: float) -> list[Choice]:
    """Ranks all three strategies, and bold fine-tuning, for this data, best first.

    Args:
        images: Number of training and validation images.
        domain_differs: Whether the data is far from what the backbone has seen.
        probe_accuracy_low: Lower end of the interval of the linear probe's cross-validated accuracy.

    Returns:
        Each once, with the rule that put it there.
    """
    best = _best(images, domain_differs, probe_accuracy_low)
    return [best, *(choice for choice in _others(images) if choice.bold or choice.strategy != best.strategy)]


def _best(images: int, domain_differs: bool, probe_accuracy_low: float) -> Choice:
    if probe_accuracy_low >= GOOD_ENOUGH:
        return Choice(
            "feature_extraction", f"frozen features already give at least {percent(GOOD_ENOUGH, 0)}: nothing to gain"
        )
    if images < SMALL:
        return Choice("feature_extraction", f"{images:,} images are under {SMALL:,}: train only a new head")
    if images > LARGE:
        return Choice("fine_tuning", f"{images:,} images are over {LARGE:,}: enough to train all layers")
    if domain_differs:
        return Choice(
            "progressive_unfreezing",
            f"{images:,} images are between {SMALL:,} and {LARGE:,} and differ from the backbone's domain: "
            "unfreeze from the head down",
        )
    return Choice(
        "fine_tuning",
        f"{images:,} images are between {SMALL:,} and {LARGE:,}: train with the early, general layers frozen",
    )


def _others(images: int) -> list[Choice]:
    tuning = Choice("fine_tuning", f"the more thorough alternative for {images:,} images")
    extraction = Choice("feature_extraction", "the baseline: cheapest, cannot adapt to another domain")
    gradual = Choice("progressive_unfreezing", "between the two: careful with pretrained layers, slower")
    bold = Choice("fine_tuning", "the bold alternative, for images far from what the backbone has seen", bold=True)
    return [extraction, tuning, bold, gradual] if images < SMALL else [tuning, bold, gradual, extraction]
