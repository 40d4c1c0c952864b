"""The memory of freed tensors."""

import ctypes
import sys
from functools import cache

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # from malloc.h of the GNU C library


@cache
def keep_freed_memory() -> None:
    """Lets the GNU C library reuse freed tensors instead of giving them back and asking for new, zeroed pages.

    By default each large tensor is a mapping of its own, and a network on a CPU spends much of its time in page faults
    (`benchmarks/memory.py` measures it). Once set, it holds for the whole process.
    """
    if not sys.platform.startswith("linux"):
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "gnu_get_libc_version"):
        library.mallopt(_M_MMAP_MAX, 0)
        library.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        library.mallopt(_M_TOP_PAD, 2**24)
