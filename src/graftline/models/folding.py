"""Frozen BatchNorm folded into the convolution before it while training, and taken out again afterwards.

A BatchNorm layer with fixed statistics only scales and shifts each channel. Folded into the convolution the function
is the same, but an optimizer step then means the same in every channel: backbones have channels of hardly any variance
that a frozen BatchNorm amplifies up to 75 times, and one step of Adam on their unfolded weights ruins the network.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

_PROBE_SIDE = 64
_TOLERANCE = 1e-3
_SILENT = 1e-12


@dataclass(frozen=True)
class _Pair:
    """A convolution and the BatchNorm that alone reads its output, by name, with what folding took away."""

    convolution: str
    norm: str
    module: _BatchNorm


@contextmanager
def folded_norms(model: nn.Module, keep: frozenset[str] = frozenset(), side: int = _PROBE_SIDE) -> Iterator[None]:
    """Folds BatchNorm layers into their convolutions inside the `with` block, in place.

    Afterwards the layers are back with their statistics, scale and shift as they were (a channel whose scale is 0
    gets 1 instead); convolution weights and shifts carry what was trained. Nothing is folded where a convolution's
    output is read elsewhere, or where the folded model would answer differently.

    Args:
        model: Classifier on the CPU or a GPU.
        keep: Names of modules that stay as they are (frozen ones).
        side: Of the square input in pixels; not every network takes every size.
    """
    pairs = [pair for pair in _find_pairs(model, side) if not {pair.convolution, pair.norm} & keep]
    if not _fold_all(model, pairs, side):
        pairs = []
    try:
        yield
    finally:
        _unfold_all(model, pairs)


def _find_pairs(model: nn.Module, side: int) -> list[_Pair]:
    """Runs the model once and pairs each BatchNorm with the bias-free convolution whose output it reads."""
    made: dict[int, tuple[str, Tensor]] = {}
    pairs, handles = [], []

    def after_convolution(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            made[id(output)] = name, output

        return hook

    def before_norm(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if id(inputs[0]) in made:
                pairs.append(_Pair(made.pop(id(inputs[0]))[0], name, cast(_BatchNorm, module)))

        return hook

    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d) and module.bias is None:
            handles.append(module.register_forward_hook(after_convolution(name)))
        elif isinstance(module, _BatchNorm) and module.affine and module.track_running_stats:
            handles.append(module.register_forward_pre_hook(before_norm(name)))
    _answer(model, side)
    for handle in handles:
        handle.remove()
    return pairs


@torch.no_grad()
def _answer(model: nn.Module, side: int) -> Tensor:
    """Returns the logits for two fixed inputs, without side effects on the model."""
    first = next(model.parameters())
    generator = torch.Generator().manual_seed(0)
    probe = torch.randn(2, 3, side, side, generator=generator).to(first.device)
    was_training = {name: module.training for name, module in model.named_modules()}
    model.eval()
    with torch.backends.cudnn.flags(enabled=False):  # its TF32 would differ by more than what is looked for
        answer = cast(Tensor, model(probe))
    for name, module in model.named_modules():
        module.training = was_training[name]
    return answer


@torch.no_grad()
def _fold_all(model: nn.Module, pairs: list[_Pair], side: int) -> bool:
    """Folds all pairs; when the answer is then another one, puts everything back and returns False."""
    before = _answer(model, side)
    weights = [model.get_submodule(pair.convolution).weight.detach().clone() for pair in pairs]  # type: ignore[operator]
    for pair in pairs:
        _fold(model, pair)
    if (_answer(model, side) - before).abs().max() <= _TOLERANCE * before.abs().max():
        return True
    for pair, weight in zip(pairs, weights, strict=True):
        convolution = cast(nn.Conv2d, model.get_submodule(pair.convolution))
        convolution.weight.copy_(weight)
        convolution.bias = None
        _replace(model, pair.norm, pair.module)
    return False


@torch.no_grad()
def _fold(model: nn.Module, pair: _Pair) -> None:
    convolution = cast(nn.Conv2d, model.get_submodule(pair.convolution))
    scale = _scale(pair.module)
    convolution.weight.mul_(scale.view(-1, 1, 1, 1))
    convolution.bias = nn.Parameter(pair.module.bias - cast(Tensor, pair.module.running_mean) * scale)
    _replace(model, pair.norm, _after_norm(pair.module))


@torch.no_grad()
def _unfold_all(model: nn.Module, pairs: list[_Pair]) -> None:
    for pair in pairs:
        convolution, norm = cast(nn.Conv2d, model.get_submodule(pair.convolution)), pair.module.to(_device(model))
        deviation = _deviation(norm)
        norm.weight[norm.weight.abs() < _SILENT] = 1.0
        scale = norm.weight / deviation
        convolution.weight.div_(scale.view(-1, 1, 1, 1))
        norm.bias.copy_(cast(Tensor, convolution.bias) + cast(Tensor, norm.running_mean) * scale)
        convolution.bias = None
        _replace(model, pair.norm, norm)


def _scale(norm: _BatchNorm) -> Tensor:
    return norm.weight / _deviation(norm)


def _deviation(norm: _BatchNorm) -> Tensor:
    return torch.sqrt(cast(Tensor, norm.running_var) + norm.eps)


def _after_norm(norm: _BatchNorm) -> nn.Module:
    """Returns what timm's BatchNorm does besides normalising: drop and activation."""
    parts = [getattr(norm, name) for name in ("drop", "act") if hasattr(norm, name)]
    return nn.Sequential(*parts) if parts else nn.Identity()


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
