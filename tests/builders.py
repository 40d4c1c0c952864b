"""Records and pictures that tests need in order to try something else, with values that do, and changes to them."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from graftline.records import TransferPlan, TransferPlans, read_record


def a_plan(**changes: Any) -> TransferPlan:
    """Returns a plan for fine-tuning all layers with every setting at its default, but for the changes."""
    told = {"backbone": "tf_efficientnet_lite0", "strategy": "fine_tuning", "reasons": ["a test"]}
    return TransferPlan(**told | changes)


def write_plans(ranked: Path, out: Path, *changes: dict[str, Any]) -> Path:
    """Writes into `out` what the best of `ranked` becomes by each of the changes, without evidence; returns `out`."""
    record = read_record(ranked, TransferPlans)
    plans = [record.plans[0].model_copy(update={"evidence": None, **change}) for change in changes]
    out.mkdir()
    record.model_copy(update={"plans": plans}).write(out)
    return out


def noise(seed: int = 0, height: int = 6, width: int = 6) -> np.ndarray:
    """Returns a picture of random pixels: uint8 [height, width, 3]."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def draw_light_and_dark(folder: Path) -> None:
    """Draws 40 plain pictures of two classes, told apart by their brightness."""
    for number in range(40):
        path = folder / ("light" if number % 2 else "dark") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), number + 128 * (number % 2)).save(path)
