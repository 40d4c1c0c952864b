"""What training starts from: random weights, those of a pretrained backbone, or those of the champion."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from graftline.data.build import keeps_splits_of
from graftline.errors import GraftlineError
from graftline.models.backbones import build_backbone, build_empty, input_spec
from graftline.models.trained import read_trained
from graftline.models.weights import hash_tensors, head_name
from graftline.progress import say
from graftline.records import DataVersion, TrainedModel, TransferPlan, read_record


@dataclass(frozen=True)
class Champion:
    """A trained model whose weights training can start from.

    Attributes:
        record: What it is.
        weights: Its tensors by name.
        rows: For each of the present classes the row of its head; None when it has other classes.
    """

    record: TrainedModel
    weights: dict[str, Tensor]
    rows: list[int] | None

    @property
    def learned_from(self) -> list[str]:
        """Data versions that the weights were trained on, the newest first."""
        return [self.record.data_version, *self.record.learned_before]


@dataclass(frozen=True)
class Start:
    """A classifier before the first step.

    Attributes:
        model: fp32; its head is random unless it is the champion's.
        weights: The name of all but its head, for the record and for caches.
        knows_classes: Whether its head is the champion's, for these classes.
    """

    model: nn.Module
    weights: str
    knows_classes: bool = False


def load_champion(folder: Path, classes: Sequence[str]) -> Champion:
    """Reads the champion's model.

    Args:
        folder: What `graftline fetch_champion` or `graftline fine_tune` wrote.
        classes: Names of the present classes, in the order of the labels.

    Raises:
        GraftlineError: Not a model folder, or the weights are not those of its record.
    """
    record, weights = read_trained(folder)
    same = sorted(record.classes) == sorted(classes)
    return Champion(record, weights, [record.classes.index(name) for name in classes] if same else None)


def find_champion(folder: Path, dataset: Path, backbones: Sequence[str]) -> Champion | None:
    """Reads the champion's model if training on a dataset can start from its weights; else says why not.

    An image that the champion was trained on must not be a validation or test image now: the model would be measured
    on what it knows by heart.

    Args:
        folder: As for `load_champion`.
        dataset: Folder written by version_data.
        backbones: Those that the user names; empty: any.

    Raises:
        GraftlineError: Not a model folder, or the weights are not those of its record.
    """
    champion = load_champion(folder, read_record(dataset, DataVersion).classes)
    obstacle = _obstacle(champion, dataset, backbones)
    if obstacle:
        say(f"training cannot start from the champion's weights: {obstacle}")
    return None if obstacle else champion


def _obstacle(champion: Champion, dataset: Path, backbones: Sequence[str]) -> str:
    record, learned = champion.record, champion.learned_from
    backbone = record.plan.backbone
    if backbones and backbone not in backbones:
        return f"its backbone {backbone} is not among {', '.join(backbones)}"
    spec = input_spec(backbone)
    if (spec.mean, spec.std, spec.interpolation) != (record.mean, record.std, record.interpolation):
        return f"it wants its images otherwise than the weights of {backbone} do now"
    own = read_record(dataset, DataVersion).version
    if own != record.data_version and not set(learned) <= keeps_splits_of(dataset):
        return (
            "images that it was trained on may be validation or test images now: run `graftline version_data` with "
            f"--previous {','.join(learned)}, and do not move images to other splits"
        )
    return ""


def build_start(plan: TransferPlan, classes: int, seed: int, champion: Champion | None = None) -> Start:
    """Builds the model that a plan starts from.

    Args:
        plan: For the backbone and what it starts from.
        classes: Number of classes.
        seed: Of random weights.
        champion: Needed by a plan that starts from the champion's weights.

    Raises:
        GraftlineError: The plan starts from the weights of another champion than the given one.
        WeightsError: The backbone's weights are not at hand.
    """
    torch.manual_seed(seed)
    if plan.from_scratch:
        model = build_empty(plan.backbone, classes, plan.dropout, plan.drop_path)
        return Start(model, f"random, seed {seed}")
    if plan.champion:
        return _from_champion(plan, classes, champion)
    return Start(*build_backbone(plan.backbone, classes, plan.dropout, plan.drop_path))


def _from_champion(plan: TransferPlan, classes: int, champion: Champion | None) -> Start:
    given = champion.record.sha256 if champion else ""
    if champion is None or given != plan.champion:
        raise GraftlineError(
            f"this plan starts from the model {plan.champion[:16]}, but --champion "
            f"{f'holds {given[:16]}' if given else 'is not given'}: give the folder that select_strategy was given"
        )
    model = build_empty(plan.backbone, classes, plan.dropout, plan.drop_path)
    head = f"{head_name(model)}."
    body = {name: tensor for name, tensor in champion.weights.items() if not name.startswith(head)}
    rows = champion.rows
    kept = {} if rows is None else {n: tensor[rows] for n, tensor in champion.weights.items() if n.startswith(head)}
    model.load_state_dict({**body, **kept}, strict=rows is not None)
    return Start(model, hash_tensors(body), rows is not None)


def is_solved_better(
    head: nn.Module,
    solved: tuple[np.ndarray, np.ndarray],
    features: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray | float = 1.0,
) -> bool:
    """Whether a solved head's loss is lower than that of the head in place, by more than a standard error.

    The one-standard-error rule (Breiman et al. 1984, "Classification and Regression Trees") on the paired losses:
    within it, the head stays with which the champion's weights were trained.

    Args:
        head: The linear layer in place.
        solved: Weight [k, d] and bias [k] of the other one.
        features: float [n, d] of the validation images.
        labels: int [n], their classes.
        weights: float [n], what each image counts.
    """
    present = [tensor.detach().float().cpu().numpy() for tensor in (head.weight, head.bias)]  # type: ignore[union-attr, operator]
    losses = []
    for weight, bias in (present, solved):
        logits = torch.from_numpy(np.asarray(features @ weight.T + bias, dtype=np.float32))
        losses.append(functional.cross_entropy(logits, torch.from_numpy(labels), reduction="none").numpy())
    gain = (losses[0] - losses[1]) * weights
    return bool(gain.mean() > gain.std() / np.sqrt(len(gain)))
