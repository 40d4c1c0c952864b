"""Runs a classifier over images that are already of its size."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from graftline.models.memory import keep_freed_memory
from graftline.progress import track


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Turns uint8 RGB into the network's input.

    Args:
        images: uint8 [n, size, size, 3].
        mean: Per-channel mean of RGB in [0, 1].
        std: Per-channel divisor.

    Returns:
        float32 [n, 3, size, size], channels_last in memory, on the device of `images`.
    """
    scale = torch.tensor([1 / (255 * s) for s in std], device=images.device)
    shift = torch.tensor([m / s for m, s in zip(mean, std, strict=True)], device=images.device)
    return (images * scale - shift).permute(0, 3, 1, 2)


@torch.inference_mode()
def predict(
    model: nn.Module, images: np.ndarray, mean: Sequence[float], std: Sequence[float], batch_size: int = 4
) -> np.ndarray:
    """Predicts class probabilities in fp32.

    Args:
        model: Classifier in eval mode.
        images: uint8 [n, size, size, 3], of the size that the model wants.
        mean: As in the model's record.
        std: As in the model's record.
        batch_size: Images at a time; few stay in the caches of a CPU.

    Returns:
        float32 [n, classes], rows sum to 1.
    """
    device = next(model.parameters()).device
    if device.type == "cpu":
        keep_freed_memory()
    starts = range(0, len(images), batch_size)
    batches = []
    for start in track(starts, "predicting"):
        batch = torch.from_numpy(np.array(images[start : start + batch_size])).to(device)
        batches.append(model(normalise(batch, mean, std)).float().softmax(1).cpu().numpy())
    return np.concatenate(batches)
