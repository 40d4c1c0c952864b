"""Courses of the learning rate after a linear warm-up, as factors of the peak rate."""

import math
from collections.abc import Mapping, Sequence

from graftline.records import Schedule

FINAL_SHARE = 0.01
_PLATEAU_PATIENCE = 2
_RISING_SHARE = 0.3
_ONE_CYCLE_START = 0.04


def warmup_factor(step: int, warmup_steps: int) -> float:
    """Returns the factor of linear warm-up in (0, 1]; 1 from `warmup_steps` on."""
    return min(1.0, (step + 1) / (warmup_steps + 1))


def schedule_factor(schedule: Schedule, step: int, total_steps: int, warmup_steps: int) -> float:
    """Returns the factor of the peak rate at an optimizer step.

    Cosine annealing and warm restarts follow Loshchilov and Hutter (2017), "SGDR"; the cycles double in length.
    One-cycle follows Smith and Topin (2018), "Super-Convergence": up over the first 30 %, which is its warm-up, and
    down to nearly nothing.
    "plateau" is constant here: the loop lowers the peak itself when validation stops to improve.

    Args:
        schedule: Which course.
        step: Optimizer step, from 0.
        total_steps: Steps of the whole run (of the stage, in progressive unfreezing).
        warmup_steps: Steps of linear warm-up at the start; one-cycle has its own instead.

    Returns:
        In (0, 1].
    """
    if schedule == "one_cycle":
        return _one_cycle(step / max(1, total_steps))
    if step < warmup_steps:
        return warmup_factor(step, warmup_steps)
    done, span = step - warmup_steps, max(1, total_steps - warmup_steps)
    if schedule == "cosine":
        return _cosine(done / span)
    if schedule == "warm_restarts":
        return _cosine(_place_in_cycle(done, span))
    return 1.0


def is_on_plateau(history: Sequence[Mapping[str, float]], first: int, lowered: int) -> bool:
    """Whether the validation loss has not fallen for two epochs of a stage, and the rate has not been lowered in them.

    Args:
        history: Rows with `epoch` and `validation_loss`, the last one of the stage.
        first: Epochs before the stage.
        lowered: The epoch after which the rate was lowered last; 0: never.
    """
    stage = [row for row in history if row["epoch"] > first]
    best = min(stage, key=lambda row: row["validation_loss"])["epoch"]
    return stage[-1]["epoch"] - max(best, lowered) >= _PLATEAU_PATIENCE


def _cosine(share: float) -> float:
    return FINAL_SHARE + (1 - FINAL_SHARE) * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))


def _one_cycle(share: float) -> float:
    if share < _RISING_SHARE:
        return 1 - (1 - _ONE_CYCLE_START) * 0.5 * (1 + math.cos(math.pi * share / _RISING_SHARE))
    return _cosine((share - _RISING_SHARE) / (1 - _RISING_SHARE))


def _place_in_cycle(done: int, span: int) -> float:
    """Returns how far step `done` is into its cycle, in [0, 1): cycles of 1, 2 and 4 sevenths of the span."""
    sevenths, begin, length = 7 * done, 0, span
    while sevenths >= begin + length and length < 4 * span:
        begin, length = begin + length, 2 * length
    return min(1.0, (sevenths - begin) / length)
