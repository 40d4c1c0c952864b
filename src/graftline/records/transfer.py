"""Records of how to transfer."""

from enum import Enum
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from graftline.records.base import Interval, Part, Record

Strategy = Literal["feature_extraction", "fine_tuning", "progressive_unfreezing"]
Schedule = Literal["constant", "cosine", "warm_restarts", "one_cycle", "plateau"]
Balance = Literal["none", "class_weights", "sampling"]


class ProbeEvidence(Part):
    """What a cross-validated linear probe on frozen features measured on the training and validation images.

    Attributes:
        accuracy: Cross-validated accuracy with its Wilson interval.
        macro_f1: Cross-validated macro-F1.
        folds: Number of folds.
        regularisation: The inverse L2 strength C that was best.
        weights: SHA-256 of the tensors that made the features, and of how images are made ready for them.
    """

    accuracy: Interval
    macro_f1: float
    folds: int
    regularisation: float
    weights: str = ""


class Mark(Enum):
    """What is told of a setting beside its default and its range."""

    BASIC = "every training has it: it is told of a plan even at its default"
    HEAD = "it changes a solved head too, not only layers that are trained"


class Settings(Part):
    """Every setting of a plan that can be changed, each with its default, its range and a sentence.

    From here come `--settings`, MLflow's parameters, the report's table and the lists in the documents. The default of
    a setting that is not `BASIC` leaves it out, and so it is what records mean that were written before there was one.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    image_size: Annotated[int, Mark.BASIC, Mark.HEAD] = Field(
        default=224, ge=1, description="Side of the square input in pixels: what the weights were made for."
    )
    epochs: Annotated[int, Mark.BASIC] = Field(
        default=6,
        ge=0,
        description="Passes over the training images: 6 to 24, so that few images make some 300 steps too; another "
        "number is spread over the stages in proportion. Feature extraction has none: the head is solved.",
    )
    batch_size: Annotated[int, Mark.BASIC] = Field(default=32, ge=1, description="Images per optimizer step.")
    learning_rate: Annotated[float, Mark.BASIC] = Field(
        default=2e-4,
        gt=0,
        description="Peak rate of the last layers before the head: 5e-4 in bold plans, else 2e-4; the head is solved "
        "beforehand and trains at a fifth (from random weights: at the same).",
    )
    layer_decay: Annotated[float, Mark.BASIC] = Field(
        default=0.9, gt=0, le=1, description="Each group towards the stem gets its neighbour's rate times this."
    )
    frozen_groups: int = Field(
        default=0,
        ge=0,
        description="Layer groups from the stem on that stay frozen: 3 in fine-tuning that is not bold, on up to "
        "10,000 images.",
    )
    schedule: Annotated[Schedule, Mark.BASIC] = Field(
        default="cosine", description="Course of the rate after warm-up; `one_cycle` has a warm-up of its own."
    )
    warmup_steps: int = Field(
        default=0, ge=0, description="Optimizer steps of linear warm-up: 50, but at most a sixth of all."
    )
    weight_decay: float = Field(
        default=0.0, ge=0, description="Decoupled weight decay, not applied to norms and biases."
    )
    label_smoothing: float = Field(
        default=0.0, ge=0, lt=1, description="Share of each label that is spread over all classes."
    )
    ema_decay: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Decay of the moving average of the weights, which is what is kept; 0: the weights themselves.",
    )
    group_rates: list[Annotated[float, Field(ge=0)]] = Field(
        default_factory=list,
        description="Peak rate of each layer group from stem to head, in place of the rate and its decay.",
    )
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Share of the features dropped before the head.")
    drop_path: float = Field(default=0.0, ge=0, lt=1, description="Stochastic depth, where the backbone has it.")
    mixup: float = Field(
        default=0.0,
        ge=0,
        description='Alpha of MixUp (Zhang et al. 2018, "mixup: Beyond Empirical Risk Minimization").',
    )
    cutmix: float = Field(
        default=0.0,
        ge=0,
        description='Alpha of CutMix (Yun et al. 2019, "CutMix"); with MixUp, each batch draws one of the two.',
    )
    l2_sp: float = Field(
        default=0.0,
        ge=0,
        description='Pull towards the pretrained weights (Li et al. 2018, "Explicit Inductive Bias for Transfer '
        'Learning with Convolutional Networks") in place of weight decay on the backbone and decoupled like it: each '
        "step goes the share rate × strength of the way back.",
    )
    balance: Annotated[Balance, Mark.HEAD] = Field(
        default="none",
        description="Against rare classes: weights in the loss, or drawing images of every class equally often; with "
        "either, the solved head and the validation loss that chooses weights count every class alike.",
    )
    views: Annotated[int, Mark.HEAD] = Field(
        default=1,
        ge=1,
        description="Views of each training image that the head is solved on: as it is, and augmented ones besides.",
    )
    patience: int = Field(
        default=0,
        ge=0,
        description="Epochs without a lower validation loss after which a stage ends; 0: never early.",
    )
    accumulation: int = Field(
        default=1,
        ge=1,
        description="Parts that a batch is computed in, one after the other, to save memory; the step stays the same, "
        "but for the draws of dropout and stochastic depth.",
    )
    from_scratch: bool = Field(
        default=False,
        description="Random weights, no solved head, all layers train unless `frozen_groups` is given too, BatchNorm "
        "that learns its statistics: for those who mean it.",
    )
    stage_epochs: list[Annotated[int, Field(ge=0)]] = Field(
        default_factory=list,
        description="Progressive unfreezing only: epochs of each stage from head to stem; they sum to `epochs`.",
    )


class TransferPlan(Settings):
    """How to transfer one backbone to the data: what is chosen among plans (`--rank`), and the settings.

    Attributes:
        backbone: A timm model name.
        strategy: One of the three strategies.
        champion: SHA-256 of the record of the champion whose weights it starts from; empty: pretrained ones.
        evidence: The probe's measurement, when one was made.
        reasons: Why, in plain words.
    """

    backbone: str
    strategy: Strategy
    champion: str = ""
    evidence: ProbeEvidence | None = None
    reasons: list[str]

    def in_force(self) -> dict[str, Any]:
        """Returns the settings that make a difference in this plan, by name, in the order of `Settings`."""
        idle = self._overruled()
        return {
            name: getattr(self, name)
            for name, field in Settings.model_fields.items()
            if name not in idle
            and (self.epochs or Mark.HEAD in field.metadata)
            and (Mark.BASIC in field.metadata or getattr(self, name) != field.get_default(call_default_factory=True))
        }

    def _overruled(self) -> set[str]:
        """Returns the settings that another one, or the strategy, puts out of force."""
        overruled = set()
        if self.group_rates:
            overruled |= {"learning_rate", "layer_decay"}
        if self.schedule == "one_cycle":
            overruled.add("warmup_steps")
        if self.from_scratch:
            overruled.add("views")
        if self.strategy != "progressive_unfreezing":
            overruled.add("stage_epochs")
        return overruled

    @property
    def name(self) -> str:
        """Backbone and way of transfer, for people; it tells the plans for one set of images apart."""
        how = self.strategy.replace("_", " ")
        if self.strategy == "fine_tuning" and not self.frozen_groups:
            how = f"{how} of all layers at {self.learning_rate:g}"
        return f"{self.backbone}, {how}{' from the champion' if self.champion else ''}"


class TransferPlans(Record):
    """Plans ranked from best to worst.

    Attributes:
        data_version: The data they are for.
        policy: SHA-256 of the augmentation policy's record.
        plans: At least one.
        candidates: Ranks of those that are to be trained, 1 is the best; the choice among them falls on validation.
    """

    step = "select_strategy"
    kind: Literal["transfer_plans"] = "transfer_plans"
    data_version: str
    policy: str
    plans: list[TransferPlan] = Field(min_length=1)
    candidates: list[int] = Field(default=[1], min_length=1)
