"""The peers: the loop of PyTorch's transfer-learning tutorial, and fastai's `fine_tune` as its documents show it.

Tutorial: https://docs.pytorch.org/tutorials/beginner/transfer_learning_tutorial.html with the weights' own mean and
deviation, this benchmark's batch size, and, when all layers train, Adam at 1e-4: the tutorial's SGD at 1e-3 is made for
batches of 4 and many more epochs.
fastai: https://docs.fast.ai/quick_start.html (image files to `fine_tune`), with the same batch size.
"""

import copy
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from _common import Task

from graftline.progress import say

WORKERS = 2  # processes that load images
WARMUP_STEPS = 2  # of a round, before the clock starts
_LONG_EXTRACTION = 10  # epochs


class Tutorial:
    """The tutorial's two scenarios: fine-tuning of all layers, and the network as a fixed feature extractor.

    Args:
        task: What to work on.
    """

    def __init__(self, task: Task) -> None:
        import timm
        import torch
        import torchvision

        self._task = task
        self._versions = {"torch": torch.__version__, "timm": timm.__version__, "torchvision": torchvision.__version__}
        self._pair: tuple[Any, Any] | None = None
        torch.manual_seed(0)

    def hello(self) -> dict[str, Any]:
        """Returns what runs here."""
        return {"versions": self._versions}

    def round(self) -> float:
        """Returns images per second of training all layers, after two steps that warm up."""
        self._pair = self._pair or self._model(frozen=False)
        batches = iter(self._loader("train"))
        self._steps(*self._pair, (next(batches) for _ in range(WARMUP_STEPS)))
        started = time.perf_counter()
        images = self._steps(*self._pair, (next(batches) for _ in range(self._task.steps)))
        return images / (time.perf_counter() - started)

    def train(self) -> dict[str, Any]:
        """Measures one epoch with a frozen backbone, then trains all layers; only training steps are in the seconds."""
        started = time.perf_counter()
        self._steps(*self._model(frozen=True), self._loader("train"))
        frozen = time.perf_counter() - started
        model, optimizer = self._model(frozen=False)
        best, spent, curve = (-1.0, {}), 0.0, []
        for _ in range(self._task.passes):
            started = time.perf_counter()
            self._steps(model, optimizer, self._loader("train"))
            spent += time.perf_counter() - started
            right, images = self._judge(model, "validation")
            curve.append([spent, right / images])
            say(f"tutorial: validation accuracy {right / images:.4f} after {spent:.0f} s of training")
            if right / images > best[0]:
                best = right / images, copy.deepcopy(model.state_dict())
        model.load_state_dict(best[1])
        return {
            "features": {"seconds": frozen * _LONG_EXTRACTION, "extrapolated": True},
            "training": {
                "what": "all layers",
                "passes": self._task.passes,
                "seconds": spent,
                "right": self._judge(model, "test")[0],
                "curve": curve,
            },
        }

    def _model(self, frozen: bool) -> tuple[Any, Any]:
        """Returns the network with a new head, and its optimizer."""
        import timm
        import torch

        classes = sum(1 for _ in (Path(self._task.files) / "train").iterdir())
        overlay = {"file": self._task.weights}
        model = timm.create_model(
            self._task.backbone, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=classes
        )
        self._mean, self._std = model.default_cfg["mean"], model.default_cfg["std"]
        if not frozen:
            return model, torch.optim.Adam(model.parameters(), lr=1e-4)
        head = model.get_classifier()
        model.requires_grad_(False)
        head.requires_grad_(True)
        return model, torch.optim.SGD(head.parameters(), lr=1e-3, momentum=0.9)

    def _loader(self, split: str) -> Any:
        from torch.utils.data import DataLoader
        from torchvision import datasets, transforms

        side = self._task.side
        last = [transforms.ToTensor(), transforms.Normalize(self._mean, self._std)]
        views = {
            True: [transforms.RandomResizedCrop(side), transforms.RandomHorizontalFlip()],
            False: [transforms.Resize(round(side * 256 / 224)), transforms.CenterCrop(side)],
        }
        trains = split == "train"
        data = datasets.ImageFolder(Path(self._task.files) / split, transforms.Compose([*views[trains], *last]))
        return DataLoader(data, batch_size=self._task.batch, shuffle=trains, num_workers=WORKERS)

    def _steps(self, model: Any, optimizer: Any, batches: Iterable[Any]) -> int:
        """Returns the number of images that it stepped through."""
        from torch import nn

        criterion = nn.CrossEntropyLoss()
        model.train()
        images, running_loss = 0, 0.0
        for inputs, labels in batches:
            optimizer.zero_grad()
            loss = criterion(model(inputs), labels)
            loss.backward()
            optimizer.step()
            running_loss += loss.item() * len(inputs)
            images += len(inputs)
        return images

    def _judge(self, model: Any, split: str) -> tuple[int, int]:
        """Returns how many images are right, and how many there are."""
        import torch

        model.eval()
        right = images = 0
        with torch.no_grad():
            for inputs, labels in self._loader(split):
                right += int((model(inputs).argmax(1) == labels).sum())
                images += len(labels)
        return right, images


class FastAI:
    """fastai with its defaults.

    Args:
        task: What to work on.
    """

    def __init__(self, task: Task) -> None:
        import fastai
        import torch
        from fastai.vision import all as vision

        self._task, self._vision = task, vision
        self._versions = {"torch": torch.__version__, "fastai": fastai.__version__}
        self._learner_of_rounds: Any = None
        vision.set_seed(0)

    def hello(self) -> dict[str, Any]:
        """Returns what runs here."""
        return {"versions": self._versions}

    def round(self) -> float:
        """Returns images per second of training all layers, after two steps that warm up."""
        if self._learner_of_rounds is None:
            self._learner_of_rounds = self._learner()
            self._learner_of_rounds.unfreeze()
        clock = self._make_step_clock()
        self._quietly(self._learner_of_rounds, lambda learner: learner.fit(1, 1e-4, cbs=clock))
        return self._task.steps * self._task.batch / (clock.ended - clock.started)

    def train(self) -> dict[str, Any]:
        """Calls `fine_tune`: one epoch with a frozen body, then all layers; only training steps are in the seconds."""
        learner, clock = self._learner(), self._make_epoch_clock()
        self._quietly(learner, lambda learner: learner.fine_tune(max(1, self._task.passes - 1), cbs=clock))
        spent = [sum(clock.seconds[: epoch + 1]) for epoch in range(len(clock.seconds))]
        return {
            "features": {"seconds": clock.seconds[0] * _LONG_EXTRACTION, "extrapolated": True},
            "training": {
                "what": "fine_tune",
                "passes": len(spent),
                "seconds": spent[-1],
                "right": self._test(learner),
                "curve": [list(point) for point in zip(spent, clock.accuracies, strict=True)],
            },
        }

    def _learner(self) -> Any:
        vision, task = self._vision, self._task
        loaders = vision.ImageDataLoaders.from_folder(
            Path(task.files),
            valid="validation",
            item_tfms=vision.Resize(task.side),
            bs=task.batch,
            num_workers=WORKERS,
        )
        overlay = {"file": task.weights}
        return vision.vision_learner(loaders, task.backbone, metrics=vision.accuracy, pretrained_cfg_overlay=overlay)

    def _test(self, learner: Any) -> int:
        files = self._vision.get_image_files(Path(self._task.files) / "test")
        loader = learner.dls.test_dl(files, with_labels=True)
        accuracy = self._quietly(learner, lambda learner: learner.validate(dl=loader))[1]
        return round(accuracy * len(files))

    @staticmethod
    def _quietly(learner: Any, call: Any) -> Any:
        with learner.no_bar(), learner.no_logging():
            return call(learner)

    def _make_step_clock(self) -> Any:
        task, cancel = self._task, self._vision.CancelFitException

        class StepClock(self._vision.Callback):  # type: ignore[name-defined, misc]
            """Ends the fit after the steps of a round."""

            done, started, ended = 0, 0.0, 0.0

            def after_batch(self) -> None:
                """Looks at the clock."""
                self.done += 1
                if self.done == WARMUP_STEPS:
                    self.started = time.perf_counter()
                if self.done == WARMUP_STEPS + task.steps:
                    self.ended = time.perf_counter()
                    raise cancel

        return StepClock()

    def _make_epoch_clock(self) -> Any:
        class EpochClock(self._vision.Callback):  # type: ignore[name-defined, misc]
            """Keeps the seconds of each epoch's training part and the accuracy on the validation images."""

            def __init__(self) -> None:
                self.seconds: list[float] = []
                self.accuracies: list[float] = []

            def before_train(self) -> None:
                """Starts the clock."""
                self.begun = time.perf_counter()

            def after_train(self) -> None:
                """Stops the clock."""
                self.seconds.append(time.perf_counter() - self.begun)
                say(f"fastai: {sum(self.seconds):.0f} s of training")

            def after_fit(self) -> None:
                """Reads what was recorded."""
                self.accuracies += [float(row[-1]) for row in self.recorder.values]

        return EpochClock()
