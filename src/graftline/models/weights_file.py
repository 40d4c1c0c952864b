"""Pretrained weights in files: the user's folder `GRAFTLINE_WEIGHTS` and the mirror in the store, `weights/`.

Nothing is ever unpickled: safetensors are read as they are, PyTorch files with `weights_only=True`, converted once.
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from graftline.errors import WeightsError
from graftline.files import beside, sha256_file
from graftline.models.weights_at_hand import local_file
from graftline.progress import say
from graftline.storage import connect_store
from graftline.workspace import cache_folder


def local_record(backbone: str) -> dict[str, Any]:
    """Returns how the weights in the user's folder want their images, where `<backbone>.json` beside them says so.

    Returns:
        Some of `input_size`, `mean`, `std`, `interpolation`, as in the `config.json` of a model on the hub; or nothing.

    Raises:
        WeightsError: The file is not of that form.
    """
    file = local_file(backbone)
    path = file.with_name(f"{backbone}.json") if file else None
    if not path or not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        record = content.get("pretrained_cfg", content)
        return {k: record[k] for k in ("input_size", "mean", "std", "interpolation") if k in record}
    except (ValueError, AttributeError, TypeError) as error:
        raise WeightsError(f"{path} is not a record of weights: it takes the form of the hub's config.json") from error


def read_weights(path: Path) -> dict[str, Tensor]:
    """Reads a file of weights on the CPU.

    Raises:
        WeightsError: The file is damaged, or holds more than tensors.
    """
    safe = path if path.suffix == ".safetensors" else _converted(path)
    try:
        return load_file(safe)
    except SafetensorError as error:
        raise WeightsError(f"{safe} is not a whole safetensors file ({error}): fetch it again") from error


def mirrored(backbones: Iterable[str]) -> set[str]:
    """Returns those backbones whose weights are in the store's mirror, or were fetched from it before.

    Only a store that `GRAFTLINE_STORE` names is asked; the embedded one is not started for this.

    Raises:
        StoreError: The store refuses or does not answer.
    """
    names = set(backbones)
    fetched = {name for name in names if _mirror_copy(name).is_file()}
    if fetched == names or not os.environ.get("GRAFTLINE_STORE"):
        return fetched
    with connect_store() as store:
        return fetched | {name for name in names - fetched if store.exists(_mirror_key(name))}


def fetch_mirrored(backbone: str) -> Path:
    """Fetches the backbone's weights from the store's mirror, once.

    Returns:
        Path of the copy in the workspace's cache.

    Raises:
        StoreError: The store does not have them, refuses or does not answer.
    """
    copy = _mirror_copy(backbone)
    if not copy.is_file():
        with connect_store() as store:
            say(f"fetching the weights of {backbone} from {store.url}")
            store.download(_mirror_key(backbone), copy)  # beside and renamed
    return copy


def _mirror_key(backbone: str) -> str:
    return f"weights/{backbone}.safetensors"


def _mirror_copy(backbone: str) -> Path:
    return cache_folder() / "weights" / "mirror" / f"{backbone}.safetensors"


def _converted(path: Path) -> Path:
    """Converts a PyTorch file to safetensors in the cache, once for the same content."""
    copy = cache_folder() / "weights" / "converted" / f"{path.stem}-{sha256_file(path)[:16]}.safetensors"
    if not copy.is_file():
        tensors = {name: tensor.clone().contiguous() for name, tensor in _read_tensors(path).items()}
        with beside(copy) as new:
            save_file(tensors, new)
    return copy


def _read_tensors(path: Path) -> dict[str, Tensor]:
    """Reads a PyTorch file without executing anything in it; a training checkpoint gives the weights it holds."""
    from timm.models import load_state_dict

    try:
        content = load_state_dict(str(path), weights_only=True)
    except Exception as error:  # a damaged file raises many kinds; all mean the same to the user
        raise WeightsError(
            f"{path} is damaged or holds more than tensors, which graftline does not execute: save the model's "
            "state_dict as safetensors"
        ) from error
    return {name: value for name, value in content.items() if isinstance(value, Tensor)}
