"""Whether int8 is the file to ship, and why, in plain words."""

from dataclasses import dataclass

from graftline.records import Interval, Variant
from graftline.words import percent

_REALLY_SMALLER = 0.9  # of fp32's bytes


@dataclass(frozen=True)
class Decision:
    """What to ship.

    Attributes:
        int8: Whether int8 is shipped.
        why: The reason in plain words, with the numbers.
    """

    int8: bool
    why: str


def decide(fp32: Variant, int8: Variant, difference: Interval, min_agreement: float) -> Decision:
    """Keeps int8 only if it agrees, is not significantly worse, and is really smaller or faster.

    Args:
        fp32: The exported file, measured.
        int8: The quantised file, measured on the same images.
        difference: int8's accuracy minus fp32's, paired 95 % interval.
        min_agreement: Least share of test images on which int8 names the same class as PyTorch.
    """
    agreement = (
        f"it agrees with PyTorch on {percent(int8.agreement.value)} of {int8.agreement.n} test images "
        f"(95 % interval {percent(int8.agreement.low)} to {percent(int8.agreement.high)}; "
        f"{percent(min_agreement)} is asked)"
    )
    accuracy = (
        f"its accuracy is {int8.accuracy.value:.4f} against {fp32.accuracy.value:.4f} "
        f"(difference {difference.value:+.4f}, 95 % interval {difference.low:+.4f} to {difference.high:+.4f})"
    )
    gains = (
        f"it takes {int8.bytes / 1e6:.1f} MB instead of {fp32.bytes / 1e6:.1f} "
        f"and {int8.latency_ms.value:.1f} ms an image instead of {fp32.latency_ms.value:.1f}"
    )
    if int8.agreement.value < min_agreement:
        return _refuse(f"it agrees too little: {agreement}, {accuracy}")
    if difference.high < 0:
        return _refuse(f"it is significantly worse: {accuracy}, {agreement}")
    if not _gains_enough(fp32, int8):
        return _refuse(f"it gains nothing: {gains}")
    return Decision(True, f"int8 is shipped: {agreement}, {accuracy}, and {gains}")


def _refuse(reason: str) -> Decision:
    return Decision(False, f"fp32 is shipped; int8 was measured and left out because {reason}")


def _gains_enough(fp32: Variant, int8: Variant) -> bool:
    faster = int8.latency_ms.high < fp32.latency_ms.low  # the quartiles do not even touch
    return faster or int8.bytes < _REALLY_SMALLER * fp32.bytes
