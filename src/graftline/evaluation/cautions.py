"""What a reader must keep in mind before trusting the numbers, in plain words."""

from collections.abc import Iterator

from scipy.stats import chi2_contingency

from graftline.evaluation.measurements import Measurements
from graftline.intervals import unpaired_difference
from graftline.records import Interval, TrainedModel
from graftline.words import percent

FEW_IMAGES = 100
FEW_OF_A_CLASS = 20
_MOST_NAMES = 5
_CHANCE = 0.05


def list_cautions(measured: Measurements, model: TrainedModel, split: str) -> list[str]:
    """Returns one sentence per caution; empty when there is nothing to warn of.

    Args:
        measured: The measurements.
        model: The model's record.
        split: The split that was measured.
    """
    training = [f"While training, in epoch {event.epoch}: {event.message}." for event in model.events]
    return [*_on_split(measured, model, split), *_on_classes(measured), *_on_domains(measured), *training]


def _on_split(measured: Measurements, model: TrainedModel, split: str) -> Iterator[str]:
    accuracy = measured.accuracy
    if split == "validation":
        yield (
            "These are validation images: the weights were chosen by the loss on them, so the numbers flatter the "
            "model. The test split gives the honest ones."
        )
    if accuracy.n < FEW_IMAGES:
        yield (
            f"The {split} split has only {accuracy.n} images, so the intervals are wide: accuracy is known only to lie "
            f"between {percent(accuracy.low)} and {percent(accuracy.high)}."
        )
    if measured.groups < accuracy.n:
        wide = measured.accuracy_of_groups
        yield (
            f"The {accuracy.n:,} images come in {measured.groups:,} groups, and images of a group are alike: counting "
            f"that, accuracy is known only to lie between {percent(wide.low)} and {percent(wide.high)}. The other "
            "intervals count every image as independent."
        )
    largest = int(measured.confusion.sum(axis=1).max())
    if accuracy.low <= largest / accuracy.n:
        name = measured.classes[int(measured.confusion.sum(axis=1).argmax())].name
        yield (
            f"Always answering “{name}” would be right on {percent(largest / accuracy.n)} of these images: "
            "the model is not shown to be better than that."
        )
    if split == "test" and model.validation_accuracy.n:
        yield from _on_gap(model.validation_accuracy, accuracy)


def _on_gap(validation: Interval, test: Interval) -> Iterator[str]:
    if unpaired_difference(validation, test).low > 0:
        yield (
            f"Accuracy is {percent(validation.value)} on validation but {percent(test.value)} on test images, more "
            "than chance explains: the model was fitted to the validation split, or the two splits differ in kind."
        )


def _on_classes(measured: Measurements) -> Iterator[str]:
    unseen = [c.name for c in measured.classes if c.metrics["recall"].n == 0]
    silent = [c.name for c in measured.classes if c.metrics["recall"].n and c.metrics["precision"].n == 0]
    few = [c.name for c in measured.classes if 0 < c.metrics["recall"].n < FEW_OF_A_CLASS]
    if unseen:
        yield f"No image of {_names(unseen)} is in this split: nothing is known about recall there."
    if silent:
        yield f"The model never answers {_names(silent)}: every image of it is taken for something else."
    if few:
        yield f"Fewer than {FEW_OF_A_CLASS} images of {_names(few)}: the numbers by class there are rough guesses."


def _on_domains(measured: Measurements) -> Iterator[str]:
    ranked = sorted(measured.accuracy_by_domain.items(), key=lambda item: item[1].value)
    if len(ranked) < 2:
        return
    (worst, low), (best, high) = ranked[0], ranked[-1]
    if _differ([accuracy for _, accuracy in ranked]) and unpaired_difference(high, low).low > 0:
        yield (
            f"Accuracy on “{worst}” ({percent(low.value)}, n={low.n:,}) is lower than on “{best}” "
            f"({percent(high.value)}, n={high.n:,}), more than chance explains."
        )


def _differ(accuracies: list[Interval]) -> bool:
    """Whether proportions differ more than chance explains: the highest and lowest of many always look apart."""
    right = [round(one.value * one.n) for one in accuracies]
    wrong = [one.n - count for one, count in zip(accuracies, right, strict=True)]
    return bool(any(right) and any(wrong) and chi2_contingency([right, wrong]).pvalue < _CHANCE)


def calibration_in_words(measured: Measurements) -> str:
    """Says what the calibration error means for whoever uses the probabilities."""
    error, sure, right = measured.metrics["calibration_error"], measured.mean_confidence, measured.accuracy.value
    if error.low == 0:
        return (
            "The probabilities cannot be told from perfectly calibrated ones by these images: where the model says "
            f"80 %, it may well be right in 80 % of cases. An error of {percent(error.high)} is possible too."
        )
    if measured.accuracy.low <= sure <= measured.accuracy.high:
        return "Some probabilities are too high and some too low, and on average they balance: see the diagram."
    kind = "too sure of itself" if sure > right else "more cautious than it need be"
    return f"The model is {kind}: its answers carry {percent(sure)} on average and {percent(right)} of them are right."


def _names(names: list[str]) -> str:
    shown = ", ".join(f"“{name}”" for name in names[:_MOST_NAMES])
    return shown if len(names) <= _MOST_NAMES else f"{shown} and {len(names) - _MOST_NAMES} more classes"
