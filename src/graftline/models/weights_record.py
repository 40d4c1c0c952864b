"""Which weights a name stood for at its first use: `weights.json` in the workspace, from backbone to SHA-256."""

import json
from pathlib import Path

from graftline.errors import WeightsError
from graftline.files import write_json
from graftline.storage.locks import lock
from graftline.workspace import workspace


def check_first_use(backbone: str, digest: str, place: str) -> None:
    """Records the SHA-256 of a backbone's tensors at their first use, and compares with it from then on.

    Args:
        backbone: Its name.
        digest: Hexadecimal SHA-256 of its pretrained tensors.
        place: Where they were found, for the message.

    Raises:
        WeightsError: They are not those of the first use.
    """
    path = workspace() / "weights.json"
    with lock(path.with_name(".weights.lock")):
        recorded = _read(path)
        first = recorded.setdefault(backbone, digest)
        if first != digest:
            raise WeightsError(
                f"the weights of {backbone} have changed: {place} holds {digest[:16]}, at their first use they were "
                f"{first[:16]} (SHA-256): put the old ones back, or take the line {backbone} out of {path} to accept "
                "the new ones"
            )
        write_json(path, dict(sorted(recorded.items())))


def _read(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise WeightsError(
            f"{path} is not JSON ({error}): mend it, or delete it to accept the weights of today"
        ) from error
