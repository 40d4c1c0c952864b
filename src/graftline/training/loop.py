"""The one training loop: stages of trainable groups, layer-wise rates, a checkpoint after every epoch.

All randomness (data order, views) follows from the seed, the epoch and the step, never from the state of a generator,
so a resumed run repeats what an uninterrupted one would have done.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from graftline.augmentation.apply import Augmenter
from graftline.errors import GraftlineError
from graftline.models.backbones import InputSpec
from graftline.models.freezing import Freezer
from graftline.models.groups import layer_groups
from graftline.models.predict import normalise
from graftline.progress import say, track
from graftline.records import AugmentationPolicy, TransferPlan
from graftline.training.checkpoints import Checkpoints
from graftline.training.schedules import schedule_factor

_CLIP_NORM = 1.0
_HEAD_SHARE = 0.2  # of the peak rate: the head is solved before the first step
_EVALUATION_BATCH = 64
_PLATEAU_PATIENCE = 2
_PLATEAU_FACTOR = 0.5
_STEPS_PER_EPOCH_SEEDS = 1_000_000


@dataclass(frozen=True)
class Stage:
    """Some epochs with the same trainable layers.

    Attributes:
        epochs: How many.
        frozen_groups: Groups from the stem on that stay frozen.
        learning_rate: Peak rate of the last group before the head.
    """

    epochs: int
    frozen_groups: int
    learning_rate: float


@dataclass(frozen=True)
class Images:
    """One split in memory.

    Attributes:
        pixels: uint8 [n, side, side, 3].
        labels: int64 [n].
    """

    pixels: np.ndarray
    labels: np.ndarray


@dataclass
class Progress:
    """How far a run has come; all of it is in the checkpoint."""

    epoch: int = 0
    best_loss: float = float("inf")
    kept_epoch: int = 0
    kept_accuracy: float = 0.0
    kept_weights: dict[str, Tensor] = field(default_factory=dict)
    rate_factor: float = 1.0
    history: list[dict[str, float]] = field(default_factory=list)


class Trainer:
    """Trains one classifier in stages and keeps the weights that validation speaks for.

    Args:
        model: Classifier on any device, its head already set.
        plan: Batch size, decay, schedule, regularisation.
        policy: Augmentation.
        spec: Input of the backbone.
        train: Training images, at least as large as the plan's views.
        validation: Validation images of the plan's size.
        accelerator: Device and precision.
        checkpoints: Where to save and resume.
        seed: Of data order and views.
    """

    def __init__(
        self,
        model: nn.Module,
        plan: TransferPlan,
        policy: AugmentationPolicy,
        spec: InputSpec,
        train: Images,
        validation: Images,
        accelerator: Accelerator,
        checkpoints: Checkpoints,
        seed: int,
    ) -> None:
        self._model = model.to(accelerator.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._plan, self._spec, self._seed = plan, spec, seed
        self._train, self._validation = train, validation
        self._accelerator, self._checkpoints = accelerator, checkpoints
        self._policy = policy
        self._groups = layer_groups(model)
        self._optimizer = _optimizer(model, plan)
        self._average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(plan.ema_decay))
        self._progress = Progress()

    def run(self, stages: Sequence[Stage]) -> Progress:
        """Trains through all stages, resuming after the last checkpoint, and leaves the kept weights in the model.

        Args:
            stages: In order; their epochs add up to the run's.

        Returns:
            The history and which epoch was kept (0: the start).

        Raises:
            GraftlineError: The loss is no longer a number.
            FrozenMovedError: Something frozen changed.
        """
        if not self._resume():
            self._judge(self._validate())
        first = 0
        for number, stage in enumerate(stages):
            self._run_stage(number, stage, first)
            first += stage.epochs
        self._model.load_state_dict(self._progress.kept_weights)
        return self._progress

    def _run_stage(self, number: int, stage: Stage, first: int) -> None:
        if self._progress.epoch >= first + stage.epochs:
            return
        freezer = Freezer(self._model, self._groups, stage.frozen_groups)
        for epoch in range(max(first, self._progress.epoch), first + stage.epochs):
            started = time.perf_counter()
            freezer.train_mode()
            loss, images = self._train_epoch(stage, epoch, epoch - first)
            seconds = time.perf_counter() - started
            self._progress.epoch = epoch + 1
            rates = {"stage": number + 1, "learning_rate": max(group["lr"] for group in self._optimizer.param_groups)}
            speed = {"seconds": seconds, "images_per_second": images / seconds}
            self._judge({"train_loss": loss, **self._validate(), **rates, **speed})
            freezer.check()
            self._save()

    def _train_epoch(self, stage: Stage, epoch: int, epoch_in_stage: int) -> tuple[float, int]:
        """Returns the mean loss and the number of images seen."""
        augment = Augmenter(self._policy, self._plan.image_size, self._spec.interpolation)
        batches = list(_batches(len(self._train.labels), self._plan.batch_size, [self._seed, epoch]))
        total = torch.zeros((), device=self._accelerator.device)
        for index, batch in enumerate(track(batches, f"epoch {epoch + 1} of {self._plan.epochs}")):
            self._set_rates(stage, epoch_in_stage * len(batches) + index, stage.epochs * len(batches))
            views = augment(torch.from_numpy(self._train.pixels[batch]), _view_seed(self._seed, epoch, index))
            total += self._step(views, torch.from_numpy(self._train.labels[batch]))
        mean = total.item() / len(batches)
        if not np.isfinite(mean):
            raise GraftlineError(
                f"the training loss is {mean} in epoch {epoch + 1}: the learning rate {stage.learning_rate:g} is too "
                f"high, run again with --learning_rate {stage.learning_rate / 4:g}"
            )
        return mean, sum(map(len, batches))

    def _step(self, views: Tensor, labels: Tensor) -> Tensor:
        """Makes one optimizer step and returns the detached loss."""
        device = self._accelerator.device
        inputs = normalise(views.to(device), self._spec.mean, self._spec.std)
        with self._accelerator.autocast():
            logits = self._model(inputs)
        loss = functional.cross_entropy(logits.float(), labels.to(device), label_smoothing=self._plan.label_smoothing)
        self._optimizer.zero_grad(set_to_none=True)
        self._accelerator.backward(loss)
        nn.utils.clip_grad_norm_(self._model.parameters(), _CLIP_NORM)
        self._optimizer.step()
        self._average.update_parameters(self._model)
        return loss.detach()

    def _set_rates(self, stage: Stage, step: int, steps: int) -> None:
        factor = schedule_factor(self._plan.schedule, step, steps, min(self._plan.warmup_steps, steps // 4))
        for group in self._optimizer.param_groups:
            group["lr"] = stage.learning_rate * factor * group["scale"] * self._progress.rate_factor

    @torch.inference_mode()
    def _validate(self) -> dict[str, float]:
        model = self._average.module.eval()
        labels = torch.from_numpy(self._validation.labels)
        logits = []
        for start in range(0, len(labels), _EVALUATION_BATCH):
            batch = torch.from_numpy(np.array(self._validation.pixels[start : start + _EVALUATION_BATCH]))
            with self._accelerator.autocast():
                inputs = normalise(batch.to(self._accelerator.device), self._spec.mean, self._spec.std)
                logits.append(model(inputs).float().cpu())
        scores = torch.cat(logits)
        return {
            "validation_loss": functional.cross_entropy(scores, labels).item(),
            "validation_accuracy": (scores.argmax(1) == labels).float().mean().item(),
        }

    def _judge(self, row: dict[str, float]) -> None:
        """Adds an epoch to the history and keeps its weights when its validation loss is the lowest so far.

        The loss, not the accuracy: on a few hundred validation images it is much the less noisy of the two.
        """
        progress = self._progress
        progress.history.append({"epoch": float(progress.epoch), **row})
        accuracy = row["validation_accuracy"]
        if row["validation_loss"] <= progress.best_loss:
            progress.best_loss = row["validation_loss"]
            progress.kept_accuracy, progress.kept_epoch = accuracy, progress.epoch
            progress.kept_weights = {n: t.detach().cpu().clone() for n, t in self._average.module.state_dict().items()}
        if self._plan.schedule == "plateau" and self._stalled():
            progress.rate_factor *= _PLATEAU_FACTOR
            say(f"validation loss has stalled: the learning rate is now {progress.rate_factor:g} of its start")
        losses = f"validation accuracy {accuracy:.4f}, loss {row['validation_loss']:.4f}"
        say(f"epoch {progress.epoch} of {self._plan.epochs}: {losses}" if progress.epoch else f"solved head: {losses}")

    def _stalled(self) -> bool:
        losses = [row["validation_loss"] for row in self._progress.history]
        return len(losses) > _PLATEAU_PATIENCE and min(losses[-_PLATEAU_PATIENCE:]) > self._progress.best_loss

    def _save(self) -> None:
        state: dict[str, Any] = {
            "model": self._model.state_dict(),
            "average": self._average.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "progress": vars(self._progress),
        }
        self._checkpoints.save(self._progress.epoch, state)

    def _resume(self) -> bool:
        state = self._checkpoints.latest()
        if state is None:
            return False
        self._model.load_state_dict(state["model"])
        self._average.load_state_dict(state["average"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._progress = Progress(**state["progress"])
        say(f"resuming after epoch {self._progress.epoch}")
        return True


def _optimizer(model: nn.Module, plan: TransferPlan) -> torch.optim.Optimizer:
    """AdamW with one scale per layer group (layer-wise decay towards the stem) and no decay on norms and biases.

    All groups are in it from the start, so that its state carries over when more layers are unfrozen.
    """
    parameters = dict(model.named_parameters())
    settings: list[dict[str, Any]] = []
    for distance, group in enumerate(reversed(layer_groups(model))):
        scale = plan.layer_decay ** (distance - 1) if distance else _HEAD_SHARE
        for decays in (True, False):
            chosen = [parameters[name] for name in group.parameters if (parameters[name].ndim > 1) == decays]
            if chosen:
                decay = plan.weight_decay if decays else 0.0
                settings.append({"params": chosen, "scale": scale, "weight_decay": decay})
    return torch.optim.AdamW(settings, lr=plan.learning_rate)


def _batches(images: int, batch_size: int, seed: Sequence[int]) -> Iterator[np.ndarray]:
    """Yields shuffled indices; a last incomplete batch is left out unless it is the only one."""
    order = np.random.default_rng(seed).permutation(images)
    whole = max(1, images // batch_size)
    for index in range(whole):
        yield np.sort(order[index * batch_size : (index + 1) * batch_size])


def _view_seed(seed: int, epoch: int, index: int) -> int:
    return (seed * 1_000 + epoch) * _STEPS_PER_EPOCH_SEEDS + index
