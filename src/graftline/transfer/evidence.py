"""Evidence for a plan, measured on this data: cross-validated linear probes on frozen features.

Only training and validation images are read. A probe on the features of the middle layers beside one on the last
layers tells whether the data is far from the backbone's own domain: late layers are specific to what the backbone was
trained on (Yosinski et al. 2014, "How transferable are features in deep neural networks?"), so where the middle ones
separate the classes better, the late ones have to be retrained.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.metrics import f1_score

from graftline.data.dataset import load_images, open_split
from graftline.files import sha256_bytes
from graftline.intervals import paired_difference, wilson
from graftline.models.backbones import build_backbone, input_spec
from graftline.records import DataVersion, Interval, ProbeEvidence, read_record
from graftline.training.device import make_accelerator
from graftline.training.features import FeatureKey, Features, cached_features
from graftline.training.probe import cross_validate


@dataclass(frozen=True)
class BackboneEvidence:
    """What the probes measured on one backbone.

    Attributes:
        backbone: timm name.
        probe: The probe on the last layer's features.
        parameters: Of the backbone with its head.
        middle_gain: Accuracy of the middle layers' probe minus that of the last, on the same images.
    """

    backbone: str
    probe: ProbeEvidence
    parameters: int
    middle_gain: Interval

    @property
    def domain_differs(self) -> bool:
        """Whether the middle layers separate the classes better, beyond chance."""
        return self.middle_gain.low > 0


def probe_backbone(backbone: str, dataset: Path, image_size: int, seed: int) -> BackboneEvidence:
    """Measures a backbone's features with cross-validated linear probes on the training and validation images.

    Args:
        backbone: timm name whose weights are at hand.
        dataset: Folder written by version_data.
        image_size: Side of the input in pixels; 0: what the weights were made for.
        seed: Of the folds.

    Raises:
        GraftlineError: timm does not know the name.
        WeightsError: The weights are not at hand.
    """
    spec, version = input_spec(backbone), read_record(dataset, DataVersion)
    model, weights = build_backbone(backbone, len(version.classes))
    accelerator = make_accelerator()
    parts = []
    for split in ("train", "validation"):
        images = load_images(dataset, split, image_size or spec.image_size, spec.interpolation)
        content = FeatureKey(version.version, split, backbone, weights)
        parts.append(cached_features(model, images, content, spec, accelerator))
    rows = [open_split(dataset, split) for split in ("train", "validation")]
    labels, groups = np.concatenate([part.labels for part in rows]), [group for part in rows for group in part.groups]
    features = Features(np.concatenate([p.late for p in parts]), np.concatenate([p.middle for p in parts]))
    late, middle = (cross_validate(layer, labels, groups, seed) for layer in (features.late, features.middle))
    evidence = ProbeEvidence(
        accuracy=wilson(int((late.predictions == labels).sum()), len(labels)),
        macro_f1=float(f1_score(labels, late.predictions, average="macro")),
        folds=late.folds,
        regularisation=late.regularisation,
        weights=sha256_bytes(f"{weights} {spec}".encode()),
    )
    gain = paired_difference(middle.predictions == labels, late.predictions == labels)
    return BackboneEvidence(backbone, evidence, sum(p.numel() for p in model.parameters()), gain)
