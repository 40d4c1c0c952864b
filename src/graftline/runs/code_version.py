"""The version of the code that computes results: changed code makes every cached step run again."""

import hashlib
from pathlib import Path

import graftline

# These only start the steps, and the last two lie elsewhere in an editable installation; the components' own code is
# part of KFP's cache key anyway.
_OUTSIDE = ("cli", "runs", "cluster", "options.py", "wiring.py", "components", "pipelines")


def code_version() -> str:
    """Returns `c` and 16 hexadecimal digits of the hash over the installed library's files."""
    package = Path(graftline.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*")):
        name = path.relative_to(package)
        if path.is_file() and path.suffix != ".pyc" and name.parts[0] not in _OUTSIDE:
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            digest.update(f"{name.as_posix()} {content}\n".encode())
    return f"c{digest.hexdigest()[:16]}"
