"""Layer groups from stem to head: the units that are frozen, unfrozen and given their own learning rates."""

from dataclasses import dataclass

from timm.models import group_parameters
from torch import nn

from graftline.models.weights import head_name


@dataclass(frozen=True)
class LayerGroup:
    """Some layers that are treated alike.

    Attributes:
        parameters: Their names, as in `named_parameters`.
        modules: Names of the modules that own them (for BatchNorm's mode and buffers); not the whole model, which owns
            a ViT's class token and position embedding.
    """

    parameters: tuple[str, ...]
    modules: tuple[str, ...]


def layer_groups(model: nn.Module) -> list[LayerGroup]:
    """Splits a timm model into groups ordered from stem to head.

    The order is timm's own (`group_matcher(coarse=True)`: stem, stages, final norm or convolution); the classifier is
    always a group of its own, the last one. Every parameter is in exactly one group.

    Args:
        model: A timm classifier.

    Returns:
        At least two groups.

    Raises:
        GraftlineError: The model does not end in one linear layer.
    """
    head = head_name(model) + "."
    by_layer = group_parameters(model, model.group_matcher(coarse=True))  # type: ignore[operator]
    body = [[n for n in by_layer[layer] if not n.startswith(head)] for layer in sorted(by_layer)]
    classifier = [name for name, _ in model.named_parameters() if name.startswith(head)]
    groups = [_group(names) for names in [*body, classifier] if names]
    covered = [name for group in groups for name in group.parameters]
    assert sorted(covered) == sorted(name for name, _ in model.named_parameters()), (
        "a parameter is in no group or in two"
    )
    return groups


def _group(names: list[str]) -> LayerGroup:
    owners = dict.fromkeys(name.rpartition(".")[0] for name in names)
    return LayerGroup(tuple(names), tuple(owner for owner in owners if owner))
