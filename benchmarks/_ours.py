"""graftline as a contender: only its steps, as a user would call them."""

import json
import os
import time
from pathlib import Path
from typing import Any

from _common import Task


class Graftline:
    """Runs the steps augment, select_strategy and fine_tune.

    Args:
        task: What to work on.
    """

    def __init__(self, task: Task) -> None:
        import sklearn.linear_model  # noqa: F401 - imports count for nobody
        import timm
        import torch

        self._task = task
        self._versions = {"torch": torch.__version__, "timm": timm.__version__}
        self._threads = torch.get_num_threads()

    def hello(self) -> dict[str, Any]:
        """Returns what runs here."""
        return {"versions": self._versions, "threads": self._threads}

    def write_weights(self) -> None:
        """Writes the pretrained weights where the peers read them."""
        from safetensors.torch import save_file

        from graftline.models.backbones import build_backbone

        self._workspace("weights")
        model, _ = build_backbone(self._task.backbone, 2)
        save_file(model.state_dict(), self._task.weights)

    def train(self) -> dict[str, Any]:
        """Trains from the images on, with no cache: first feature extraction, then the best plan that trains layers.

        Nothing is left out of the seconds but imports and the test: the policy, the probe that chooses, decoding,
        validation and checkpoints are in them.
        """
        folder = self._workspace("train")
        dataset = Path(self._task.dataset)
        started = time.perf_counter()
        plans = self._plan(dataset, folder)
        solved = self._fine_tune(dataset, folder, "features", plans.index("feature_extraction"))
        features = time.perf_counter() - started
        best = next(rank for rank, strategy in enumerate(plans) if strategy != "feature_extraction")
        trained = self._fine_tune(dataset, folder, "model", best, epochs=self._task.epochs)
        total = time.perf_counter() - started
        return {
            "features": {"seconds": features, "extrapolated": False, "right": self._test(folder / "features")},
            "training": {
                "what": plans[best],
                "passes": len(trained) - 1,
                "seconds": total,
                "right": self._test(folder / "model"),
                "curve": [[features, solved[0]["validation_accuracy"]], *_curve(trained, total)],
            },
        }

    def round(self) -> float:
        """Returns images per second of fine-tuning all layers: the second of two short epochs."""
        folder = self._workspace("rounds")
        dataset = Path(self._task.short)
        if not (folder / "plans").exists():
            self._ranks = self._plan(dataset, folder)
        settings = {"settings": "frozen_groups=0", "batch_size": self._task.batch}
        rows = self._fine_tune(dataset, folder, "model", self._ranks.index("fine_tuning"), epochs=2, **settings)
        return float(rows[-1]["images_per_second"])

    def whole_run(self, dataset: str) -> None:
        """Runs the steps on another dataset, one epoch: for its memory."""
        folder = self._workspace(Path(dataset).name + "-work")
        plans = self._plan(Path(dataset), folder)
        self._fine_tune(Path(dataset), folder, "model", plans.index("fine_tuning"), epochs=1)

    def _workspace(self, name: str) -> Path:
        folder = Path(self._task.work) / name
        os.environ["GRAFTLINE_WORKSPACE"] = str(folder)
        return folder

    def _plan(self, dataset: Path, folder: Path) -> list[str]:
        """Returns the strategies of the ranked plans."""
        from graftline import augment, select_strategy

        augment(dataset, folder / "policy")
        how = {"backbones": self._task.backbone, "image_size": self._task.side}
        plans = select_strategy(dataset, folder / "policy", folder / "plans", **how)
        return [plan.strategy for plan in plans.plans]

    def _fine_tune(self, dataset: Path, folder: Path, out: str, rank: int, **how: Any) -> list[dict[str, float]]:
        """Returns the history: the solved head, then one row per epoch."""
        from graftline import fine_tune

        fine_tune(dataset, folder / "policy", folder / "plans", folder / out, rank=rank + 1, **how)
        return json.loads((folder / out / "history.json").read_text())

    def _test(self, folder: Path) -> int:
        """Returns how many test images a model gets right."""
        from graftline.data.dataset import load_images, open_split
        from graftline.models.predict import predict
        from graftline.models.trained import load_trained

        record, model = load_trained(folder)
        dataset = Path(self._task.dataset)
        images = load_images(dataset, "test", record.image_size, record.interpolation)
        probabilities = predict(model, images, record.mean, record.std)
        return int((probabilities.argmax(1) == open_split(dataset, "test").labels).sum())


def _curve(history: list[dict[str, float]], total: float) -> list[list[float]]:
    """Returns seconds and validation accuracy after each epoch; all that is no epoch counts before the first."""
    epochs = history[1:]
    spent = total - sum(row["seconds"] for row in epochs)
    points = []
    for row in epochs:
        spent += row["seconds"]
        points.append([spent, row["validation_accuracy"]])
    return points
