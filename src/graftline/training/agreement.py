"""What several processes that train together must have alike, whichever disks and devices they have."""

from collections.abc import Callable
from typing import TypeVar

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import broadcast, broadcast_object_list
from torch import nn

T = TypeVar("T")


def from_main(accelerator: Accelerator | PartialState, make: Callable[[], T]) -> T:
    """Returns in every process what the main one makes: what it reads, the others may not have on their disks."""
    made = [make() if accelerator.is_main_process else None]
    if accelerator.num_processes > 1:
        broadcast_object_list(made)
    return made[0]  # type: ignore[return-value]


def share_weights(accelerator: Accelerator, model: nn.Module) -> None:
    """Gives every process the main one's weights, in place; the model is on the accelerator's device."""
    if accelerator.num_processes > 1:
        with torch.no_grad():
            for tensor in (*model.parameters(), *model.buffers()):
                broadcast(tensor)
