"""Memory of a process and everything it started."""

from collections import defaultdict
from pathlib import Path

_PROC = Path("/proc")


def tree_bytes(root: int) -> int:
    """Returns the memory in bytes of the process `root` and all its descendants.

    It is the sum of their proportional set sizes: a page shared by several processes counts once. 0 on systems
    without `/proc`.
    """
    return sum(_proportional_bytes(pid) for pid in _tree(root))


def _tree(root: int) -> list[int]:
    children = defaultdict(list)
    for stat in _PROC.glob("[0-9]*/stat"):
        try:
            # The second field, the program's name in brackets, may hold spaces and half a letter.
            parent = int(stat.read_text(errors="replace").rpartition(")")[2].split()[1])
        except OSError:  # it has just ended
            continue
        children[parent].append(int(stat.parent.name))
    found = [root]
    for pid in found:
        found.extend(children[pid])
    return found


def _proportional_bytes(pid: int) -> int:
    try:
        for line in (_PROC / str(pid) / "smaps_rollup").read_text(encoding="utf-8").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:  # it has just ended, or is not ours to look at
        pass
    return 0
