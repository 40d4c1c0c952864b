"""Where the time of training goes: seconds by section, the network's operations, the machine's matrix-multiply peak.

A disabled `StepTimer` costs nothing, so the loop always has one. An enabled one counts the floating-point operations
of the first forward and backward pass of each stage; those two are not timed (they also warm up), all later ones are.
"""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch.utils.flop_counter import FlopCounterMode

_ORDER = ("decode", "augment", "forward", "backward", "optimizer")
_COUNTED = ("forward", "backward")
_OTHER = "other"
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
_SIDES = {"cpu": 2048, "cuda": 8192}  # of the square matrices: large enough that more would not be faster
_FIRST_SIDE, _PEAK_SECONDS = 128, 1.0
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
        """Measures the machine's peak in the precision of training (about a second) and returns the table as lines.

        Args:
            precision: That of training: "bf16", "fp16", or anything else for fp32 (as accelerate's `mixed_precision`).
        """
        used = precision if precision in _DTYPES else "fp32"
        peak = measure_peak(self._device, _DTYPES[used])
        whole = sum(self.seconds.values())
        steps = f"{self._calls.get('forward', 0)} timed passes"
        lines = [f"where {whole:.1f} s of training went ({steps}; the first of each stage is counted, not timed)"]
        for name, seconds in self.seconds.items():
            line = f"  {name:12}{seconds:8.1f} s {seconds / max(whole, 1e-9):6.1%}"
            lines.append(line + self._achieved(name, used, peak))
        return [*lines, f"  matrix-multiply peak of this machine, measured now: {peak:.3g} GFLOP/s {used}"]

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
        with FlopCounterMode(display=False, custom_mapping=_FORMULAS) as counter:
            yield
        self._uncounted.discard(name)
        self._operations_per_call[name] = counter.get_total_flops()
        self._left_out += self._now() - started

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


def measure_peak(device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> float:
    """Returns the speed of square matrix multiplications in 10^9 operations per second: the fastest within a second.

    The matrices grow as long as larger ones end in time: those that show a fast processor's peak would take minutes
    where a precision is emulated.
    """
    timer = StepTimer(device=device)
    largest = _SIDES.get(timer._device.type, _SIDES["cpu"])
    side, best, ends = _FIRST_SIDE, 0.0, time.perf_counter() + _PEAK_SECONDS
    while True:
        seconds = _seconds_of_product(side, timer, dtype)
        best = max(best, 2 * side**3 / seconds / 1e9)
        left = ends - time.perf_counter()
        if side < largest and 2 * 8 * seconds < left:
            side *= 2
        elif 2 * seconds > left:
            return best


def _seconds_of_product(side: int, timer: StepTimer, dtype: torch.dtype) -> float:
    """Returns how long two square matrices take to multiply, the faster of two times: the first may warm up."""
    a, b = (torch.randn(side, side, device=timer._device).to(dtype) for _ in range(2))
    times = []
    for _ in range(2):
        started = timer._now()
        torch.mm(a, b)
        times.append(timer._now() - started)
    return min(times)


def _convolution_backward(
    grad: Sequence[int],
    x: Sequence[int],
    weight: Sequence[int],
    bias: object,
    stride: object,
    padding: object,
    dilation: object,
    transposed: bool,
    output_padding: object,
    groups: int,
    mask: Sequence[bool],
    out_shape: object = None,
) -> int:
    """Each gradient costs what the forward pass does; PyTorch's own formula forgets the groups of the second one."""
    positions = x if transposed else grad
    return 2 * positions[0] * math.prod(positions[2:]) * math.prod(weight) * sum(map(bool, mask[:2]))


_FORMULAS = {torch.ops.aten.convolution_backward: _convolution_backward}
