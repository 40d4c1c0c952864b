"""The index of a run: where the outputs lie from which its model was registered.

What a cache answered lies in the folder of an earlier run, and only a task that reads it is told where.
`register_model` reads all that a run is judged by, so it writes these places down, beside its record: records hold no
places.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from graftline.errors import GraftlineError
from graftline.files import write_json

INDEX_FILE = "index.json"


def write_index(registration: Path, places: Mapping[str, str]) -> None:
    """Writes the index into the output folder of `register_model`.

    Args:
        registration: The folder.
        places: Where each artifact lies, by its name: a path or an address.
    """
    write_json(registration / INDEX_FILE, dict(places))


def read_index(registration: Path) -> dict[str, str]:
    """Returns where the artifacts lie, by their names.

    Raises:
        GraftlineError: The folder has no index: the task ran in an earlier version.
    """
    path = registration / INDEX_FILE
    if not path.is_file():
        raise GraftlineError(
            f"{registration} has no {INDEX_FILE}, so its run is of an earlier version of graftline: "
            "run the same command again"
        )
    places: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    return places
