"""Records of a trained model and of what it does."""

from typing import Any, Literal

from pydantic import Field

from graftline.records.base import FileEntry, Interval, Part, Record
from graftline.records.transfer import TransferPlan


class TrainingEvent(Part):
    """Something that a guard noticed while training.

    Attributes:
        epoch: In which epoch, 1-based; 0: before training.
        kind: What.
        message: In plain words.
    """

    epoch: int
    kind: Literal["small_validation", "rate_lowered", "overfitting", "class_never_predicted", "stopped_early"]
    message: str


class TrainedModel(Record):
    """A fine-tuned classifier and where it came from.

    Attributes:
        data_version: The data it was trained on.
        policy: SHA-256 of the augmentation policy's record.
        plan: The plan that was carried out.
        pretrained: Content hash of the weights it started from, those of a new head left out.
        learned_before: Data versions that the weights it started from were trained on, newest first; empty when they
            are those of a pretrained backbone.
        classes: Class names in the order of the outputs.
        image_size: Side of the square input in pixels.
        mean: Per-channel mean subtracted from RGB in [0, 1].
        std: Per-channel divisor after that.
        interpolation: How images are resized ("bicubic" or "bilinear").
        parameters: Number of parameters.
        seed: Seed of head initialisation, data order and augmentation.
        kept_epoch: Epoch whose weights were kept, 1-based (0: the start, with its head, before any epoch).
        validation_accuracy: Of the kept weights on the validation split.
        events: What the guards noticed.
        weights: The safetensors file.
    """

    step = "fine_tune"
    kind: Literal["trained_model"] = "trained_model"
    data_version: str
    policy: str
    plan: TransferPlan
    pretrained: str
    learned_before: list[str] = Field(default_factory=list)
    classes: list[str]
    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Literal["bicubic", "bilinear"]
    parameters: int
    seed: int
    kept_epoch: int
    validation_accuracy: Interval
    events: list[TrainingEvent] = Field(default_factory=list)
    weights: FileEntry


class ClassMetrics(Part):
    """Metrics of one class, by key (`graftline.evaluation.metrics.CLASS_METRICS`)."""

    name: str
    metrics: dict[str, Interval]

    @classmethod
    def _in_present_form(cls, data: Any) -> Any:
        """Reads those of an evaluation of schema 1, whose metrics were fields."""
        return _gathered(data, ("precision", "recall"))


class Evaluation(Record):
    """What a model does on a split it was not trained on.

    Attributes:
        data_version: The data.
        model: SHA-256 of the model's record.
        split: The split that was read.
        metrics: Metrics over all images, by key (`graftline.evaluation.metrics.METRICS`).
        classes: Per-class metrics in label order.
        confusion: Counts, rows are true classes, columns predictions.
        accuracy_by_domain: Accuracy for each domain; empty when there are none.
        files: Report, metrics, figures, predictions.
    """

    step = "evaluate"
    schema_version: Literal[2] = 2  # type: ignore[assignment]  # each record counts its own forms
    kind: Literal["evaluation"] = "evaluation"
    data_version: str
    model: str
    split: str
    metrics: dict[str, Interval]
    classes: list[ClassMetrics]
    confusion: list[list[int]]
    accuracy_by_domain: dict[str, Interval] = Field(default_factory=dict)
    files: list[FileEntry]

    @property
    def accuracy(self) -> Interval:
        """The share of right answers."""
        return self.metrics["accuracy"]

    @property
    def macro_f1(self) -> Interval:
        """The mean of the classes' F1."""
        return self.metrics["macro_f1"]

    @classmethod
    def _in_present_form(cls, data: Any) -> Any:
        """Reads schema 1, whose metrics were fields."""
        of_before = isinstance(data, dict) and data.get("schema_version") == 1
        names = ("accuracy", "macro_f1", "calibration_error")
        return _gathered(data, names) | {"schema_version": 2} if of_before else data


def _gathered(data: Any, names: tuple[str, ...]) -> Any:
    """Returns JSON with these fields under `metrics`; as it is where one is missing, for validation to refuse."""
    if not isinstance(data, dict) or not all(name in data for name in names):
        return data
    rest = {name: value for name, value in data.items() if name not in names}
    return rest | {"metrics": {name: data[name] for name in names}}
