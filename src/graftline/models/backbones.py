"""Builds classifiers from pretrained backbones (timm) and says how their input wants to be."""

from dataclasses import dataclass
from typing import Literal

import timm
from torch import nn

from graftline.errors import GraftlineError
from graftline.models.weights import load_pretrained

Interpolation = Literal["bicubic", "bilinear"]


@dataclass(frozen=True)
class InputSpec:
    """How the pretrained weights want their images.

    Attributes:
        image_size: Side of the square input in pixels.
        mean: Per-channel mean of RGB in [0, 1].
        std: Per-channel divisor.
        interpolation: How images are resized.
    """

    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Interpolation


def check_backbone(backbone: str) -> None:
    """Raises a GraftlineError that offers similar names when timm does not know `backbone`."""
    if timm.is_model(backbone):
        return
    import difflib

    near = difflib.get_close_matches(backbone, timm.list_models(), n=3)
    raise GraftlineError(f"no backbone is called {backbone!r}" + (f": did you mean {', '.join(near)}?" if near else ""))


def build_backbone(backbone: str, classes: int) -> tuple[nn.Module, str]:
    """Builds a classifier with pretrained weights and a new head.

    Args:
        backbone: A timm model name.
        classes: Number of outputs of the new head.

    Returns:
        The model (fp32, train mode as timm leaves it) and the SHA-256 of the pretrained tensors.

    Raises:
        GraftlineError: timm does not know the name.
        WeightsError: Its weights are not at hand.
    """
    check_backbone(backbone)
    model = timm.create_model(backbone, pretrained=False, num_classes=classes)
    return model, load_pretrained(model, backbone)


def build_empty(backbone: str, classes: int) -> nn.Module:
    """Builds the same architecture without pretrained weights, to load trained ones into."""
    check_backbone(backbone)
    return timm.create_model(backbone, pretrained=False, num_classes=classes)


def input_spec(backbone: str) -> InputSpec:
    """Returns the input that the weights' own record asks for.

    Raises:
        GraftlineError: timm does not know the name.
    """
    check_backbone(backbone)
    config = timm.get_pretrained_cfg(backbone)
    interpolation: Interpolation = "bilinear" if config.interpolation == "bilinear" else "bicubic"
    return InputSpec(config.input_size[-1], tuple(config.mean), tuple(config.std), interpolation)
