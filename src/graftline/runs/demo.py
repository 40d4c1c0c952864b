"""The demo: real photographs of solar cells, laid out as a manifest, through the whole pipeline.

The data are the ELPV set of Deitsch et al. 2019, from the package `elpv-dataset`; `make demo` runs this.
"""

import csv
import hashlib
import importlib.util
import io
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from graftline.errors import DataError
from graftline.files import write_atomic
from graftline.progress import say
from graftline.workspace import expanded
from graftline.workspace import workspace as default_workspace

if TYPE_CHECKING:
    from graftline.runs.local import Summary

LICENCE = (
    "Data: ELPV, 2,624 photographs of solar cells (Deitsch et al. 2019, doi:10.1016/j.solener.2019.02.067), "
    "licence CC BY-NC-SA 4.0: for non-commercial use."
)
# Accuracy of two classes on a 75/25 split of the same images, from the paper above.
PUBLISHED = (("VGG-19, Deitsch et al. 2019", 0.8842), ("SVM, Deitsch et al. 2019", 0.8244))
MANIFEST = "manifest.csv"
_PACKAGE = "elpv-dataset==1.0.0.post1"
_TEST_PERCENT = 25
_DEFECTIVE_FROM = 0.5


class Cell(NamedTuple):
    """One photograph of a solar cell, with what the data set says of it."""

    image: Path
    label: str
    domain: str


def demo(*, workspace: str = "", seed: int = 0) -> "Summary":
    """Runs the whole pipeline on real photographs of solar cells.

    Args:
        workspace: Folder for data, store, registry and runs; empty means `GRAFTLINE_WORKSPACE`, or `graftline-work`.
        seed: Seed of everything random.

    Returns:
        What was reached, as in the run's `summary.json`.

    Raises:
        DataError: The package with the images is not installed.
    """
    from graftline.runs.local import run

    home = expanded(workspace).absolute() if workspace else default_workspace()
    manifest = lay_out(home / "demo-data")
    return run(str(manifest), name="solar-cells", workspace=workspace, seed=seed, published=PUBLISHED)


def demo_data(out: Path) -> Path:
    """Writes the demo's manifest, without running anything.

    Args:
        out: Folder for `manifest.csv`, created if missing.

    Returns:
        The manifest's path.

    Raises:
        DataError: The package with the images is not installed.
    """
    return lay_out(out)


def lay_out(out: Path) -> Path:
    """Writes a manifest of the ELPV images into `out` and returns its path.

    A cell is `defective` from a defect probability of 0.5 on, else `functional`; its domain is its type, `mono` or
    `poly`. A quarter of each label and domain is marked `test`, the rest `train`. The choice follows the hash of each
    file's content, so that it is the same everywhere.

    Args:
        out: Folder for `manifest.csv`, created if missing. The images stay where the package has them.

    Returns:
        The manifest's path.

    Raises:
        DataError: The package with the images is not installed, or is not the one that is known.
    """
    cells = _read_cells(_package_data())
    test = _test_images(cells)
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(("path", "label", "split", "domain"))
    for cell in cells:
        writer.writerow((cell.image, cell.label, "test" if cell.image in test else "train", cell.domain))
    manifest = out / MANIFEST
    write_atomic(manifest, table.getvalue())
    say(LICENCE)
    return manifest


def _package_data() -> Path:
    """Returns the folder with `labels.csv`, found without importing the package."""
    spec = importlib.util.find_spec("elpv_dataset")
    if spec is None or not spec.submodule_search_locations:
        raise DataError(f"the demo's images are not installed: run `pip install {_PACKAGE}`")
    return Path(spec.submodule_search_locations[0]) / "data"


def _read_cells(data: Path) -> list[Cell]:
    """Reads `labels.csv`: path, defect probability and cell type, separated by spaces."""
    table = data / "labels.csv"
    if not table.is_file():
        raise DataError(f"{table} is missing: run `pip install --force-reinstall --no-deps {_PACKAGE}`")
    cells = []
    for line in table.read_text(encoding="utf-8").splitlines():
        path, probability, cell_type = line.split()
        label = "defective" if float(probability) >= _DEFECTIVE_FROM else "functional"
        cells.append(Cell(data / path, label, cell_type))
    return cells


def _test_images(cells: list[Cell]) -> set[Path]:
    """Returns a quarter of the images of each label and domain: those whose content hashes lowest."""
    strata: dict[tuple[str, str], list[tuple[str, Path]]] = defaultdict(list)
    for cell in cells:
        digest = hashlib.sha256(cell.image.read_bytes()).hexdigest()
        strata[cell.label, cell.domain].append((digest, cell.image))
    chosen: set[Path] = set()
    for stratum in strata.values():
        count = (len(stratum) * _TEST_PERCENT + 50) // 100
        chosen.update(path for _, path in sorted(stratum)[:count])
    return chosen
