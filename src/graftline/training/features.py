"""Features of a frozen backbone, computed once per image and kept on disk."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import timm
import torch
from torch import Tensor, nn

from graftline.errors import GraftlineError
from graftline.files import beside, sha256_bytes
from graftline.models.backbones import InputSpec
from graftline.models.predict import normalise
from graftline.progress import track
from graftline.training.device import Machine
from graftline.workspace import cache_folder

_FORM = 1  # of the cached files; raise it when what they hold changes
_BATCH = 64


@dataclass(frozen=True)
class FeatureKey:
    """What determines the features, besides arithmetic and how the images are made ready.

    Attributes:
        data: Version of the data.
        split: Which part of it.
        backbone: timm name.
        weights: SHA-256 of the pretrained tensors.
    """

    data: str
    split: str
    backbone: str
    weights: str


@dataclass(frozen=True)
class Features:
    """Pooled features of some images, float32.

    Attributes:
        late: [n, d], what the head's linear layer sees.
        middle: [n, e], average over positions two thirds of the way from stem to head.
    """

    late: np.ndarray
    middle: np.ndarray


def cached_features(
    model: nn.Module, images: np.ndarray, content: FeatureKey, spec: InputSpec, accelerator: Machine
) -> Features:
    """Computes features in eval mode, or reads them when the same ones were computed before.

    Args:
        model: Classifier with pretrained weights; moved to the accelerator's device.
        images: uint8 [n, size, size, 3].
        content: What determines them.
        spec: How the weights want their images.
        accelerator: Device and precision.

    Raises:
        GraftlineError: The architecture does not take images of this size.
    """
    path = _cache_path(content, spec, images.shape[1], accelerator.arithmetic)
    if path.is_file():
        with np.load(path) as arrays:
            return Features(arrays["late"], arrays["middle"])
    # Outside inference mode: parameters made inside it could not be trained.
    accelerator.place(model.eval())
    try:
        features = _compute(model, images, content.split, spec, accelerator)
    except AssertionError as error:  # how timm refuses a size
        raise GraftlineError(
            f"{content.backbone} does not take images of {images.shape[1]} pixels ({error}): leave image_size at 0"
        ) from error
    with beside(path) as new:
        np.savez(new, late=features.late, middle=features.middle)
    return features


@torch.inference_mode()
def _compute(model: nn.Module, images: np.ndarray, split: str, spec: InputSpec, accelerator: Machine) -> Features:
    late, middle = [], []
    for start in track(range(0, len(images), _BATCH), f"features of the {split} images"):
        batch = torch.from_numpy(np.array(images[start : start + _BATCH])).to(accelerator.device)
        with accelerator.autocast():
            pooled = _pooled(model, normalise(batch, spec.mean, spec.std))
        late.append(pooled[0].float().cpu().numpy())
        middle.append(pooled[1].float().cpu().numpy())
    return Features(np.concatenate(late), np.concatenate(middle))


def _pooled(model: nn.Module, inputs: Tensor) -> tuple[Tensor, Tensor]:
    depth = len(model.feature_info)  # type: ignore[arg-type]
    maps, (middle,) = model.forward_intermediates(inputs, indices=[depth * 2 // 3])  # type: ignore[operator]
    return model.forward_head(maps, pre_logits=True), middle.mean((-2, -1))  # type: ignore[operator]


def _cache_path(content: FeatureKey, spec: InputSpec, size: int, arithmetic: str) -> Path:
    tools = {"form": _FORM, "timm": timm.__version__, "torch": torch.__version__}
    key = {**asdict(content), **asdict(spec), "size": size, "arithmetic": arithmetic, **tools}
    return cache_folder() / "features" / f"{sha256_bytes(json.dumps(key, sort_keys=True).encode())[:24]}.npz"
