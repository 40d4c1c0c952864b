"""The plan to carry out: one of the ranked ones, with the changes that a user makes to it (`dropout=0.2,mixup=0.2`)."""

import difflib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from graftline.errors import GraftlineError
from graftline.records import AugmentationPolicy, DataVersion, TransferPlan, TransferPlans, read_record

_NOT_CHANGEABLE = {"backbone", "strategy", "champion", "evidence", "reasons"}  # another plan has another: --rank


def read_plan(plans: Path, data: DataVersion, policy: AugmentationPolicy, rank: int) -> TransferPlan:
    """Returns one of the ranked plans.

    Args:
        plans: Folder written by select_strategy.
        data: What the plans must have been made for.
        policy: The same.
        rank: 1 is the best.

    Raises:
        GraftlineError: The plans are for something else, or there are fewer.
    """
    ranked = read_record(plans, TransferPlans)
    if ranked.data_version != data.version or ranked.policy != policy.sha256:
        raise GraftlineError(
            f"the plans in {plans} were made for other data or another policy: run select_strategy again"
        )
    if not 1 <= rank <= len(ranked.plans):
        raise GraftlineError(f"rank {rank} does not exist: {plans} holds {len(ranked.plans)} plans, 1 is the best")
    return ranked.plans[rank - 1]


def change_plan(
    plan: TransferPlan, settings: str = "", epochs: int = 0, batch_size: int = 0, learning_rate: float = 0.0
) -> TransferPlan:
    """Returns the plan with some settings in place of its own.

    Another number of epochs is spread over the plan's stages; other stages make another number of epochs. Feature
    extraction has no epochs, whatever is asked for.

    Args:
        plan: What select_strategy chose.
        settings: `name=value` separated by commas, names as in TransferPlan; lists are written `[1;2;3]`.
        epochs: Passes over the training images; 0 changes nothing.
        batch_size: Images per optimizer step; 0 changes nothing.
        learning_rate: Peak rate; 0 changes nothing.

    Raises:
        GraftlineError: A name is unknown, or a value is out of its range; the message says what is possible.
    """
    given = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate}
    changes = {**_parse(settings), **{name: value for name, value in given.items() if value}}
    try:
        changed = TransferPlan.model_validate({**plan.model_dump(), **changes})
    except ValidationError as error:
        first = error.errors()[0]
        raise GraftlineError(
            f"the setting {first['loc'][0]}={first['input']} is not possible: {first['msg']}"
        ) from None
    changed = changed.model_copy(
        update={**_length(plan, changed, "stage_epochs" in changes), **_start(changed, changes)}
    )
    names = [name for name in TransferPlan.model_fields if getattr(changed, name) != getattr(plan, name)]
    return plan.model_copy(update={name: getattr(changed, name) for name in names})


def _start(changed: TransferPlan, changes: dict[str, Any]) -> dict[str, Any]:
    """Returns what random weights want: no champion, and no layer that stays as it is, unless one is asked for."""
    if not changed.from_scratch:
        return {}
    if changed.strategy == "feature_extraction":
        raise GraftlineError(
            "from_scratch=true has nothing to extract features with: choose another strategy, or a plan of another rank"
        )
    return {"champion": "", "frozen_groups": changed.frozen_groups if "frozen_groups" in changes else 0}


def _length(plan: TransferPlan, changed: TransferPlan, stages_given: bool) -> dict[str, Any]:
    """Returns epochs and stages that fit each other and the strategy."""
    if plan.strategy == "feature_extraction":
        return {"epochs": plan.epochs, "stage_epochs": plan.stage_epochs}
    if plan.strategy == "progressive_unfreezing" and stages_given:
        return {"epochs": sum(changed.stage_epochs)}
    if changed.epochs != plan.epochs:
        return {"stage_epochs": _share_out(changed.epochs, plan.stage_epochs)}
    return {}


def _parse(settings: str) -> dict[str, Any]:
    changes = {}
    for part in filter(None, (part.strip() for part in settings.split(","))):
        name, equals, value = part.partition("=")
        name = name.strip().replace("-", "_")
        known = set(TransferPlan.model_fields) - _NOT_CHANGEABLE
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(known))}"
            raise GraftlineError(f"a plan has no setting {name!r}: {hint}")
        if not equals:
            raise GraftlineError(f"the setting {name} has no value: write {name}=VALUE")
        changes[name] = _value(value.strip())
    return changes


def _value(text: str) -> Any:
    """Reads a list as one; pydantic makes numbers and truth values of words."""
    return [part.strip() for part in text[1:-1].split(";")] if text[:1] + text[-1:] == "[]" else text


def _share_out(epochs: int, stages: list[int]) -> list[int]:
    """Spreads epochs over the stages in proportion, at least one each; too few leave out the first stages."""
    if not stages:
        return []
    shared = [max(1, round(epochs * stage / sum(stages))) for stage in stages[:-1]]
    while sum(shared) >= max(1, epochs):
        shared[next(place for place, share in enumerate(shared) if share)] -= 1
    return [*shared, epochs - sum(shared)]
