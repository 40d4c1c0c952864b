"""The catalog of backbones: what each costs and what it is good for. Any other timm name works as well.

Parameters and multiply-accumulates are counted on the architecture itself, on torch's meta device: no weights, no
arithmetic.
"""

import json
from dataclasses import asdict, dataclass

import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

from graftline.files import write_atomic
from graftline.models.backbones import check_backbone
from graftline.models.groups import layer_groups
from graftline.progress import track
from graftline.workspace import cache_folder

FAMILIES = {
    "ResNet": {
        "resnet18": "first baseline, small sets",
        "resnet34": "a step up from ResNet-18",
        "resnet50": "general purpose: start here",
        "resnet101": "more accurate, slower",
        "resnet152": "most accurate ResNet, slow",
    },
    "VGG": {
        "vgg16": "simple, large: for comparison",
        "vgg19": "simple, large: for comparison",
    },
    "EfficientNet": {
        "efficientnet_b0": "efficient inference",
        "efficientnet_b1": "efficient, a little larger",
        "efficientnet_b2": "efficient, a little larger",
        "efficientnet_b3": "accurate for its cost",
        "efficientnet_b4": "accurate, fine detail",
        "efficientnet_b5": "high accuracy, large images",
        "tf_efficientnet_b6": "high accuracy, needs a GPU",
        "tf_efficientnet_b7": "highest of its family, needs a GPU",
    },
    "EfficientNet-Lite": {
        "tf_efficientnet_lite0": "edge, int8",
        "tf_efficientnet_lite1": "edge, int8",
        "tf_efficientnet_lite2": "edge, int8",
        "tf_efficientnet_lite3": "edge with time to spare, int8",
        "tf_efficientnet_lite4": "edge with time to spare, int8",
    },
    "MobileNet": {
        "mobilenetv1_100": "mobile, plainest layers",
        "mobilenetv2_100": "mobile and edge",
        "mobilenetv3_small_100": "mobile, very fast",
        "mobilenetv3_large_100": "mobile, fast and accurate",
    },
    "DenseNet": {
        "densenet121": "feature reuse, few parameters",
        "densenet169": "feature reuse, deeper",
        "densenet201": "feature reuse, deepest",
    },
    "ViT": {
        "vit_tiny_patch16_224": "transformer on small machines",
        "vit_small_patch16_224": "transformer, medium",
        "vit_base_patch16_224": "large scale, very high accuracy",
        "vit_large_patch16_224": "large scale, needs a GPU",
    },
}


@dataclass(frozen=True)
class Backbone:
    """What a backbone costs, with the classifier that its weights came with.

    Attributes:
        name: timm's name.
        parameters: How many.
        macs: Multiply-accumulates for one image of `image_size`.
        image_size: Side of the input in pixels that the weights were made for.
        layer_groups: How many groups can be frozen or get their own learning rate, the head included.
    """

    name: str
    parameters: int
    macs: int
    image_size: int
    layer_groups: int


def catalog() -> list[Backbone]:
    """Measures every backbone of the catalog, in its order; takes some seconds once for each version of timm and torch.

    Returns:
        All members of `FAMILIES`.
    """
    names = [name for family in FAMILIES.values() for name in family]
    path = cache_folder() / f"backbones-{timm.__version__}-{torch.__version__}.json"
    rows = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    known = {row["name"]: Backbone(**row) for row in rows}
    if set(known) != set(names):
        known = {name: known.get(name) or measure(name) for name in track(names, "measuring backbones")}
        write_atomic(path, json.dumps([asdict(backbone) for backbone in known.values()]))
    return [known[name] for name in names]


def measure(name: str) -> Backbone:
    """Counts what one backbone costs.

    Args:
        name: Any timm name.

    Raises:
        GraftlineError: timm does not know the name, or the model does not end in one linear layer.
    """
    check_backbone(name)
    size = timm.get_pretrained_cfg(name).input_size
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        model = timm.create_model(name).eval()
        model(torch.empty(1, *size))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Backbone(name, parameters, counter.get_total_flops() // 2, size[-1], len(layer_groups(model)))


def suggested_use(name: str) -> str:
    """Returns what the catalog suggests a backbone for, or '' for one that is not in it."""
    return next((family[name] for family in FAMILIES.values() if name in family), "")
