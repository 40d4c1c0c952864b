"""Chooses among trained candidates by their answers on the validation images; the test images stay unread.

The candidate that is right most often is the best; every other one is compared with it on the same images. Those within
a standard error of it count as equally good (the one-standard-error rule of Breiman et al. 1984, "Classification and
Regression Trees", by McNemar's statistic), and the smallest of them is chosen: fewer parameters, then smaller images,
then a lower log loss, then the one that was ranked first. A test for significance would let any candidate pass where
there are few images.
"""

from collections.abc import Sequence

import numpy as np

from graftline.evaluation.outputs import Predictions
from graftline.intervals import paired_difference, wilson
from graftline.records import Choice, TrainedCandidate, TrainedModel
from graftline.words import points

_DIGITS = 4  # of log losses: what differs less is the same


def choose_only(model: TrainedModel) -> Choice:
    """Returns the choice where there is none."""
    only = _candidate(model, validation_accuracy=model.validation_accuracy)
    reason = "it is the only candidate"
    return Choice(data_version=model.data_version, candidates=[only], chosen=only.model, reason=reason)


def choose_among(models: Sequence[TrainedModel], answers: Sequence[Predictions]) -> Choice:
    """Chooses one of several models.

    Args:
        models: Their records: of the same data and classes.
        answers: Of each, on the same validation images in the same order.
    """
    right, losses = [one.right for one in answers], [one.log_loss for one in answers]
    best = max(range(len(models)), key=lambda index: (right[index].sum(), -losses[index]))
    candidates = [
        _candidate(
            model,
            validation_accuracy=wilson(int(right[index].sum()), len(right[index])),
            validation_loss=losses[index],
            difference=None if index == best else paired_difference(right[index], right[best]),
        )
        for index, model in enumerate(models)
    ]
    good = [one for one, answer in zip(candidates, right, strict=True) if _is_as_good(answer, right[best])]
    chosen, *others = sorted(good, key=_size)
    reason = _reason(chosen, candidates[best], others)
    return Choice(data_version=models[0].data_version, candidates=candidates, chosen=chosen.model, reason=reason)


def _is_as_good(right: np.ndarray, best: np.ndarray) -> bool:
    """Whether McNemar's statistic, with the continuity correction of Edwards (1948), is at most one standard error."""
    lost, gained = int((best & ~right).sum()), int((right & ~best).sum())
    return max(0, lost - gained - 1) ** 2 <= lost + gained


def _candidate(model: TrainedModel, **measured: object) -> TrainedCandidate:
    plan = {name: getattr(model.plan, name) for name in ("name", "backbone", "strategy", "champion")}
    size = {"image_size": model.image_size, "parameters": model.parameters}
    return TrainedCandidate.model_validate({"model": model.sha256, **plan, **size, **measured})


def _size(candidate: TrainedCandidate) -> tuple[int, int, float]:
    assert candidate.validation_loss is not None, "candidates that are compared have been measured"
    return candidate.parameters, candidate.image_size, round(candidate.validation_loss, _DIGITS)


def _reason(chosen: TrainedCandidate, best: TrainedCandidate, others: Sequence[TrainedCandidate]) -> str:
    """Says why the chosen one was chosen before the others that are as good, in their order."""
    images = f"{best.validation_accuracy.n} validation images"
    if not others:
        return f"it is right on {_right(best)} of {images}: no other candidate comes within a standard error of it"
    found = f"no candidate is right on more of the {images} than it ({_right(best)})"
    if chosen.difference is not None:
        fewer = _right(best) - _right(chosen)
        count = f"{fewer} fewer of the same {images} than" if fewer else f"as many of the same {images} as"
        sure = ", which may be chance" if fewer else ""
        found = f"it is right on {count} the candidate {best.name} ({points(chosen.difference)}){sure}"
    return f"{found}; of the {len(others) + 1} within a standard error of the best, {_preference(chosen, others[0])}"


def _preference(chosen: TrainedCandidate, next_best: TrainedCandidate) -> str:
    if chosen.parameters < next_best.parameters:
        return f"it has the fewest parameters: {chosen.parameters:,} against {next_best.parameters:,}"
    if chosen.image_size < next_best.image_size:
        images = f"{chosen.image_size} px against {next_best.image_size}"
        return f"it has as few parameters as any and takes the smallest images of these: {images}"
    loss, next_loss = (f"{one.validation_loss:.{_DIGITS}f}" for one in (chosen, next_best))
    if loss == next_loss:
        return f"it has as few parameters and as low a log loss as any ({loss}), and comes first"
    return f"it has as few parameters as any and the lowest log loss of these: {loss}, then {next_loss}"


def _right(candidate: TrainedCandidate) -> int:
    return round(candidate.validation_accuracy.value * candidate.validation_accuracy.n)
