"""From rules and evidence to a ranked list of plans."""

import math
from collections.abc import Sequence
from typing import Any, Literal

from graftline.models.backbones import input_spec
from graftline.records import Strategy, TransferPlan
from graftline.transfer.evidence import BackboneEvidence
from graftline.transfer.rules import GOOD_ENOUGH, LARGE, Choice, rank_strategies
from graftline.transfer.start import Champion

_RATE, _BOLD_RATE = 2e-4, 5e-4
_DECAY = 0.9
_EARLY_GROUPS = 3
_FEWEST_EPOCHS, _MOST_EPOCHS, _FEWEST_STEPS = 6, 24, 300
_BATCH = 32
_WARMUP_STEPS, _WARMUP_SHARE = 50, 6  # at most a sixth of all steps


def rank_plans(
    evidence: Sequence[BackboneEvidence],
    images: int,
    wanted: Strategy | Literal["auto"] = "auto",
    image_size: int = 0,
) -> list[TransferPlan]:
    """Ranks plans: backbones by their probe (within a standard error the smaller one first), strategies by the rules.

    Args:
        evidence: At least one measured backbone.
        images: Number of training and validation images.
        wanted: A strategy that goes first whatever the rules say.
        image_size: Side of the input in pixels; 0: what the weights were made for.

    Returns:
        All strategies of the best backbone, then the first strategy of each other one.
    """
    ordered = _rank_backbones(evidence)
    plans = []
    for place, item in enumerate(ordered):
        choices = rank_strategies(images, item.domain_differs, item.probe.accuracy.low)
        if wanted != "auto":
            choices = [Choice(wanted, "asked for"), *(c for c in choices if c.bold or c.strategy != wanted)]
        why = _backbone_reason(item, place, len(ordered))
        plans.append([make_plan(item, choice, images, image_size, why) for choice in choices])
    return plans[0] + [others[0] for others in plans[1:]]


def candidate_ranks(
    plans: Sequence[TransferPlan], candidates: int, wanted: Strategy | Literal["auto"] = "auto"
) -> list[int]:
    """Returns the ranks of the plans that are to be trained: the first ones, and one from the champion's weights.

    Args:
        plans: Ranked plans, best first.
        candidates: How many are wanted; 0: one, but two where the first is feature extraction, which is only a baseline
            where it leaves something to gain.
        wanted: A strategy that is asked for, of which 0 trains no more than one plan.
    """
    first = plans[0]
    baseline = wanted == "auto" and first.strategy == "feature_extraction"
    if not candidates:
        candidates = 2 if baseline and first.evidence and first.evidence.accuracy.low < GOOD_ENOUGH else 1
    return [rank for rank, plan in enumerate(plans, 1) if rank <= candidates or plan.champion]


def _rank_backbones(evidence: Sequence[BackboneEvidence]) -> list[BackboneEvidence]:
    best = max(item.probe.accuracy.value for item in evidence)
    half = max((item.probe.accuracy.high - item.probe.accuracy.low) / 4 for item in evidence)
    tied = [item for item in evidence if item.probe.accuracy.value >= best - half]
    rest = [item for item in evidence if item not in tied]
    return [
        *sorted(tied, key=lambda item: item.parameters),
        *sorted(rest, key=lambda item: -item.probe.accuracy.value),
    ]


def _backbone_reason(item: BackboneEvidence, place: int, candidates: int) -> str:
    measured = f"a linear probe on its frozen features reaches {item.probe.accuracy} in {item.probe.folds}-fold"
    ranked = f"{measured} cross-validation, place {place + 1} of {candidates}"
    return f"{item.backbone}: {ranked} (within a standard error the smaller model goes first)"


def make_plan(
    item: BackboneEvidence, choice: Choice, images: int, image_size: int, backbone_reason: str
) -> TransferPlan:
    """Fills in the settings of one strategy on one backbone.

    Differential rates: the last block at the peak, each one towards the stem at a fixed share of its neighbour's, so
    that early layers, which are general, hardly move. The solved head trains at a fifth of the peak.
    """
    frozen = 0 if choice.bold else _frozen_groups(choice.strategy, images)
    rate = _BOLD_RATE if choice.bold else _RATE
    return TransferPlan(
        backbone=item.backbone,
        image_size=image_size or input_spec(item.backbone).image_size,
        evidence=item.probe,
        reasons=[choice.reason, backbone_reason, _domain_reason(item), *_rate_reason(choice.strategy, frozen, rate)],
        **_settings(choice.strategy, images, frozen, rate),
    )


def plan_from_champion(
    champion: Champion, images: int, wanted: Strategy | Literal["auto"] = "auto", image_size: int = 0
) -> TransferPlan:
    """Fills in the settings for training on from the champion's weights.

    There is no probe: on images that the champion has learned by heart, cross-validation would flatter it. What it is
    worth shows on the validation images, which it was not trained on.

    Args:
        champion: The model.
        images: Number of training and validation images.
        wanted: A strategy that is asked for; auto trains on with the early layers frozen.
        image_size: Side of the input in pixels; 0: the champion's.
    """
    record = champion.record
    strategy: Strategy = "fine_tuning" if wanted == "auto" else wanted
    frozen = _frozen_groups(strategy, images)
    head = (
        f"the champion knows other classes ({', '.join(record.classes)}): its backbone is taken, the head is solved"
        if champion.rows is None
        else "the classes are the champion's: its head stays, unless a newly solved one is better on validation"
    )
    origin = f"from the weights of the champion, model {record.sha256[:16]}, trained on {record.data_version}"
    rates = [] if strategy == "feature_extraction" else [_rates(frozen, _RATE)]
    return TransferPlan(
        backbone=record.plan.backbone,
        image_size=image_size or record.image_size,
        champion=record.sha256,
        reasons=[origin, head, *rates],
        **_settings(strategy, images, frozen, _RATE),
    )


def _frozen_groups(strategy: Strategy, images: int) -> int:
    return _EARLY_GROUPS if strategy == "fine_tuning" and images <= LARGE else 0


def _settings(strategy: Strategy, images: int, frozen: int, rate: float) -> dict[str, Any]:
    """Returns what does not depend on the backbone."""
    epochs = 0 if strategy == "feature_extraction" else _epochs(images)
    steps = epochs * max(1, images // _BATCH)
    return {
        "strategy": strategy,
        "epochs": epochs,
        "batch_size": _BATCH,
        "learning_rate": rate,
        "layer_decay": _DECAY,
        "frozen_groups": frozen,
        "schedule": "cosine",
        "warmup_steps": min(_WARMUP_STEPS, steps // _WARMUP_SHARE),
        "weight_decay": 0.02,
        "label_smoothing": 0.05,
        "ema_decay": 0.97,
        "stage_epochs": _stage_epochs(epochs) if strategy == "progressive_unfreezing" else [],
    }


def _epochs(images: int) -> int:
    """Returns enough passes for some hundred steps: few images want more passes, not fewer steps."""
    return min(max(_FEWEST_EPOCHS, math.ceil(_FEWEST_STEPS * _BATCH / images)), _MOST_EPOCHS)


def _stage_epochs(epochs: int) -> list[int]:
    """Head and last block, then half of the network, then all: the last stage is the longest."""
    short = epochs // _FEWEST_EPOCHS
    return [short, short, epochs - 2 * short]


def _domain_reason(item: BackboneEvidence) -> str:
    verdict = "the data differs from the backbone's domain" if item.domain_differs else "no sign of a domain difference"
    return f"{verdict}: probe accuracy on the middle layers minus that on the last is {item.middle_gain}"


def _rate_reason(strategy: Strategy, frozen: int, rate: float) -> list[str]:
    if strategy == "feature_extraction":
        return ["the head is solved to convergence on cached features instead of stepping at 1e-3"]
    return [f"{_rates(frozen, rate)}; the head starts from the solved probe (Kumar et al. 2022, LP-FT)"]


def _rates(frozen: int, rate: float) -> str:
    layers = f"the first {frozen} layer groups stay frozen" if frozen else "all layers train"
    return f"{layers}; rates fall from {rate:g} at the last block by {_DECAY:g} per group towards the stem"
