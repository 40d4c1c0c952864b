"""Records of how to transfer."""

from typing import Literal

from pydantic import Field

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


class TransferPlan(Part):
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
        champion: SHA-256 of the record of the champion whose weights it starts from; empty: pretrained ones.
        stage_epochs: Progressive unfreezing only: epochs of each stage from head to stem; sums to `epochs`.
        evidence: The probe's measurement, when one was made.
        reasons: Why, in plain words.
    """

    backbone: str
    strategy: Strategy
    image_size: int = Field(ge=1)
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
    champion: str = ""
    stage_epochs: list[int] = Field(default_factory=list)
    evidence: ProbeEvidence | None = None
    reasons: list[str]

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
