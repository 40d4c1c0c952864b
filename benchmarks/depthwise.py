"""Milliseconds of the two gradients of EfficientNet-Lite0's depthwise convolutions on this CPU, bfloat16 and float32.

Shows why `graftline.training.depthwise` computes some of them in float32. Run: python benchmarks/depthwise.py
"""

import statistics
import time
from collections.abc import Callable

import torch

# channels, input side at 224 px, kernel, stride
LAYERS = [
    (32, 112, 3, 1),
    (96, 112, 3, 2),
    (144, 56, 3, 1),
    (144, 56, 5, 2),
    (240, 28, 5, 1),
    (240, 28, 3, 2),
    (480, 14, 3, 1),
    (672, 14, 5, 1),
    (672, 14, 5, 2),
    (1152, 7, 5, 1),
]
BATCH, RUNS = 32, 7


def milliseconds(function: Callable[[], object]) -> tuple[float, float]:
    """Returns the median and the range over the runs after one warm-up."""
    function()
    times = []
    for _ in range(RUNS):
        started = time.perf_counter()
        function()
        times.append((time.perf_counter() - started) * 1e3)
    return statistics.median(times), max(times) - min(times)


def gradient_times(channels: int, side: int, kernel: int, stride: int, dtype: torch.dtype) -> list[tuple[float, float]]:
    """Returns the times of the input gradient and of the weight gradient."""
    padding = kernel // 2
    out = (side + 2 * padding - kernel) // stride + 1
    x = torch.randn(BATCH, channels, side, side).to(dtype, memory_format=torch.channels_last)
    grad = torch.randn(BATCH, channels, out, out).to(dtype, memory_format=torch.channels_last)
    weight = torch.randn(channels, 1, kernel, kernel, dtype=dtype)
    shape = None, [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], channels
    masks = [True, False, False], [False, True, False]
    backward = torch.ops.aten.convolution_backward
    return [milliseconds(lambda mask=mask: backward(grad, x, weight, *shape, mask)) for mask in masks]


def main() -> None:
    """Prints one row per layer."""
    print(f"median of {RUNS} runs (range), batch {BATCH}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    columns = ("input bf16", "input fp32", "weight bf16", "weight fp32")
    print(f"{'channels, side, kernel, stride':32}" + "".join(f"{column:>18}" for column in columns))
    for layer in LAYERS:
        (in16, w16), (in32, w32) = (gradient_times(*layer, dtype) for dtype in (torch.bfloat16, torch.float32))
        cells = "".join(f"{f'{median:.1f} ({spread:.1f})':>18}" for median, spread in (in16, in32, w16, w32))
        print(f"{layer!s:32}{cells}")


if __name__ == "__main__":
    main()
