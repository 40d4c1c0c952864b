"""Memory of a process and everything it started."""

import psutil


def tree_bytes(root: int) -> int:
    """Returns the memory in bytes of the process `root` and all its descendants.

    It is the sum of their proportional set sizes: a page shared by several processes counts once. 0 on systems that
    do not tell them, which is all but Linux.
    """
    try:
        process = psutil.Process(root)
        return sum(map(_proportional_bytes, [process, *process.children(recursive=True)]))
    except psutil.Error:  # it has just ended
        return 0


def _proportional_bytes(process: psutil.Process) -> int:
    try:
        return int(getattr(process.memory_full_info(), "pss", 0))
    except psutil.Error:  # it has just ended, or is not ours to look at
        return 0
