"""One optimizer step on one batch: views, mixing, loss, gradients, weights and their moving average."""

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from graftline.augmentation.apply import Augmenter
from graftline.errors import GraftlineError
from graftline.models.backbones import InputSpec
from graftline.models.predict import normalise
from graftline.records import AugmentationPolicy, TransferPlan
from graftline.training.device import Machine
from graftline.training.images import Images
from graftline.training.mixing import Mix, draw_mix, mix_images
from graftline.training.optimizer import StartingPoint, make_optimizer
from graftline.training.sampling import balanced_weights, view_seeds
from graftline.training.timer import StepTimer

_CLIP_NORM = 1.0
_EVALUATION_BATCH = 32


class Stepper:
    """Steps a model through batches; on several devices each computes its part of every batch.

    A batch is cut into as many parts as there are devices and accumulated passes. Each part's loss counts by its number
    of images, so the step is the same however it was cut, but for the draws of dropout and stochastic depth, and for
    BatchNorm from random weights, which sees one part at a time.

    Args:
        model: Classifier on the accelerator's device.
        plan: Loss, regularisation, rates.
        policy: Augmentation.
        spec: Input of the backbone.
        train: Training images.
        accelerator: Device, precision, processes.
        seed: Of the views.
        timer: Where the seconds go.

    Raises:
        GraftlineError: A batch has fewer images than it is cut into parts.
    """

    def __init__(
        self,
        model: nn.Module,
        plan: TransferPlan,
        policy: AugmentationPolicy,
        spec: InputSpec,
        train: Images,
        accelerator: Machine,
        seed: int,
        timer: StepTimer,
    ) -> None:
        parts = accelerator.num_processes * plan.accumulation
        if plan.batch_size < parts:
            raise GraftlineError(
                f"a batch of {plan.batch_size} images cannot be cut into {parts} parts (processes x accumulation): "
                "give a larger --batch-size, or fewer of them"
            )
        self.model = self._parallel = model
        self._forward: Callable[[Tensor], Tensor] = model
        average = get_ema_multi_avg_fn(plan.ema_decay)
        self.average = AveragedModel(model, multi_avg_fn=average, use_buffers=plan.from_scratch)
        self.optimizer = accelerator.prepare_optimizer(make_optimizer(model, plan))
        self._plan, self._spec, self._train, self._seed = plan, spec, train, seed
        self._accelerator, self._timer = accelerator, timer
        dtype = torch.bfloat16 if accelerator.mixed_precision == "bf16" else torch.float32
        self._augment = Augmenter(policy, plan.image_size, spec.interpolation, dtype)
        self._start = StartingPoint(model, plan.l2_sp)
        self._class_weights = self._make_class_weights()

    def state(self) -> dict[str, Any]:
        """Returns all that changes from step to step."""
        scaler = self._accelerator.scaler
        return {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": scaler.state_dict() if scaler else {},
        }

    def load(self, state: dict[str, Any]) -> None:
        """Takes over what `state` returned."""
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"]:
            self._accelerator.scaler.load_state_dict(state["scaler"])

    def prepare(self) -> None:
        """Connects the devices for the parameters that train now; to be called when frozen layers have changed."""
        self._timer.new_stage()
        if self._accelerator.num_processes > 1:
            self._parallel = DistributedDataParallel(self.model)
        self._forward = torch.compile(self._parallel) if self._accelerator.compiles else self._parallel

    def set_rate(self, rate: float) -> None:
        """Sets the rate of every group to its share of the peak `rate`."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["scale"]

    def step(self, batch: np.ndarray, epoch: int, number: int) -> Tensor:
        """Makes one optimizer step.

        Args:
            batch: int [n] indices of training images.
            epoch: From 0.
            number: Of the batch in the epoch.

        Returns:
            The detached loss, a scalar, averaged over the batch.
        """
        mix = draw_mix(self._plan.mixup, self._plan.cutmix, self._view_seeds(epoch, number, [0])[0])
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self._accelerator.device)
        parts = self._my_parts(len(batch))
        for index, places in enumerate(parts):
            # Dropout and stochastic depth: other draws in each part, the same ones after a resumption.
            torch.manual_seed(self._view_seeds(epoch, number, [*places[:1].tolist(), 0])[0])
            with self._no_sync() if index + 1 < len(parts) else contextlib.nullcontext():
                loss = self._loss(batch, places, epoch, number, mix)
                with self._timer.section("backward"):
                    self._accelerator.backward(loss * self._accelerator.num_processes)
            total += loss.detach()
        with self._timer.section("optimizer"):
            self._update()
        return self._accelerator.reduce(total, reduction="sum")

    @torch.inference_mode()
    def logits(self, images: np.ndarray) -> Tensor:
        """Returns what the averaged weights answer, in the precision of training; each process computes its part.

        All get the same bits, as what they decide by it must be the same.

        Args:
            images: uint8 [n, size, size, 3].

        Returns:
            float32 [n, classes] on the CPU.
        """
        model, device = self.average.module.eval(), self._accelerator.device
        starts = range(0, len(images), _EVALUATION_BATCH)
        answers = {}
        for start in starts[self._accelerator.process_index :: self._accelerator.num_processes]:
            batch = torch.from_numpy(np.array(images[start : start + _EVALUATION_BATCH]))
            with self._accelerator.autocast():
                answers[start] = model(normalise(batch.to(device), self._spec.mean, self._spec.std)).float()
        classes = self.model.get_classifier().out_features  # type: ignore[operator]
        every = torch.zeros(len(images), classes, device=device)
        for start, part in answers.items():
            every[start : start + len(part)] = part
        return self._accelerator.reduce(every, reduction="sum").cpu()

    def _my_parts(self, images: int) -> list[np.ndarray]:
        """Returns the places in the batch that this process computes, cut into its passes."""
        mine = np.array_split(np.arange(images), self._accelerator.num_processes)[self._accelerator.process_index]
        return np.array_split(mine, self._plan.accumulation)

    def _no_sync(self) -> contextlib.AbstractContextManager[None]:
        parallel = self._parallel
        return parallel.no_sync() if isinstance(parallel, DistributedDataParallel) else contextlib.nullcontext()

    def _loss(self, batch: np.ndarray, places: np.ndarray, epoch: int, number: int, mix: Mix | None) -> Tensor:
        """Returns this part's share of the batch's mean loss."""
        inputs, labels = self._inputs(batch, places, epoch, number)
        share = 1.0
        if mix is not None:
            partners = (places + 1) % len(batch)
            others, other_labels = self._inputs(batch, partners, epoch, number)
            inputs, share = mix_images(inputs, others, mix)
        with self._timer.section("forward"), self._accelerator.autocast():
            logits = self._forward(inputs)
        loss = share * self._cross_entropy(logits.float(), labels)
        if mix is not None:
            loss = loss + (1 - share) * self._cross_entropy(logits.float(), other_labels)
        return loss / len(batch)

    def _inputs(self, batch: np.ndarray, places: np.ndarray, epoch: int, number: int) -> tuple[Tensor, Tensor]:
        seeds = self._view_seeds(epoch, number, places.tolist())
        chosen = batch[places]
        device = self._accelerator.device
        with self._timer.section("augment"):
            pixels = torch.from_numpy(self._train.pixels[chosen]).to(device)
            inputs = normalise(self._augment(pixels, seeds), self._spec.mean, self._spec.std)
        return inputs, torch.from_numpy(self._train.labels[chosen]).to(device)

    def _view_seeds(self, epoch: int, number: int, places: list[int]) -> list[int]:
        return view_seeds(self._seed, epoch, number, places, self._plan.batch_size)

    def _cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Returns the sum over images; class weights are 1 on average over the training images."""
        losses = functional.cross_entropy(logits, labels, label_smoothing=self._plan.label_smoothing, reduction="none")
        if self._class_weights is not None:
            losses = losses * self._class_weights[labels]
        return losses.sum()

    def _make_class_weights(self) -> Tensor | None:
        if self._plan.balance != "class_weights":
            return None
        weights = balanced_weights(self._train.labels, int(self._train.labels.max()) + 1)
        return torch.from_numpy(weights).to(self._accelerator.device)

    def _update(self) -> None:
        self._accelerator.unscale_gradients()  # before they are clipped
        nn.utils.clip_grad_norm_(self.model.parameters(), _CLIP_NORM)
        self.optimizer.step()
        self._start.pull(self.optimizer)
        self.average.update_parameters(self.model)
