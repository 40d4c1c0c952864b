"""Builds classifiers from backbones (timm) and says how their input wants to be."""

import difflib
from dataclasses import dataclass
from typing import Any, Literal

import timm
from timm.models import is_model_in_modules
from torch import nn

from graftline.errors import GraftlineError, WeightsError
from graftline.models.weights import head_name, load_pretrained
from graftline.models.weights_file import local_record

Interpolation = Literal["bicubic", "bilinear"]
_ANY_SIZE = ("vision_transformer", "deit", "eva")  # modules of timm


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
    architecture, _, tag = backbone.partition(".")
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), n=3)
        hint = f": did you mean {', '.join(near)}?" if near else ""
        raise GraftlineError(f"no backbone is called {backbone!r}{hint}")
    known = timm.list_pretrained(f"{architecture}.*")
    if tag and backbone not in known:
        weights = f"there are {', '.join(known)}" if known else "timm knows none"
        raise GraftlineError(f"{architecture} has no weights called {tag!r}: {weights}")


def build_backbone(backbone: str, classes: int, dropout: float = 0.0, drop_path: float = 0.0) -> tuple[nn.Module, str]:
    """Builds a classifier with pretrained weights and a new head.

    Args:
        backbone: A timm model name.
        classes: Number of outputs of the new head.
        dropout: Before the head, in [0, 1).
        drop_path: Stochastic depth, in [0, 1).

    Returns:
        The model (fp32, train mode as timm leaves it) and the SHA-256 of the pretrained tensors.

    Raises:
        GraftlineError: timm does not know the name, the model does not end in one linear layer, or has no stochastic
            depth.
        WeightsError: Its weights are not at hand, do not fit, or are not those of their first use.
    """
    model = build_empty(backbone, classes, dropout, drop_path)
    return model, load_pretrained(model, backbone)


def build_empty(backbone: str, classes: int, dropout: float = 0.0, drop_path: float = 0.0) -> nn.Module:
    """Builds the same architecture with random weights, to load trained ones into or to train from scratch.

    Vision transformers take images of any size that their patches divide: the position embedding is resampled.

    Raises:
        GraftlineError: As `build_backbone`.
    """
    check_backbone(backbone)
    rates = {name: rate for name, rate in (("drop_rate", dropout), ("drop_path_rate", drop_path)) if rate}
    sizes = {"dynamic_img_size": True} if is_model_in_modules(backbone, _ANY_SIZE) else {}
    try:
        model = timm.create_model(backbone, pretrained=False, num_classes=classes, **rates, **sizes)
    except TypeError as error:
        if "drop_path_rate" not in str(error):
            raise
        raise GraftlineError(f"{backbone} has no stochastic depth: leave out drop_path") from None
    head_name(model)
    return model


def input_spec(backbone: str) -> InputSpec:
    """Returns the input that the weights' own record asks for: timm's, or one beside a file of the user's.

    Raises:
        GraftlineError: timm does not know the name.
        WeightsError: The record beside the user's file cannot be read.
    """
    check_backbone(backbone)
    own = local_record(backbone)
    try:
        return _spec({**timm.get_pretrained_cfg(backbone).to_dict(), **own})
    except (TypeError, ValueError, IndexError) as error:
        raise WeightsError(
            f"{backbone}.json in GRAFTLINE_WEIGHTS holds {own}: input_size, mean and std each take three numbers"
        ) from error


def _spec(config: dict[str, Any]) -> InputSpec:
    (mean, std), (_, _, side) = ([float(v) for v in config[k]] for k in ("mean", "std")), config["input_size"]
    (red, green, blue), (by_red, by_green, by_blue) = mean, std
    how: Interpolation = "bilinear" if config["interpolation"] == "bilinear" else "bicubic"
    return InputSpec(int(side), (red, green, blue), (by_red, by_green, by_blue), how)
