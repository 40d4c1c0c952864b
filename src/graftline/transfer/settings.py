"""The plan to carry out: one of the ranked ones, with the changes that a user makes to it (`dropout: 0.2, mixup: 0.2`).

The changes are a YAML flow mapping, with or without its outer braces. Its scalars are taken as text: pydantic makes
numbers and truth values of them, also of `1e-5`, which is no number to YAML 1.1.
"""

import difflib
import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from graftline.errors import GraftlineError
from graftline.records import AugmentationPolicy, DataVersion, Settings, TransferPlan, TransferPlans, read_record

_SEPARATOR = re.compile(r"(?<=\w)\s*[=:]\s*")


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
        settings: `name: value` separated by commas, names as in Settings, lists as `[1, 2, 3]`; also `name=value` and
            `[1;2;3]`.
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
    changes: dict[str, Any] = {}
    for key, value in _pairs(settings):
        name = _known(key)
        if name in changes:
            raise GraftlineError(f"the setting {name} is given twice: leave one out")
        changes[name] = _plain(name, value)
    return changes


def _pairs(settings: str) -> list[tuple[yaml.Node, yaml.Node]]:
    """Reads names and values; the form of before, `a=1,b=[2;3]`, becomes YAML first: neither sign is in any value."""
    text = _SEPARATOR.sub(": ", settings.strip()).replace(";", ",").strip(", ")
    try:
        node = yaml.compose(text if text.startswith("{") else f"{{{text}}}", Loader=yaml.BaseLoader)
    except yaml.YAMLError as error:
        problem = getattr(error, "problem", None) or "a sign that YAML does not allow"
        raise GraftlineError(
            f"the settings {settings!r} cannot be read ({problem}): write name: value, name: value; lists as [1, 2]"
        ) from None
    assert isinstance(node, yaml.MappingNode)  # the braces make it one
    return node.value


def _known(key: yaml.Node) -> str:
    name = str(key.value).replace("-", "_") if isinstance(key, yaml.ScalarNode) else "a list or mapping"
    if name in Settings.model_fields:
        return name
    near = difflib.get_close_matches(name, Settings.model_fields, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(Settings.model_fields))}"
    raise GraftlineError(f"a plan has no setting {name!r}: {hint}")


def _plain(name: str, value: yaml.Node) -> str | list[str]:
    """Returns a value as text, or as a list of texts."""
    if isinstance(value, yaml.ScalarNode):
        if not value.value:
            raise GraftlineError(f"the setting {name} has no value: write {name}=VALUE")
        return value.value
    items = value.value if isinstance(value, yaml.SequenceNode) else [value]
    if not all(isinstance(item, yaml.ScalarNode) for item in items):
        raise GraftlineError(f"the setting {name} has values within values: give one value, or a list such as [1, 2]")
    return [item.value for item in items]


def _share_out(epochs: int, stages: list[int]) -> list[int]:
    """Spreads epochs over the stages in proportion, at least one each; too few leave out the first stages."""
    if not stages:
        return []
    shared = [max(1, round(epochs * stage / sum(stages))) for stage in stages[:-1]]
    while sum(shared) >= max(1, epochs):
        shared[next(place for place, share in enumerate(shared) if share)] -= 1
    return [*shared, epochs - sum(shared)]
