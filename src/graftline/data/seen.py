"""What is known of objects that were read before: one with the same stamp is not decoded again."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import PIL

from graftline.data import decode
from graftline.files import sha256_bytes
from graftline.storage.locks import lock
from graftline.storage.objects import StoredObject
from graftline.workspace import cache_folder


class Facts(NamedTuple):
    """What reading an image tells: see `checks.Picture`."""

    id: str
    sha256: str
    width: int
    height: int
    grey: bool


def recall(objects: Iterable[StoredObject]) -> dict[str, Facts]:
    """Returns what is known of objects, by their stamps."""
    wanted, known = {item.stamp for item in objects}, {}
    if wanted and _journal().exists():
        for line in _journal().read_text(encoding="utf-8").splitlines():
            try:
                stamp, *facts = json.loads(line)
                if stamp in wanted:
                    known[stamp] = Facts(*facts)
            except (ValueError, TypeError):  # cut off when its writer was killed
                continue
    return known


def remember(facts: Mapping[str, Facts]) -> None:
    """Adds what was found out about objects.

    Args:
        facts: By stamp.
    """
    if not facts:
        return
    lines = "".join(f"{json.dumps([stamp, *each])}\n" for stamp, each in facts.items())
    with lock(_journal().with_suffix(".lock")), _journal().open("a") as file:
        file.write(f"\n{lines}")


def _journal() -> Path:
    """Returns the file; another decoder has another one."""
    decoder = sha256_bytes(Path(decode.__file__).read_bytes() + PIL.__version__.encode())[:16]
    return cache_folder() / "objects" / f"pictures-{decoder}.jsonl"
