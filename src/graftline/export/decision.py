"""Which form of an edge model is shipped, which are kept beside it, and why, in plain words."""

from collections.abc import Sequence
from dataclasses import dataclass

from graftline.records import Interval, Variant
from graftline.words import percent, spread


@dataclass(frozen=True)
class Rules:
    """What a form must reach beside the reference to be kept.

    Attributes:
        min_agreement: Least share of test images on which it names the same class as PyTorch.
        really_smaller: Below this share of the reference's bytes it is smaller; else it has to be faster.
    """

    min_agreement: float
    really_smaller: float = 0.9


@dataclass(frozen=True)
class Measured:
    """A form that was made.

    Attributes:
        variant: What was measured.
        difference: Its accuracy minus the reference's on the same images, paired 95 % interval.
    """

    variant: Variant
    difference: Interval

    @property
    def name(self) -> str:
        """The form's."""
        return self.variant.name


@dataclass(frozen=True)
class Unmade:
    """A form that could not be made.

    Attributes:
        name: The form's.
        problem: Why, in words that name the form.
    """

    name: str
    problem: str


@dataclass(frozen=True)
class Decision:
    """What to ship and what to keep.

    Attributes:
        shipped: Name of the form to deploy.
        kept: Names of all forms that stay in the bundle, the reference first.
        left_out: Why a form does not, by its name.
        why: The reasons in plain words, with the numbers.
    """

    shipped: str
    kept: tuple[str, ...]
    left_out: dict[str, str]
    why: str


def decide(reference: Variant, others: Sequence[Measured | Unmade], rules: Rules) -> Decision:
    """Keeps the forms that agree, are not significantly worse and really smaller or faster; ships the smallest of them.

    Args:
        reference: The form to fall back on, which is always kept.
        others: The other forms, measured on the same images.
        rules: What they must reach.

    Returns:
        What to do; the reference is shipped when no other form is kept.
    """
    left_out = {one.name: reason for one in others if (reason := _objection(reference, one, rules))}
    kept = [one.variant for one in others if isinstance(one, Measured) and one.name not in left_out]
    shipped = min(kept, key=lambda variant: variant.bytes, default=reference)
    return Decision(
        shipped=shipped.name,
        kept=(reference.name, *(variant.name for variant in kept)),
        left_out=left_out,
        why=_why(reference, others, rules, left_out, shipped.name),
    )


def _objection(reference: Variant, one: Measured | Unmade, rules: Rules) -> str:
    """Returns why a form is not kept, '' when it is."""
    if isinstance(one, Unmade):
        return one.problem
    agreement, accuracy = _agreement(one.variant, rules), _accuracy(reference, one)
    if one.variant.agreement.value < rules.min_agreement:
        return f"it agrees too little: {agreement}, {accuracy}"
    if one.difference.high < 0:
        return f"it is significantly worse: {accuracy}, {agreement}"
    if not _gains_enough(reference, one.variant, rules):
        return f"it gains nothing: {_gains(reference, one.variant)}"
    return ""


def _gains_enough(reference: Variant, variant: Variant, rules: Rules) -> bool:
    faster = variant.latency_ms.high < reference.latency_ms.low  # the quartiles do not even touch
    return faster or variant.bytes < rules.really_smaller * reference.bytes


def _why(
    reference: Variant, others: Sequence[Measured | Unmade], rules: Rules, left_out: dict[str, str], shipped: str
) -> str:
    """Returns one sentence: the shipped form first, then every other in the order of the table."""
    if others and all(isinstance(one, Unmade) for one in others):
        return f"{reference.name} is shipped: {'; '.join(left_out.values())}"
    notes = [f"{reference.name} is shipped"] if shipped == reference.name else []
    for one in sorted(others, key=lambda one: one.name != shipped):
        if isinstance(one, Unmade):
            notes.append(one.problem)
        elif one.name in left_out:
            notes.append(f"{one.name} was measured and left out because {left_out[one.name]}")
        else:
            fate = "shipped" if one.name == shipped else "kept"
            notes.append(f"{one.name} is {fate}: {_merits(reference, one, rules)}")
    return "; ".join(notes)


def _merits(reference: Variant, one: Measured, rules: Rules) -> str:
    return f"{_agreement(one.variant, rules)}, {_accuracy(reference, one)}, and {_gains(reference, one.variant)}"


def _agreement(variant: Variant, rules: Rules) -> str:
    agreement = variant.agreement
    return (
        f"it agrees with PyTorch on {percent(agreement.value)} of {agreement.n} test images "
        f"(95 % interval {spread(agreement)}; "
        f"{percent(rules.min_agreement)} is asked)"
    )


def _accuracy(reference: Variant, one: Measured) -> str:
    difference = one.difference
    return (
        f"its accuracy is {one.variant.accuracy.value:.4f} against {reference.accuracy.value:.4f} "
        f"(difference {difference.value:+.4f}, 95 % interval {difference.low:+.4f} to {difference.high:+.4f})"
    )


def _gains(reference: Variant, variant: Variant) -> str:
    return (
        f"it takes {variant.bytes / 1e6:.1f} MB instead of {reference.bytes / 1e6:.1f} "
        f"and {variant.latency_ms.value:.1f} ms an image instead of {reference.latency_ms.value:.1f}"
    )
