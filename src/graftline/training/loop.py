"""The one training loop: stages of trainable groups, guards, checkpoints, the weights that validation speaks for."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn import functional

from graftline.errors import GraftlineError
from graftline.models.freezing import Freezer
from graftline.models.groups import layer_groups
from graftline.progress import say, track
from graftline.records import TrainingEvent, TransferPlan
from graftline.training.agreement import from_main
from graftline.training.checkpoints import Checkpoints
from graftline.training.guards import (
    LossWatch,
    RateTooHigh,
    watch_classes,
    watch_overfitting,
    watch_validation_size,
)
from graftline.training.images import Images
from graftline.training.interruption import Termination, caught_termination
from graftline.training.sampling import image_weights, make_batches
from graftline.training.schedules import is_on_plateau, schedule_factor
from graftline.training.stepper import Stepper

_LOOK_EVERY = 8
_SAVE_EVERY_SECONDS = 300.0
_PLATEAU_FACTOR = 0.5
_LOWEST_FACTOR = 1 / 64


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


@dataclass
class Progress:
    """How far a run has come; all of it is in the checkpoint.

    Attributes:
        epoch: Epochs finished.
        step: Steps made in the present epoch.
        losses: Sum of their losses.
        origin: SHA-256 of the tensors that it started from.
        rate_factor: Of the plan's rates; lowered by the guard.
        plateau_factor: Of the present stage's rates; lowered on plateaus.
        lowered: The epoch after which a plateau lowered it last.
        start: The model before any step.
        kept: The epoch with the lowest validation loss so far; empty before the first.
        watch: State of the guard against rates that are too high.
        history: One row per epoch.
        rates: Peak learning rate of every step.
        events: What the guards found, as TrainingEvent's fields.
    """

    epoch: int = 0
    step: int = 0
    losses: float = 0.0
    origin: str = ""
    rate_factor: float = 1.0
    plateau_factor: float = 1.0
    lowered: int = 0
    start: dict[str, Any] = field(default_factory=dict)
    kept: dict[str, Any] = field(default_factory=dict)
    watch: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)


class Trainer:
    """Trains one classifier in stages and keeps the weights that validation speaks for.

    Args:
        stepper: Makes the steps; its model's head is already set.
        plan: Batch size, schedule, patience.
        train_labels: int [n], labels of the training images.
        validation: Validation images of the plan's size.
        classes: Names of the classes.
        accelerator: Device, precision, processes.
        checkpoints: Where to save and resume.
        seed: Of the order of the images.
        origin: SHA-256 of the tensors that the model started from: what other weights began is not gone on with.
    """

    def __init__(
        self,
        stepper: Stepper,
        plan: TransferPlan,
        train_labels: np.ndarray,
        validation: Images,
        classes: Sequence[str],
        accelerator: Accelerator,
        checkpoints: Checkpoints,
        seed: int,
        origin: str,
    ) -> None:
        self._stepper, self._plan, self._seed = stepper, plan, seed
        self._labels, self._validation = train_labels, validation
        self._accelerator, self._checkpoints = accelerator, checkpoints
        self._groups = layer_groups(stepper.model)
        self._progress = Progress(origin=origin)
        self._validation_weights = torch.from_numpy(image_weights(validation.labels, plan.balance))
        self._classes = classes
        self._watch = LossWatch(len(classes))
        self._pending: list[Tensor] = []
        self._predictions = np.empty(0, dtype=np.int64)
        self._losses = torch.empty(0)
        self._saved_at = time.monotonic()

    def run(self, stages: Sequence[Stage]) -> Progress:
        """Trains through all stages, resuming after the last checkpoint, and leaves the kept weights in the model.

        Args:
            stages: In order; their epochs add up to the run's.

        Returns:
            The history, and what was kept (epoch 0: the start).

        Raises:
            GraftlineError: The loss rises or is no number however low the rate.
            FrozenMovedError: Something frozen changed.
            SystemExit: The process was asked to end (SIGTERM); a checkpoint is written.
            KeyboardInterrupt: The same by Ctrl-C.
        """
        state = from_main(self._accelerator, self._checkpoints.latest)
        if state is not None and state["progress"]["origin"] != self._progress.origin:
            say("the checkpoint was begun with other weights: starting anew")
            state = None
        if state is not None:
            self._restore(state)
            say(f"resuming after epoch {self._progress.epoch}, step {self._progress.step}")
        else:
            self._note(watch_validation_size(len(self._validation.labels)))
            self._judge(self._validate())
            if stages:
                self._save()
        first = 0
        with caught_termination() as termination:
            for number, stage in enumerate(stages):
                self._run_stage(number, stage, first, termination)
                first += stage.epochs
        self._progress.kept = self._choose()
        self._stepper.model.load_state_dict(self._progress.kept["weights"])
        return self._progress

    def _run_stage(self, number: int, stage: Stage, first: int, termination: Termination) -> None:
        last = first + stage.epochs
        if self._progress.epoch >= last:
            return
        freezer = Freezer(self._stepper.model, self._groups, stage.frozen_groups, not self._plan.from_scratch)
        self._stepper.prepare()
        if self._progress.epoch == first and not self._progress.step:
            self._progress.plateau_factor = 1.0
        while self._progress.epoch < last:
            try:
                row = self._run_epoch(stage, first, freezer, termination)
            except RateTooHigh as reason:
                self._go_back(reason)
                continue
            freezer.check()
            self._judge({**row, "stage": number + 1})
            if self._plan.schedule == "plateau":
                self._lower_on_plateau(first)
            if self._is_out_of_patience(first):
                self._progress.epoch = last
            self._save()
            if self._agreed(termination.asked)[0]:
                self._end_early(termination)

    def _run_epoch(self, stage: Stage, first: int, freezer: Freezer, termination: Termination) -> dict[str, float]:
        """Trains to the end of the present epoch and measures it."""
        progress, started, start = self._progress, time.perf_counter(), self._progress.step
        freezer.train_mode()
        balanced = self._plan.balance == "sampling"
        batches = make_batches(self._labels, self._plan.batch_size, self._seed, progress.epoch, balanced)
        title = f"epoch {progress.epoch + 1} of {self._plan.epochs}"
        for batch in track(batches[start:], title):
            self._set_rate(stage, (progress.epoch - first) * len(batches) + progress.step, stage.epochs * len(batches))
            self._pending.append(self._stepper.step(batch, progress.epoch, progress.step))
            progress.step += 1
            if len(self._pending) >= _LOOK_EVERY:
                self._look()
            asked, due = self._agreed(termination.asked, time.monotonic() - self._saved_at > _SAVE_EVERY_SECONDS)
            if (asked or due) and progress.step < len(batches):
                self._look()
                self._save()
                if asked:
                    self._end_early(termination)
        self._look()
        images = sum(map(len, batches[start:]))
        seconds = time.perf_counter() - started
        measured = self._validate()
        with self._tolerance():
            self._watch.end_epoch(measured["validation_loss"])
        mean = progress.losses / len(batches)
        progress.epoch, progress.step, progress.losses = progress.epoch + 1, 0, 0.0
        speed = {"seconds": seconds, "images_per_second": images / seconds}
        return {"train_loss": mean, **measured, "learning_rate": progress.rates[-1], **speed}

    def _end_early(self, termination: Termination) -> NoReturn:
        say(f"asked to end: saved after epoch {self._progress.epoch}, step {self._progress.step}")
        termination.end()

    def _look(self) -> None:
        """Reads the losses of the last steps; not at every step, as reading waits for a GPU."""
        losses = [loss.item() for loss in self._pending]
        self._pending.clear()
        for loss in losses:
            with self._tolerance():
                self._watch.add(loss)
            self._progress.losses += loss

    @contextmanager
    def _tolerance(self) -> Iterator[None]:
        """At the lowest rate a high loss is the data's, not the rate's."""
        try:
            yield
        except RateTooHigh as reason:
            if not reason.is_number or self._progress.rate_factor > _LOWEST_FACTOR:
                raise

    def _set_rate(self, stage: Stage, step: int, steps: int) -> None:
        factor = schedule_factor(self._plan.schedule, step, steps, min(self._plan.warmup_steps, steps // 4))
        rate = stage.learning_rate * factor * self._progress.rate_factor * self._progress.plateau_factor
        self._stepper.set_rate(rate)
        self._progress.rates.append(rate)

    def _agreed(self, *flags: bool) -> list[bool]:
        """Returns which flags are set in any of the processes: all of them must save at the same step."""
        if self._accelerator.num_processes == 1:
            return list(flags)
        raised = torch.tensor(flags, dtype=torch.float32, device=self._accelerator.device)
        return [bool(count) for count in self._accelerator.reduce(raised, reduction="sum").tolist()]

    def _go_back(self, reason: RateTooHigh) -> None:
        """Returns to the end of the last epoch that was sound and goes on from there at half the rate."""
        factor = self._progress.rate_factor / 2
        if factor < _LOWEST_FACTOR:
            raise GraftlineError(f"{reason}, even at {2 * factor:g} of the learning rate: give a lower --learning_rate")
        doubtful = self._watch.doubts_start  # the last steps of an epoch can ruin weights before any loss shows it
        state = from_main(self._accelerator, lambda: self._checkpoints.latest_whole(before_last=doubtful))
        if state is None:
            raise GraftlineError("the checkpoints are gone: has the same training ended elsewhere? Run it again")
        epoch = self._progress.epoch + 1
        self._restore(state)
        self._progress.rate_factor = factor
        message = f"{reason}: back to the end of epoch {self._progress.epoch}, on at {factor:g} of the planned rates"
        self._note([TrainingEvent(epoch=epoch, kind="rate_lowered", message=message)])
        self._save()

    def _validate(self) -> dict[str, float]:
        scores, labels = self._stepper.logits(self._validation.pixels), torch.from_numpy(self._validation.labels)
        self._predictions = scores.argmax(1).numpy()
        self._losses = functional.cross_entropy(scores, labels, reduction="none") * self._validation_weights
        return {
            "validation_loss": self._losses.mean().item(),
            "validation_accuracy": float((self._predictions == self._validation.labels).mean()),
        }

    def _judge(self, row: dict[str, float]) -> None:
        """Adds an epoch to the history and keeps its weights when its validation loss is the lowest so far.

        The loss, not the accuracy: on a few hundred validation images it is much the less noisy of the two.
        """
        progress = self._progress
        progress.history.append({"epoch": float(progress.epoch), **row})
        accuracy = row["validation_accuracy"]
        if progress.epoch == 0:
            progress.start = self._snapshot(accuracy)
        elif not progress.kept or self._losses.mean() <= progress.kept["losses"].mean():
            progress.kept = self._snapshot(accuracy)
        losses = f"validation accuracy {accuracy:.4f}, loss {row['validation_loss']:.4f}"
        say(f"epoch {progress.epoch} of {self._plan.epochs}: {losses}" if progress.epoch else f"start: {losses}")
        self._note(watch_classes(progress.epoch, self._predictions, self._validation.labels, self._classes))
        self._note(watch_overfitting(progress.history))

    def _snapshot(self, accuracy: float) -> dict[str, Any]:
        """Returns the averaged weights with what they reach on each validation image."""
        state = self._stepper.average.module.state_dict()
        weights = {name: tensor.detach().cpu().clone() for name, tensor in state.items()}
        return {"epoch": self._progress.epoch, "accuracy": accuracy, "losses": self._losses, "weights": weights}

    def _choose(self) -> dict[str, Any]:
        """Returns the best epoch, or the start when it is better by more than a standard error.

        The one-standard-error rule (Breiman et al. 1984, "Classification and Regression Trees"), on the paired losses
        of the validation images: within it, the plan's word counts, that training is worth it.
        """
        start, kept = self._progress.start, self._progress.kept
        if not kept:
            return start
        worse = (kept["losses"] - start["losses"]).numpy()
        if worse.mean() <= worse.std() / np.sqrt(len(worse)):
            return kept
        say(f"the start is kept: training made the validation loss worse by {worse.mean():.4f}")
        return start

    def _note(self, events: Sequence[TrainingEvent]) -> None:
        """Says and remembers what a guard found, each kind once (a lowered rate every time)."""
        known = {event["kind"] for event in self._progress.events}
        for event in events:
            if event.kind == "rate_lowered" or event.kind not in known:
                say(event.message)
                self._progress.events.append(event.model_dump())

    def _lower_on_plateau(self, first: int) -> None:
        """Lowers the rate of the stage when its validation loss has stopped to fall."""
        progress = self._progress
        if not is_on_plateau(progress.history, first, progress.lowered):
            return
        progress.plateau_factor *= _PLATEAU_FACTOR
        progress.lowered = progress.epoch
        say(f"validation loss has stalled: the learning rate is now {progress.plateau_factor:g} of its start")

    def _is_out_of_patience(self, first: int) -> bool:
        waited = self._progress.epoch - max(first, self._progress.kept["epoch"])
        if not self._plan.patience or waited < self._plan.patience:
            return False
        message = f"the validation loss has not fallen for {waited} epochs: the stage ends"
        self._note([TrainingEvent(epoch=self._progress.epoch, kind="stopped_early", message=message)])
        return True

    def _save(self) -> None:
        self._progress.watch = self._watch.state()
        state = {**self._stepper.state(), "progress": vars(self._progress)}
        self._checkpoints.save(state, self._progress.epoch, self._progress.step)
        self._accelerator.wait_for_everyone()
        self._saved_at = time.monotonic()

    def _restore(self, state: dict[str, Any]) -> None:
        self._stepper.load(state)
        self._progress = Progress(**state["progress"])
        self._watch = LossWatch(len(self._classes), **self._progress.watch)
        self._pending.clear()
