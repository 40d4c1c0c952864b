"""Pretrained weights: where they come from, and that they are what they were.

In this order: a file of the user's, the mirror in the store, an installed package, the hub's cache, the hub. No pickle
is ever executed.
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from graftline.errors import GraftlineError, WeightsError
from graftline.models.weights_at_hand import local_file, local_files, package_of, packaged
from graftline.models.weights_file import fetch_mirrored, mirrored, read_weights
from graftline.models.weights_hub import hub_copy, load_from_hub
from graftline.models.weights_package import load_package
from graftline.models.weights_record import check_first_use

StateDict = dict[str, Tensor]


@dataclass(frozen=True)
class Source:
    """Where a backbone's weights are.

    Attributes:
        kind: file, store, package, hub cache or hub.
        place: Path or name, for people.
        load: Reads them.
    """

    kind: str
    place: str
    load: Callable[[], StateDict]


def weights_at_hand(backbones: Iterable[str]) -> dict[str, Source]:
    """Finds where the weights of some backbones would come from without the hub.

    Args:
        backbones: timm names.

    Returns:
        The first source of each; those that only the hub can give are missing.

    Raises:
        WeightsError: `GRAFTLINE_WEIGHTS` is not a folder.
        StoreError: The store that `GRAFTLINE_STORE` names refuses or does not answer.
    """
    names = list(backbones)
    in_store = mirrored(name for name in names if not local_file(name))
    found = {name: _at_hand(name, in_store) for name in names}
    return {name: source for name, source in found.items() if source}


def backbones_at_hand() -> list[str]:
    """Returns the timm names whose weights are in the user's weights folder or in an installed package, sorted."""
    return sorted({*local_files(), *packaged()})


def load_pretrained(model: nn.Module, backbone: str) -> str:
    """Loads the pretrained weights of everything but the head into `model`, in place.

    Args:
        model: A timm model, with a head of any size.
        backbone: Its timm name.

    Returns:
        The hexadecimal SHA-256 over names and bytes of the loaded tensors.

    Raises:
        WeightsError: Nothing is at hand and the hub cannot be reached, the weights do not fit the model, or they are
            not those of their first use.
        StoreError: The store that `GRAFTLINE_STORE` names refuses or does not answer.
    """
    source = weights_at_hand([backbone]).get(backbone) or Source("hub", "the hub", lambda: load_from_hub(backbone))
    loaded = _fitting(model, backbone, source)
    digest = hash_tensors(loaded)
    check_first_use(backbone, digest, source.place)
    model.load_state_dict(loaded, strict=False)
    return digest


def hash_tensors(tensors: StateDict) -> str:
    """Returns the hexadecimal SHA-256 over names and bytes, independent of order and of the file they came from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def head_name(model: nn.Module) -> str:
    """Returns the name of a timm model's final linear layer ("classifier", "fc", "head.fc").

    Raises:
        GraftlineError: The model does not end in one linear layer.
    """
    head = model.get_classifier()  # type: ignore[operator]
    name = next((name for name, module in model.named_modules() if module is head), "")
    if not name or not isinstance(head, nn.Linear):
        architecture = model.default_cfg["architecture"]  # type: ignore[index]
        raise GraftlineError(f"{architecture} does not end in one linear layer, as it must: choose another backbone")
    return name


def _at_hand(backbone: str, in_store: set[str]) -> Source | None:
    file = local_file(backbone)
    if file:
        return Source("file", str(file), lambda: read_weights(file))
    if backbone in in_store:
        return Source("store", "the store's mirror", lambda: read_weights(fetch_mirrored(backbone)))
    if package := package_of(backbone):
        return Source("package", package, lambda: load_package(backbone))
    if copy := hub_copy(backbone):
        return Source("hub cache", copy, lambda: load_from_hub(backbone))
    return None


def _fitting(model: nn.Module, backbone: str, source: Source) -> StateDict:
    """Reads the tensors of everything but the head, all of the right shape."""
    state, head = source.load(), f"{head_name(model)}."
    wanted = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(head)}
    # Old files do not hold BatchNorm's counter, which nothing here reads.
    needed = [name for name in wanted if not name.endswith("num_batches_tracked")]
    missing = [name for name in needed if name not in state or state[name].shape != wanted[name].shape]
    if missing:
        raise WeightsError(
            f"the weights in {source.place} do not fit {backbone}: {len(missing)} of {len(needed)} tensors are missing "
            f"or of another shape, first {missing[0]}"
        )
    return {name: state[name] for name in wanted if name in state}
