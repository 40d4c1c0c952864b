"""AdamW with a rate for each layer group, and the pull of L2-SP."""

from typing import Any

import torch
from torch import Tensor, nn

from graftline.models.groups import layer_groups
from graftline.records import TransferPlan

_HEAD_SHARE = 0.2  # of the peak rate: the head is solved before the first step


def make_optimizer(model: nn.Module, plan: TransferPlan) -> torch.optim.Optimizer:
    """Makes an optimizer whose parameter groups carry a `scale` of the peak rate.

    The scale falls by `layer_decay` from group to group towards the stem, or follows from the plan's `group_rates`.
    Norms and biases get no weight decay. All groups are in it from the start, so that its state carries over when more
    layers are unfrozen.

    Args:
        model: A timm classifier.
        plan: Rates and weight decay.
    """
    parameters = dict(model.named_parameters())
    groups = layer_groups(model)
    settings: list[dict[str, Any]] = []
    for group, scale in zip(reversed(groups), reversed(_scales(plan, len(groups))), strict=True):
        for decays in (True, False):
            chosen = [parameters[name] for name in group.parameters if (parameters[name].ndim > 1) == decays]
            if chosen:
                decay = plan.weight_decay if decays else 0.0
                settings.append({"params": chosen, "scale": scale, "weight_decay": decay})
    return torch.optim.AdamW(settings, lr=plan.learning_rate)


def _scales(plan: TransferPlan, groups: int) -> list[float]:
    """Returns the share of the peak rate of each group from stem to head."""
    if plan.group_rates:
        return [rate / plan.learning_rate for rate in plan.group_rates]
    head = 1.0 if plan.from_scratch else _HEAD_SHARE
    return [plan.layer_decay**distance for distance in reversed(range(groups - 1))] + [head]


class StartingPoint:
    """The weights that training began with, and the pull back to them (L2-SP; the new head is left free).

    Args:
        model: Its present weights are the starting point.
        strength: Of the pull; 0: none is made.
    """

    def __init__(self, model: nn.Module, strength: float) -> None:
        self._strength = strength
        names = {name for group in layer_groups(model)[:-1] for name in group.parameters} if strength else set()
        chosen = [(p, p.detach().clone()) for name, p in model.named_parameters() if name in names]
        self._pairs: list[tuple[Tensor, Tensor]] = [(p, start) for p, start in chosen if p.ndim > 1]

    @torch.no_grad()
    def add_pull(self) -> None:
        """Adds the gradient of `strength / 2 * |weights - start|^2` to the gradients."""
        for parameter, start in self._pairs:
            if parameter.grad is not None:
                parameter.grad.add_(parameter.detach() - start, alpha=self._strength)
