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
    Norms and biases get no weight decay, nor do layers that L2-SP pulls to their start instead. All groups are in it
    from the start, so that its state carries over when more layers are unfrozen.

    Args:
        model: A timm classifier.
        plan: Rates and weight decay.
    """
    parameters = dict(model.named_parameters())
    groups = layer_groups(model)
    settings: list[dict[str, Any]] = []
    for group, scale in zip(reversed(groups), reversed(_scales(plan, len(groups))), strict=True):
        decays_at_all = group is groups[-1] or not plan.l2_sp
        for decays in (True, False):
            chosen = [parameters[name] for name in group.parameters if (parameters[name].ndim > 1) == decays]
            if chosen:
                decay = plan.weight_decay if decays and decays_at_all else 0.0
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

    It takes the place of weight decay and, as that in AdamW (Loshchilov and Hutter 2019, "Decoupled Weight Decay
    Regularization"), acts beside the gradients: among them, Adam would pull all weights alike, however far they are.

    Args:
        model: Its present weights are the starting point.
        strength: Of the pull; 0: none is made.
    """

    def __init__(self, model: nn.Module, strength: float) -> None:
        self._strength = strength
        names = {name for group in layer_groups(model)[:-1] for name in group.parameters} if strength else set()
        chosen = [p for name, p in model.named_parameters() if name in names and p.ndim > 1]
        self._starts: dict[Tensor, Tensor] = {p: p.detach().clone() for p in chosen}

    @torch.no_grad()
    def pull(self, optimizer: torch.optim.Optimizer) -> None:
        """Moves weights that train by the share `rate * strength` of their way back.

        Args:
            optimizer: Knows the present rate of each.
        """
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter in self._starts and parameter.grad is not None:
                    parameter.lerp_(self._starts[parameter], min(1.0, group["lr"] * self._strength))
