"""Freezing that holds: frozen parameters get no gradient, frozen BatchNorm keeps its statistics, and both are checked.

`requires_grad=False` alone lets the running statistics of frozen BatchNorm layers drift with every forward pass in
train mode, so frozen modules are put back into eval mode after every `.train()`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from graftline.errors import FrozenMovedError
from graftline.models.groups import LayerGroup


class Freezer:
    """Keeps the first groups of a model frozen and proves that they did not move.

    Args:
        model: The classifier.
        groups: Its layer groups from stem to head.
        frozen: How many groups, counted from the stem, are frozen; at most `len(groups) - 1`, so that the head trains.
        norm_statistics_frozen: Keep BatchNorm running statistics fixed in the trainable groups too. Small batches make
            poor statistics; the pretrained ones are kept and only scale and shift are trained.

    Attributes:
        modules: Names of the frozen modules.
    """

    def __init__(
        self, model: nn.Module, groups: Sequence[LayerGroup], frozen: int, norm_statistics_frozen: bool = True
    ) -> None:
        assert 0 <= frozen < len(groups), "the head must stay trainable"
        self._model = model
        self._norm_statistics_frozen = norm_statistics_frozen
        self._names = {name for group in groups[:frozen] for name in group.parameters}
        self.modules = frozenset(name for group in groups[:frozen] for name in group.modules)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name not in self._names)
        self._frozen_blocks = [module for name, module in model.named_modules() if self._is_frozen_block(name, module)]
        self._before = {name: tensor.clone() for name, tensor in self._frozen_tensors()}

    def train_mode(self) -> None:
        """Puts the model into train mode, all that is frozen into eval mode."""
        self._model.train()
        for block in self._frozen_blocks:  # with what has no parameters in it: dropout, stochastic depth
            block.eval()
        for name, module in self._model.named_modules():
            is_norm = isinstance(module, nn.modules.batchnorm._BatchNorm)
            if name in self.modules or (is_norm and self._norm_statistics_frozen):
                module.eval()

    def _is_frozen_block(self, name: str, module: nn.Module) -> bool:
        parameters = {inner for inner, _ in module.named_parameters(prefix=name)}
        return bool(parameters) and parameters <= self._names

    def check(self) -> None:
        """Compares everything frozen bit by bit with what it was.

        Raises:
            FrozenMovedError: Something moved; names the first tensor and how many.
        """
        moved = [name for name, tensor in self._frozen_tensors() if not torch.equal(tensor, self._before[name])]
        if moved:
            raise FrozenMovedError(f"{len(moved)} frozen tensors changed during training, first {moved[0]}")

    def _frozen_tensors(self) -> list[tuple[str, Tensor]]:
        parameters = [(n, p.detach()) for n, p in self._model.named_parameters() if n in self._names]
        buffers = [
            (n, b)
            for n, b in self._model.named_buffers()
            if n.rpartition(".")[0] in self.modules or (self._norm_statistics_frozen and _is_statistic(n))
        ]
        return parameters + buffers


def _is_statistic(name: str) -> bool:
    return name.endswith(("running_mean", "running_var", "num_batches_tracked"))
