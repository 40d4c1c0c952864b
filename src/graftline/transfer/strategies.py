"""Carries out a plan: feature extraction, fine-tuning or progressive unfreezing, one code path for all three."""

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn

from graftline.augmentation.apply import Augmenter
from graftline.data.dataset import load_images, open_split
from graftline.errors import GraftlineError
from graftline.intervals import wilson
from graftline.models.backbones import InputSpec, input_spec
from graftline.models.folding import folded_norms
from graftline.models.freezing import Freezer
from graftline.models.groups import layer_groups
from graftline.models.weights import head_name
from graftline.progress import say
from graftline.records import AugmentationPolicy, DataVersion, Interval, TrainingEvent, TransferPlan, read_record
from graftline.training.agreement import share_weights
from graftline.training.checkpoints import Checkpoints
from graftline.training.depthwise import speed_up_depthwise
from graftline.training.device import Machine, is_fast_bfloat16_cpu
from graftline.training.features import FeatureKey, cached_features
from graftline.training.images import Images
from graftline.training.loop import Stage, Trainer
from graftline.training.probe import choose_strength, set_head, solve_head
from graftline.training.range_test import RangeTest, try_rates
from graftline.training.sampling import image_weights
from graftline.training.stepper import Stepper
from graftline.training.timer import StepTimer
from graftline.transfer.start import Champion, Start, build_start, is_solved_better

_VIEWED = 64


@dataclass(frozen=True)
class TransferData:
    """The images that a strategy may see.

    Attributes:
        version: Of the data.
        train: Training split at the plan's image size.
        validation: Validation split at the plan's image size.
        large: Training split, somewhat larger, that random crops are cut from; its labels are those of `train`.
        classes: Their names.
        groups: Of the training images; cross-validation keeps them whole.
    """

    version: str
    train: Images
    validation: Images
    large: np.ndarray
    classes: list[str]
    groups: list[str]


@dataclass
class TransferResult:
    """A trained classifier.

    Attributes:
        model: fp32.
        spec: Its input.
        pretrained: SHA-256 of the tensors it started from.
        kept_epoch: 0: the start.
        validation_accuracy: Of the kept weights.
        history: One row per epoch.
        rates: Peak learning rate of every step.
        events: What the guards found.
    """

    model: nn.Module
    spec: InputSpec
    pretrained: str
    kept_epoch: int
    validation_accuracy: Interval
    history: list[dict[str, float]] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    events: list[TrainingEvent] = field(default_factory=list)


def load_transfer_data(dataset: Path, plan: TransferPlan) -> TransferData:
    """Reads the training and validation images at the sizes that the plan wants.

    Args:
        dataset: Folder written by version_data.
        plan: For image size and backbone.
    """
    record = read_record(dataset, DataVersion)
    how = input_spec(plan.backbone).interpolation
    train, validation = (
        Images(load_images(dataset, split, plan.image_size, how), open_split(dataset, split).labels)
        for split in ("train", "validation")
    )
    augments = plan.strategy != "feature_extraction" or plan.views > 1
    large = load_images(dataset, "train", _crop_source_side(plan.image_size), how) if augments else train.pixels
    return TransferData(record.version, train, validation, large, record.classes, open_split(dataset, "train").groups)


def _crop_source_side(image_size: int) -> int:
    """Random crops are cut from images an eighth larger, so that they are hardly ever enlarged."""
    return round(image_size * 8 / 7 / 32) * 32


def carry_out(
    plan: TransferPlan,
    policy: AugmentationPolicy,
    data: TransferData,
    accelerator: Machine,
    checkpoints: Checkpoints,
    seed: int,
    timer: StepTimer | None = None,
    champion: Champion | None = None,
) -> TransferResult:
    """Transfers a backbone to the data.

    The head always starts from the probe solved on frozen features, so that the first steps do not destroy the
    pretrained layers (Kumar et al. 2022, "Fine-Tuning can Distort Pretrained Features"), or from the champion's, where
    the plan starts from its weights and the solved one is not better. Feature extraction ends there.

    Args:
        plan: What to do.
        policy: Augmentation of training images.
        data: Training and validation images.
        accelerator: Device and precision.
        checkpoints: Where to save and resume.
        seed: Of folds, data order and views.
        timer: Where to add up the seconds of training.
        champion: Needed by a plan that starts from the champion's weights.

    Raises:
        GraftlineError: A setting of the plan does not fit the backbone, the champion is not that of the plan, or the
            loss rises however low the rate.
        WeightsError: The backbone's weights are not at hand.
        FrozenMovedError: Something frozen changed.
    """
    job = _Job(plan, policy, data, accelerator, seed, timer or StepTimer(), champion)
    with _made_ready(job) as ready:
        labels, validation = data.train.labels, data.validation
        trainer = Trainer(
            ready.stepper, plan, labels, validation, data.classes, accelerator, checkpoints, seed, ready.weights
        )
        with job.timer.whole():
            progress = trainer.run(ready.stages)
    images = len(validation.labels)
    accuracy = wilson(round(progress.kept["accuracy"] * images), images)
    return TransferResult(
        model=ready.model.cpu(),
        spec=input_spec(plan.backbone),
        pretrained=ready.weights,
        kept_epoch=progress.kept["epoch"],
        validation_accuracy=accuracy,
        history=progress.history,
        rates=progress.rates,
        events=[TrainingEvent.model_validate(event) for event in progress.events],
    )


def find_rate(
    plan: TransferPlan,
    policy: AugmentationPolicy,
    data: TransferData,
    accelerator: Machine,
    seed: int,
    champion: Champion | None = None,
) -> RangeTest:
    """Runs a learning-rate range test on what the plan would train first.

    Args:
        plan: What would be done.
        policy: Augmentation of training images.
        data: Training and validation images.
        accelerator: Device and precision.
        seed: Of data order and views.
        champion: Needed by a plan that starts from the champion's weights.

    Raises:
        GraftlineError: The plan trains no layers, or the champion is not that of the plan.
        WeightsError: The backbone's weights are not at hand.
    """
    with _made_ready(_Job(plan, policy, data, accelerator, seed, StepTimer(), champion)) as ready:
        if not ready.stages:
            raise GraftlineError("feature extraction solves its head without steps: there is no rate to find")
        groups = layer_groups(ready.model)
        Freezer(ready.model, groups, ready.stages[0].frozen_groups, not plan.from_scratch).train_mode()
        return try_rates(ready.stepper, data.train.labels, plan.batch_size, seed, plan.balance == "sampling")


@dataclass(frozen=True)
class _Job:
    """What was asked for."""

    plan: TransferPlan
    policy: AugmentationPolicy
    data: TransferData
    accelerator: Machine
    seed: int
    timer: StepTimer
    champion: Champion | None


@dataclass(frozen=True)
class _Ready:
    """A model that can be stepped."""

    model: nn.Module
    weights: str
    stages: list[Stage]
    stepper: Stepper


@contextmanager
def _made_ready(job: _Job) -> Iterator[_Ready]:
    """Builds the model, solves its head and folds its norms; at the end the frozen layers are proven unmoved."""
    plan, accelerator = job.plan, job.accelerator
    start = build_start(plan, len(job.data.classes), job.seed, job.champion)
    model = start.model
    accelerator.place(model)  # first of all: what is frozen is remembered, and compared at the end, where it lies
    spec, groups = input_spec(plan.backbone), layer_groups(model)
    if plan.group_rates and len(plan.group_rates) != len(groups):
        raise GraftlineError(f"group_rates has {len(plan.group_rates)} rates, {plan.backbone} has {len(groups)} groups")
    if not plan.from_scratch and accelerator.is_main_process:
        _set_head(job, start)
    share_weights(accelerator, model)
    stages = make_stages(plan, len(groups))
    frozen = min((stage.frozen_groups for stage in stages), default=len(groups) - 1)
    never_trained = Freezer(model, groups, frozen, norm_statistics_frozen=not plan.from_scratch)
    with contextlib.nullcontext() if plan.from_scratch else folded_norms(model, never_trained.modules, plan.image_size):
        if is_fast_bfloat16_cpu(accelerator):
            speed_up_depthwise(model)
        accelerator.place(model)
        train = Images(job.data.large, job.data.train.labels)
        stepper = Stepper(model, plan, job.policy, spec, train, accelerator, job.seed, job.timer)
        yield _Ready(model, start.weights, stages, stepper)
    never_trained.check()


def make_stages(plan: TransferPlan, groups: int) -> list[Stage]:
    """Turns a plan into the loop's stages.

    Args:
        plan: Any plan.
        groups: Number of layer groups of its backbone.

    Returns:
        None for feature extraction, one for fine-tuning; for progressive unfreezing one per entry of `stage_epochs`,
        from the head and the last block to all layers.
    """
    if plan.strategy == "feature_extraction":
        return []
    if plan.strategy == "fine_tuning":
        return [Stage(plan.epochs, min(plan.frozen_groups, groups - 1), plan.learning_rate)]
    steps = len(plan.stage_epochs)
    deepest = [round((groups - 2) * (steps - 1 - step) / max(1, steps - 1)) for step in range(steps)]
    return [
        Stage(epochs, max(frozen, min(plan.frozen_groups, groups - 1)), plan.learning_rate)
        for epochs, frozen in zip(plan.stage_epochs, deepest, strict=True)
    ]


def _set_head(job: _Job, start: Start) -> None:
    """Puts the solved head into the model, unless it has the champion's and that is as good on validation."""
    solved, head = _solve_head(job, start), start.model.get_submodule(head_name(start.model))
    if start.knows_classes:
        validation = job.data.validation
        features = _features(job, start, validation.pixels, "validation")
        weights = image_weights(validation.labels, job.plan.balance)
        better = is_solved_better(head, solved, features, validation.labels, weights)
        say(f"the {'newly solved head takes the place of the champion' if better else 'head stays the champion'}'s")
        if not better:
            return
    set_head(head, *solved)


def _solve_head(job: _Job, start: Start) -> tuple[np.ndarray, np.ndarray]:
    """Solves the head on features of the images as they are, and of as many augmented views as the plan wants."""
    plan, labels = job.plan, job.data.train.labels
    features = [_features_of_view(job, start, view) for view in range(plan.views)]
    strength = plan.evidence.regularisation if plan.evidence else None
    balanced = plan.balance != "none"
    strength = strength or choose_strength(features[0], labels, job.data.groups, job.seed, balanced)
    return solve_head(np.concatenate(features), np.tile(labels, plan.views), strength / plan.views, balanced)


def _features_of_view(job: _Job, start: Start, view: int) -> np.ndarray:
    """Returns the features of the training images: as they are (view 0) or augmented."""
    plan, data, spec = job.plan, job.data, input_spec(job.plan.backbone)
    pixels, name = data.train.pixels, "train"
    if view:
        augment = Augmenter(job.policy, plan.image_size, spec.interpolation)
        seeds = range(view * len(data.large), (view + 1) * len(data.large))
        parts = (slice(start, start + _VIEWED) for start in range(0, len(data.large), _VIEWED))
        views = [augment(torch.from_numpy(np.array(data.large[part])), seeds[part]) for part in parts]
        pixels, name = torch.cat(views).numpy(), f"train, view {view} of policy {job.policy.sha256}"
    return _features(job, start, pixels, name)


def _features(job: _Job, start: Start, pixels: np.ndarray, name: str) -> np.ndarray:
    key = FeatureKey(job.data.version, name, job.plan.backbone, start.weights)
    return cached_features(start.model, pixels, key, input_spec(job.plan.backbone), job.accelerator).late
