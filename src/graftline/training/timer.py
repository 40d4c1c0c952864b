"""Where the time of training goes: seconds by section, the network's operations, the machine's matrix-multiply peak.

A disabled `StepTimer` costs nothing, so the loop always has one. An enabled one counts the floating-point operations
of the first forward and backward pass of each stage; those two are not timed (they also warm up), all later ones are.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

_ORDER = ("decode", "augment", "forward", "backward", "optimizer")
_COUNTED = ("forward", "backward")
_OTHER = "other"
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
_SIDES = {"cpu": 2048, "cuda": 8192}  # of the square matrices: large enough that more would not be faster
_PEAK_RUNS, _PEAK_SECONDS = 10, 1.0
_NOTHING = nullcontext()


class StepTimer:
    """Adds up the seconds of named sections of a training run.

    Args:
        enabled: Whether anything is measured.
        device: Where the work is; a GPU is waited for at both ends of a section.
    """

    def __init__(self, enabled: bool = False, device: torch.device | str = "cpu") -> None:
        self.enabled = enabled
        self._device = torch.device(device)
        self._total = self._left_out = 0.0
        self._seconds: dict[str, float] = dict.fromkeys(_ORDER, 0.0)
        self._calls: dict[str, int] = {}
        self._operations: dict[str, int] = dict.fromkeys(_COUNTED, 0)
        self._operations_per_call: dict[str, int] = {}
        self._uncounted = set(_COUNTED)

    def new_stage(self) -> None:
        """Says that other layers train from now on: the next forward and backward pass are counted again."""
        self._uncounted = set(_COUNTED)

    def section(self, name: str) -> AbstractContextManager[None]:
        """Returns a context whose seconds are added to those of `name`; sections do not nest.

        Args:
            name: "decode", "augment", "forward", "backward", "optimizer", or any other word that the report shall show.
        """
        if not self.enabled:
            return _NOTHING
        return self._count(name) if name in self._uncounted else self._time(name)

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Wraps the run, in one block or several: what is in it but in no section is `other`. Sections lie inside."""
        started = self._now()
        yield
        self._total += self._now() - started

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds by section, in the order of a training step, `other` last."""
        inside = sum(self._seconds.values())
        return {**self._seconds, _OTHER: max(0.0, self._total - self._left_out - inside)}

    def gigaflops(self, name: str) -> float:
        """Returns the operations per second in a section, in 10^9; 0 where none were counted."""
        seconds = self._seconds[name]
        return self._operations.get(name, 0) / seconds / 1e9 if seconds else 0.0

    def report(self, precision: str) -> list[str]:
        """Measures the machine's peak (about two seconds) and returns the table as lines.

        Args:
            precision: That of training: "bf16", "fp16", or anything else for fp32 (as accelerate's `mixed_precision`).
        """
        used = precision if precision in _DTYPES else "fp32"
        peaks = {name: measure_peak(self._device, _DTYPES[name]) for name in dict.fromkeys((used, "bf16", "fp32"))}
        whole = sum(self.seconds.values())
        steps = f"{self._calls.get('forward', 0)} timed passes"
        lines = [f"where {whole:.1f} s of training went ({steps}; the first of each stage is counted, not timed)"]
        for name, seconds in self.seconds.items():
            line = f"  {name:12}{seconds:8.1f} s {seconds / max(whole, 1e-9):6.1%}"
            lines.append(line + self._achieved(name, used, peaks[used]))
        shown = ", ".join(f"{peak:.0f} GFLOP/s {name}" for name, peak in peaks.items())
        return [*lines, f"  matrix-multiply peak of this machine, measured now: {shown}"]

    def _achieved(self, name: str, precision: str, peak: float) -> str:
        speed = self.gigaflops(name) if name in _COUNTED else 0.0
        return f"   {speed:.0f} GFLOP/s, {speed / peak:.1%} of the {precision} peak" if speed else ""

    @contextmanager
    def _time(self, name: str) -> Iterator[None]:
        started = self._now()
        yield
        self._seconds[name] = self._seconds.get(name, 0.0) + self._now() - started
        self._calls[name] = self._calls.get(name, 0) + 1
        self._operations[name] = self._operations.get(name, 0) + self._operations_per_call.get(name, 0)

    @contextmanager
    def _count(self, name: str) -> Iterator[None]:
        started = self._now()
        with _OperationCounter() as counter:
            yield
        self._uncounted.discard(name)
        self._operations_per_call[name] = counter.operations
        self._left_out += self._now() - started

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


def measure_peak(device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> float:
    """Returns the speed of large square matrix multiplications in 10^9 operations per second, the best of several."""
    device = torch.device(device)
    side = _SIDES.get(device.type, _SIDES["cpu"])
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    timer, best, spent = StepTimer(device=device), math.inf, 0.0
    for run in range(_PEAK_RUNS):
        started = timer._now()
        torch.mm(a, b)
        seconds = timer._now() - started
        best, spent = min(best, seconds), spent + seconds
        if run and spent > _PEAK_SECONDS:
            break
    return 2 * side**3 / best / 1e9


class _OperationCounter(TorchDispatchMode):
    """Counts the floating-point operations of matrix products and convolutions (a multiply-add is two)."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        formula = _FORMULAS.get(func._overloadpacket)
        if formula is None:
            with self:
                result = func.decompose(*args, **kwargs)
            return func(*args, **kwargs) if result is NotImplemented else result
        result = func(*args, **kwargs)
        self.operations += formula(*args, **kwargs, out_val=result)
        return result


def _convolution_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
    mask: list[bool],
    out_val: Any = None,
) -> int:
    """Each gradient costs what the forward pass does; PyTorch's own formula forgets the groups of the second one."""
    positions = x if transposed else grad
    return 2 * positions.shape[0] * math.prod(positions.shape[2:]) * weight.numel() * sum(map(bool, mask[:2]))


_FORMULAS: dict[Any, Callable[..., int]] = {
    **flop_registry,
    torch.ops.aten.convolution_backward: _convolution_backward,
}
