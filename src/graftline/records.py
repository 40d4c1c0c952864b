"""The typed, versioned records that travel between steps.

Every step writes a folder with a `record.json` and its files. A record names its inputs by content hash, so that a
chain of records leads from an edge file back to the data. Records hold no machine paths and no times, so that the same
work gives the same record.
"""

from pathlib import Path
from typing import Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from graftline.errors import GraftlineError
from graftline.files import sha256_bytes, sha256_file, write_atomic

RECORD_FILE = "record.json"
Strategy = Literal["feature_extraction", "fine_tuning", "progressive_unfreezing"]
Schedule = Literal["constant", "cosine", "warm_restarts", "one_cycle", "plateau"]
Balance = Literal["none", "class_weights", "sampling"]
R = TypeVar("R", bound="Record")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Record(_Part):
    """Base of all records: strict, immutable, with a version of its own form."""

    schema_version: Literal[1] = 1

    def write(self, folder: Path) -> Self:
        """Writes `record.json` into `folder` and returns the record."""
        write_atomic(folder / RECORD_FILE, self.model_dump_json(indent=2) + "\n")
        return self

    @property
    def sha256(self) -> str:
        """The hexadecimal SHA-256 of the record's canonical JSON: the name by which later records refer to it."""
        return sha256_bytes(self.model_dump_json().encode())


def read_record(folder: Path, kind: type[R]) -> R:
    """Reads the record of a step's output folder.

    Args:
        folder: A folder that a step wrote.
        kind: The expected record class.

    Raises:
        GraftlineError: There is no record, or it is of another kind or form; the message names the step that writes it.
    """
    path = folder / RECORD_FILE
    if not path.is_file():
        raise GraftlineError(
            f"{folder} is not an output of `graftline {_WRITTEN_BY[kind.__name__]}`: it has no {RECORD_FILE}"
        )
    try:
        return kind.model_validate_json(path.read_text())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise GraftlineError(
            f"{path} is not a {kind.__name__} record of this version of graftline ({where}: {first['msg']}): "
            f"run `graftline {_WRITTEN_BY[kind.__name__]}` again"
        ) from error


class Interval(_Part):
    """A measured number with its 95 % interval.

    Attributes:
        value: The point estimate.
        low: Lower end of the interval.
        high: Upper end of the interval.
        n: Number of images (or runs) it stands on.
    """

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}] (n={self.n})"


class FileEntry(_Part):
    """One file of an output folder.

    Attributes:
        file: Path relative to the folder.
        sha256: Hexadecimal SHA-256 of the content.
        bytes: Size.
    """

    file: str
    sha256: str
    bytes: int


class DataVersion(Record):
    """A version of the data: the same content gives the same record, wherever and in whatever order it was read.

    Attributes:
        version: `d` and 16 hexadecimal digits of the hash over all rows (content, label, split, group, domain).
        classes: Class names in label order.
        domains: Domain names, sorted; empty when the source has none.
        counts: Number of images by split, then by class.
        images: Number of images in all.
        median_width: Median width in pixels.
        median_height: Median height in pixels.
        grey: Whether every image is grey (equal channels).
        shards: The Parquet files.
    """

    kind: Literal["data_version"] = "data_version"
    version: str
    classes: list[str]
    domains: list[str]
    counts: dict[str, dict[str, int]]
    images: int
    median_width: int
    median_height: int
    grey: bool
    shards: list[FileEntry]


class AugmentationPolicy(Record):
    """Random changes to training images; all probabilities in [0, 1].

    Attributes:
        data_version: The data it was chosen for.
        crop_scale: Range of the random resized crop's area, as a share of the image.
        crop_ratio: Range of its aspect ratio (width / height).
        horizontal_flip: Probability.
        vertical_flip: Probability.
        transpose: Probability of swapping rows and columns (with both flips: all rotations by 90 degrees).
        brightness: Jitter strength, 0 is none.
        contrast: Jitter strength, 0 is none.
        saturation: Jitter strength, 0 is none.
        hue: Jitter strength in [0, 0.5], 0 is none.
        reasons: Why, in plain words, one line per decision.
    """

    kind: Literal["augmentation_policy"] = "augmentation_policy"
    data_version: str
    crop_scale: tuple[float, float]
    crop_ratio: tuple[float, float]
    horizontal_flip: float
    vertical_flip: float
    transpose: float
    brightness: float
    contrast: float
    saturation: float
    hue: float
    reasons: list[str]


class ProbeEvidence(_Part):
    """What a cross-validated linear probe on frozen features measured on the training and validation images.

    Attributes:
        accuracy: Cross-validated accuracy with its Wilson interval.
        macro_f1: Cross-validated macro-F1.
        folds: Number of folds.
        regularisation: The inverse L2 strength C that was best.
    """

    accuracy: Interval
    macro_f1: float
    folds: int
    regularisation: float


class TransferPlan(_Part):
    """How to transfer one backbone to the data.

    Attributes:
        backbone: A timm model name.
        strategy: One of the three strategies.
        image_size: Side of the square input in pixels.
        epochs: Passes over the training images (feature extraction: 0, the head is solved).
        batch_size: Images per optimizer step.
        learning_rate: Peak rate of the last layers before the head, which is solved beforehand and trains at a fifth.
        layer_decay: Each group towards the stem gets its neighbour's rate times this, in (0, 1].
        frozen_groups: Number of layer groups, from the stem on, that stay frozen.
        schedule: Course of the rate after warm-up.
        warmup_steps: Optimizer steps of linear warm-up.
        weight_decay: Decoupled weight decay, not applied to norms and biases.
        label_smoothing: In [0, 1).
        ema_decay: Of the moving average of the weights that is kept, in [0, 1); 0: the weights themselves.
        group_rates: Explicit peak rate of each layer group from stem to head, in place of the decay; empty: the decay.
        dropout: Before the head, in [0, 1).
        drop_path: Stochastic depth, where the backbone has it, in [0, 1).
        mixup: Alpha of MixUp (Zhang et al. 2018, "mixup: Beyond Empirical Risk Minimization"); 0: none.
        cutmix: Alpha of CutMix (Yun et al. 2019, "CutMix"); 0: none; with both, each batch draws one of the two.
        l2_sp: Strength of the pull towards the pretrained weights (Li et al. 2018, "Explicit Inductive Bias for
            Transfer Learning with Convolutional Networks"); 0: none.
        balance: Against rare classes: weights in the loss, or drawing images of every class equally often.
        views: Views of each training image that the head is solved on: 1: as it is; more: augmented ones besides.
        patience: Epochs without a lower validation loss after which training ends; 0: never early.
        accumulation: Parts that a batch is computed in, one after the other, to save memory; the result is the same.
        from_scratch: Random weights instead of pretrained ones.
        stage_epochs: Progressive unfreezing only: epochs of each stage from head to stem; sums to `epochs`.
        evidence: The probe's measurement, when one was made.
        reasons: Why, in plain words.
    """

    backbone: str
    strategy: Strategy
    image_size: int
    epochs: int = Field(ge=0)
    batch_size: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    layer_decay: float = Field(gt=0, le=1)
    frozen_groups: int = Field(ge=0)
    schedule: Schedule
    warmup_steps: int = Field(ge=0)
    weight_decay: float = Field(ge=0)
    label_smoothing: float = Field(ge=0, lt=1)
    ema_decay: float = Field(default=0.0, ge=0, lt=1)
    group_rates: list[float] = Field(default_factory=list)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    drop_path: float = Field(default=0.0, ge=0, lt=1)
    mixup: float = Field(default=0.0, ge=0)
    cutmix: float = Field(default=0.0, ge=0)
    l2_sp: float = Field(default=0.0, ge=0)
    balance: Balance = "none"
    views: int = Field(default=1, ge=1)
    patience: int = Field(default=0, ge=0)
    accumulation: int = Field(default=1, ge=1)
    from_scratch: bool = False
    stage_epochs: list[int] = Field(default_factory=list)
    evidence: ProbeEvidence | None = None
    reasons: list[str]


class TransferPlans(Record):
    """Plans ranked from best to worst.

    Attributes:
        data_version: The data they are for.
        policy: SHA-256 of the augmentation policy's record.
        plans: At least one.
    """

    kind: Literal["transfer_plans"] = "transfer_plans"
    data_version: str
    policy: str
    plans: list[TransferPlan] = Field(min_length=1)


class TrainingEvent(_Part):
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
        pretrained: Content hash of the backbone weights it started from.
        classes: Class names in the order of the outputs.
        image_size: Side of the square input in pixels.
        mean: Per-channel mean subtracted from RGB in [0, 1].
        std: Per-channel divisor after that.
        interpolation: How images are resized ("bicubic" or "bilinear").
        parameters: Number of parameters.
        seed: Seed of head initialisation, data order and augmentation.
        kept_epoch: Epoch whose weights were kept, 1-based (0: the solved head before any epoch).
        validation_accuracy: Of the kept weights on the validation split.
        events: What the guards noticed.
        weights: The safetensors file.
    """

    kind: Literal["trained_model"] = "trained_model"
    data_version: str
    policy: str
    plan: TransferPlan
    pretrained: str
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


class ClassMetrics(_Part):
    """Precision and recall of one class, each with its interval (n: images predicted as it; images of it)."""

    name: str
    precision: Interval
    recall: Interval


class Evaluation(Record):
    """What a model does on a split it was not trained on.

    Attributes:
        data_version: The data.
        model: SHA-256 of the model's record.
        split: The split that was read.
        accuracy: Wilson interval.
        macro_f1: Bootstrap interval.
        calibration_error: Expected calibration error of the top probability, 15 bins, bootstrap interval.
        classes: Per-class metrics in label order.
        confusion: Counts, rows are true classes, columns predictions.
        accuracy_by_domain: Accuracy for each domain; empty when there are none.
        files: Report, metrics, figures, predictions.
    """

    kind: Literal["evaluation"] = "evaluation"
    data_version: str
    model: str
    split: str
    accuracy: Interval
    macro_f1: Interval
    calibration_error: Interval
    classes: list[ClassMetrics]
    confusion: list[list[int]]
    accuracy_by_domain: dict[str, Interval] = Field(default_factory=dict)
    files: list[FileEntry]


class Variant(_Part):
    """One form of the model, measured.

    Attributes:
        name: "torch", "fp32" or "int8".
        file: The file in the bundle; empty for torch and for a variant that was not kept.
        bytes: Size of the file as measured (torch: of the safetensors weights).
        latency_ms: Median milliseconds for one image, one thread, preprocessing included; interval: quartiles; n: runs.
        accuracy: On the test images.
        agreement: Share of test images with the same top class as torch.
        max_probability_gap: Largest difference of any probability from torch's.
    """

    name: Literal["torch", "fp32", "int8"]
    file: str
    bytes: int
    latency_ms: Interval
    accuracy: Interval
    agreement: Interval
    max_probability_gap: float


class EdgeBundle(Record):
    """What is shipped: ONNX files with preprocessing inside, labels, parity and lineage.

    Attributes:
        data_version: The data behind the model.
        model: SHA-256 of the model's record.
        classes: Class names in the order of the outputs.
        variants: torch, fp32 and, when it could be made, int8.
        shipped: The file to deploy.
        why: Why that one, in plain words.
        web_page: Whether the bundle holds a page that runs the model in a browser, and if not, why not.
        files: All files.
    """

    kind: Literal["edge_bundle"] = "edge_bundle"
    data_version: str
    model: str
    classes: list[str]
    variants: list[Variant]
    shipped: str
    why: str
    web_page: str
    files: list[FileEntry]

    def variant(self, name: str) -> Variant | None:
        """Returns the variant of that name, None when it was not made."""
        return next((variant for variant in self.variants if variant.name == name), None)


class Registration(Record):
    """What the registry was told.

    Attributes:
        data_version: The data behind the model.
        bundle: SHA-256 of the bundle's record.
        name: Registered model's name.
        version: Its version number.
        alias: "champion" or "challenger".
        reason: Why that alias, in plain words.
        champion_before: Version that was champion before; empty when there was none.
        difference: New accuracy minus the champion's on the same test images (paired interval), None if there was none.
    """

    kind: Literal["registration"] = "registration"
    data_version: str
    bundle: str
    name: str
    version: str
    alias: Literal["champion", "challenger"]
    reason: str
    champion_before: str = ""
    difference: Interval | None = None


class Drift(_Part):
    """Whether a model answers differently to production images than to its test images, labels unseen.

    The probabilities of each class are compared by the two-sample Kolmogorov-Smirnov test; the smallest p-value counts,
    times the number of classes (Bonferroni). Source: S. Rabanser, S. Günnemann and Z. Lipton, "Failing Loudly: An
    Empirical Study of Methods for Detecting Dataset Shift", NeurIPS 2019 (BBSDs).

    Attributes:
        images: Number of production images it was measured on.
        reference: Number of test images.
        distance: Largest distance between the distributions of a class's probability, in [0, 1].
        p_value: Probability of such a distance without drift, corrected for the number of classes.
        detected: Whether that is below 0.05.
    """

    images: int
    reference: int
    distance: float
    p_value: float
    detected: bool


class Change(Record):
    """How a source differs from the champion's data, and whether that is a reason to train again.

    Attributes:
        name: Registered model's name.
        champion: Its present champion; empty when there is none.
        data_version: The data the champion was trained on; empty when that is not known.
        images: Usable images of the source.
        added: Images that the champion's data do not hold, by their pixels.
        removed: Images of the champion's data that are not in the source any more.
        relabelled: Images with another class than there.
        moved: Images that the source puts in another split, domain or group than there.
        drift: Of production images, when some were given.
        retrain: Whether there is a reason.
        reason: In plain words.
    """

    kind: Literal["change"] = "change"
    name: str
    champion: str
    data_version: str
    images: int
    added: int
    removed: int
    relabelled: int
    moved: int
    drift: Drift | None = None
    retrain: bool
    reason: str


_WRITTEN_BY = {
    "DataVersion": "version_data",
    "AugmentationPolicy": "augment",
    "TransferPlans": "select_strategy",
    "TrainedModel": "fine_tune",
    "Evaluation": "evaluate",
    "EdgeBundle": "export_onnx",
    "Registration": "register_model",
    "Change": "detect_change",
}


def list_files(folder: Path) -> list[FileEntry]:
    """Returns an entry for every file below `folder` but the record itself, sorted by path."""
    paths = sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / RECORD_FILE)
    return [
        FileEntry(file=p.relative_to(folder).as_posix(), sha256=sha256_file(p), bytes=p.stat().st_size) for p in paths
    ]
