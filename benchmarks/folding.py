"""What folding frozen BatchNorm into convolutions does to a training step, and how much a frozen BatchNorm amplifies.

EfficientNet-Lite0 with its ImageNet weights for the amplification; for the speed it trains on random images, as
`fine_tune` does it, folded and not in turns. Run: python benchmarks/folding.py
"""

import argparse

import torch
from _common import Spread
from memory import BACKBONE, CLASSES, measure
from torch import nn

from graftline.models.backbones import build_backbone


def main() -> None:
    parser = argparse.ArgumentParser(description="Training with frozen BatchNorm folded and not.")
    parser.add_argument("--rounds", type=int, default=5, help="of both")
    parser.add_argument("--steps", type=int, default=10, help="timed steps of each")
    parser.add_argument("--side", type=int, default=224, help="of the square input in pixels")
    parser.add_argument("--batch", type=int, default=32, help="images per step")
    options = parser.parse_args()
    scales = amplifications()
    shown = f"{scales.median():.1f} in the median, at most {scales.max():.0f}, of {len(scales):,} channels"
    print(f"a frozen BatchNorm multiplies a channel by {shown}")
    speeds: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(options.rounds):
        for folded, measured in speeds.items():
            measured.append(measure(True, options.steps, options.batch, options.side, folded)[0])
    folded, apart = Spread(speeds[True]), Spread(speeds[False])
    print(f"folded: {folded} images/s")
    print(f"apart:  {apart} images/s")
    print(f"ratio, median of {options.rounds} rounds (lowest to highest): {folded.over(apart)}")


def amplifications() -> torch.Tensor:
    """Returns |scale| / deviation of every channel of every BatchNorm layer."""
    model, _ = build_backbone(BACKBONE, CLASSES)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    return torch.cat([(norm.weight.abs() / (norm.running_var + norm.eps).sqrt()).detach() for norm in norms])


if __name__ == "__main__":
    main()
