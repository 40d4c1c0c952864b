"""Which device and precision training runs on, through accelerate."""

import os
import shutil
from datetime import timedelta

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from torch import nn

from graftline.errors import GraftlineError, check_choice
from graftline.models.memory import keep_freed_memory
from graftline.training.agreement import from_main
from graftline.training.speed import LAYOUTS, choose_fastest

_CHOICES = ("auto", "cpu", "cuda")
_WAIT = timedelta(hours=12)  # the others wait while the main process decodes images or computes features
_PRECISIONS = ("auto", "fp32", "bf16", "fp16")


class Machine(Accelerator):
    """An accelerator that also knows how a network lies in memory and whether it is compiled.

    Attributes:
        layout: "channels_last" or "contiguous".
        compiles: Whether training runs through `torch.compile`.
    """

    layout = "channels_last"
    compiles = False

    @property
    def arithmetic(self) -> str:
        """Precision and layout, which decide the last bits of results."""
        return f"{self.mixed_precision} {self.layout}"

    def place(self, model: nn.Module) -> None:
        """Moves a network, in place, to the device in the layout."""
        model.to(self.device, memory_format=LAYOUTS[self.layout])  # type: ignore[call-overload]


def make_accelerator(
    device: str = "auto", precision: str = "auto", memory_format: str = "auto", torch_compile: bool = False
) -> Machine:
    """Returns an accelerator: the device, the precision, and the processes that train together.

    Args:
        device: "auto" (a GPU when there is one), "cpu" or "cuda".
        precision: "auto" (the fastest by a short measurement on this machine), "fp32", "bf16", or "fp16" (with loss
            scaling, on a GPU).
        memory_format: "auto" (the fastest, likewise), "channels_last" or "contiguous".
        torch_compile: Whether training runs through `torch.compile`.

    Raises:
        GraftlineError: A choice is unknown or not there.
    """
    check_choice("precision", precision, _PRECISIONS)
    check_choice("memory_format", memory_format, ("auto", *LAYOUTS))
    if device not in _CHOICES:
        raise GraftlineError(f"device {device!r} is not one of {', '.join(_CHOICES)}")
    if device == "cuda" and not torch.cuda.is_available():
        raise GraftlineError("device 'cuda' was asked for but PyTorch finds no CUDA GPU: use --device auto or cpu")
    on_cpu = device == "cpu" or not torch.cuda.is_available()
    if on_cpu:
        keep_freed_memory()
    if on_cpu and precision == "fp16":
        raise GraftlineError("precision fp16 needs a GPU: on this device use auto, bf16 or fp32")
    if on_cpu and torch_compile and not shutil.which(os.environ.get("CXX", "g++")):
        raise GraftlineError("torch_compile needs a C++ compiler on a CPU: install g++ or leave it out")
    return _start(on_cpu, precision, memory_format, torch_compile)


def _start(on_cpu: bool, precision: str, memory_format: str, torch_compile: bool) -> Machine:
    """Makes the accelerator; the main process measures for all, so that all do alike."""
    if AcceleratorState._shared_state and AcceleratorState().num_processes == 1:
        AcceleratorState._reset_state(reset_partial_state=True)  # an earlier step of this process chose otherwise
    state = PartialState(cpu=on_cpu, timeout=_WAIT)
    fastest = from_main(state, lambda: choose_fastest(state.device, precision, memory_format))
    mixed = "no" if fastest.precision == "fp32" else fastest.precision
    machine = Machine(cpu=on_cpu, mixed_precision=mixed)
    machine.layout, machine.compiles = fastest.layout, torch_compile
    return machine


def is_fast_bfloat16_cpu(accelerator: Accelerator) -> bool:
    """Whether training runs on a CPU under bfloat16 autocast."""
    return accelerator.device.type == "cpu" and accelerator.mixed_precision == "bf16"
