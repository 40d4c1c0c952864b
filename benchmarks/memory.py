"""What keeping freed memory (`graftline.training.device`) does to training: images per second, seconds in the kernel.

EfficientNet-Lite0 trains on random images, as `fine_tune` does it, in processes of their own that take turns.
Run: python benchmarks/memory.py
"""

import argparse
import contextlib
import json
import resource
import subprocess
import sys
import time

from _common import Spread

BACKBONE, CLASSES, WARMUP_STEPS = "tf_efficientnet_lite0", 2, 3
MODES = ("kept", "given back")


def main() -> None:
    parser = argparse.ArgumentParser(description="Training with freed memory kept and given back.")
    parser.add_argument("--rounds", type=int, default=3, help="of both")
    parser.add_argument("--steps", type=int, default=10, help="timed steps of each")
    parser.add_argument("--side", type=int, default=224, help="of the square input in pixels")
    parser.add_argument("--batch", type=int, default=32, help="images per step")
    parser.add_argument("--measure", choices=MODES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure == "kept", options.steps, options.batch, options.side)))
    else:
        compare(options.rounds)


def compare(rounds: int) -> None:
    """Prints the medians and ranges of both, and their ratio."""
    figures: dict[str, list[tuple[float, float]]] = {mode: [] for mode in MODES}
    for _ in range(rounds):
        for mode in MODES:
            command = [sys.executable, *sys.argv, "--measure", mode]
            figures[mode].append(tuple(json.loads(subprocess.check_output(command, text=True))))
    speeds = {mode: Spread([speed for speed, _ in figures[mode]]) for mode in MODES}
    for mode in MODES:
        kernel = Spread([share for _, share in figures[mode]])
        print(f"freed memory {mode:10}: {speeds[mode]} images/s, {kernel} seconds in the kernel per second")
    print(f"ratio, median of {rounds} rounds (lowest to highest): {speeds['kept'].over(speeds['given back'])}")


def measure(kept: bool, steps: int, batch: int, side: int, folded: bool = True) -> tuple[float, float]:
    """Returns images per second of training, and the seconds that each second cost in the kernel, both threads.

    Args:
        kept: Whether the process keeps freed memory.
        steps: Timed ones.
        batch: Images per step.
        side: Of the square input in pixels.
        folded: Whether BatchNorm is folded into the convolutions.
    """
    import torch
    from torch.nn import functional

    from graftline.models.backbones import build_empty
    from graftline.models.folding import folded_norms
    from graftline.training import device
    from graftline.training.depthwise import speed_up_depthwise

    if not kept:
        device.keep_freed_memory = lambda: None
    accelerator = device.make_accelerator("cpu")
    model = build_empty(BACKBONE, CLASSES).to(memory_format=torch.channels_last).eval()
    images = torch.randn(batch, 3, side, side).to(memory_format=torch.channels_last)
    labels = torch.randint(CLASSES, (batch,))
    with folded_norms(model) if folded else contextlib.nullcontext():
        speed_up_depthwise(model)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
        for step in range(WARMUP_STEPS + steps):
            if step == WARMUP_STEPS:
                started, kernel = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_stime
            with accelerator.autocast():
                logits = model(images)
            optimizer.zero_grad(set_to_none=True)
            functional.cross_entropy(logits.float(), labels).backward()
            optimizer.step()
    seconds = time.perf_counter() - started
    return steps * batch / seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_stime - kernel) / seconds


if __name__ == "__main__":
    main()
