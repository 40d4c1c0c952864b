"""Which device and precision training runs on, through accelerate."""

import ctypes
import sys

import torch
from accelerate import Accelerator

from graftline.errors import GraftlineError, check_choice

_CHOICES = ("auto", "cpu", "cuda")
_PRECISIONS = ("auto", "fp32", "bf16", "fp16")
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # from malloc.h of the GNU C library


def make_accelerator(device: str = "auto", precision: str = "auto") -> Accelerator:
    """Returns an accelerator: the device, the precision, and the processes that train together.

    Args:
        device: "auto" (a GPU when there is one), "cpu" or "cuda".
        precision: "auto" (bfloat16 autocast where the hardware computes it natively), "fp32", "bf16", or "fp16" (with
            loss scaling, on a GPU).

    Raises:
        GraftlineError: The device or precision is unknown or not there.
    """
    check_choice("precision", precision, _PRECISIONS)
    if device not in _CHOICES:
        raise GraftlineError(f"device {device!r} is not one of {', '.join(_CHOICES)}")
    if device == "cuda" and not torch.cuda.is_available():
        raise GraftlineError("device 'cuda' was asked for but PyTorch finds no CUDA GPU: use --device auto or cpu")
    on_cpu = device == "cpu" or not torch.cuda.is_available()
    if on_cpu:
        _keep_freed_memory()
    if on_cpu and precision == "fp16":
        raise GraftlineError("precision fp16 needs a GPU: on this device use auto, bf16 or fp32")
    automatic = "bf16" if _has_bfloat16(on_cpu) else "no"
    chosen = {"auto": automatic, "fp32": "no"}.get(precision, precision)
    return Accelerator(cpu=on_cpu, mixed_precision=chosen)


def is_fast_bfloat16_cpu(accelerator: Accelerator) -> bool:
    """Whether training runs on a CPU under bfloat16 autocast."""
    return accelerator.device.type == "cpu" and accelerator.mixed_precision == "bf16"


def _has_bfloat16(on_cpu: bool) -> bool:
    return torch.cpu._is_avx512_bf16_supported() if on_cpu else torch.cuda.is_bf16_supported()


def _keep_freed_memory() -> None:
    """Lets the GNU C library reuse freed tensors instead of giving them back and asking for new, zeroed pages.

    By default each large tensor is a mapping of its own, and a training step spends much of its time in page faults
    (`benchmarks/memory.py` measures it).
    """
    if not sys.platform.startswith("linux"):
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "gnu_get_libc_version"):
        library.mallopt(_M_MMAP_MAX, 0)
        library.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        library.mallopt(_M_TOP_PAD, 2**24)
