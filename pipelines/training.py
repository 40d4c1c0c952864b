"""What comes after `version_data`, shared by the pipelines `train` and `retrain`.

A KFP cluster's cache looks at the names of input artifacts, not at their content; each task therefore also gets the
hash of its inputs' records as a plain parameter (`inputs_version`). The candidates are trained side by side, on a
laptop one after another; the test images are read only when one of them has been chosen.
"""

from typing import Any, NamedTuple

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Model

from graftline.components.augment import augment
from graftline.components.choose_model import choose_model
from graftline.components.evaluate import evaluate
from graftline.components.export_onnx import export_onnx
from graftline.components.fine_tune import fine_tune
from graftline.components.register_model import register_model
from graftline.components.select_strategy import select_strategy
from graftline.pipelines.resources import at_a_time, place


class Outputs(NamedTuple):
    """The artifacts of a whole run."""

    dataset: Dataset
    policy: Artifact
    plans: Artifact
    model: Model
    evaluation: Artifact
    bundle: Model
    registration: Artifact


def train_on(
    versioned: dsl.PipelineTask,
    *,
    champion: dsl.PipelineTask | None = None,
    flips: str,
    backbones: str,
    strategy: str,
    image_size: int,
    candidates: int,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    settings: str,
    device: str,
    processes: int,
    checkpoints: str,
    calibration_images: int,
    min_agreement: float,
    seed: int,
    code_version: str,
    weights_fingerprint: str,
    registration: dict[str, Any],
    register_anew: bool = False,
) -> Outputs:
    """Adds all that comes after `version_data` to the pipeline that is being built.

    Args:
        versioned: The task of `version_data`.
        champion: The task of `fetch_champion`, where there may be weights to start from.
        flips: This and the next ones as in `train`.
        backbones: Candidates.
        strategy: How to transfer.
        image_size: Side of the input.
        candidates: How many plans are trained.
        epochs: Passes.
        batch_size: Images per step.
        learning_rate: Peak rate.
        settings: Further settings of the plan.
        device: Where to train.
        processes: How many train together.
        checkpoints: Where to keep checkpoints.
        calibration_images: For int8.
        min_agreement: For int8.
        seed: Seed.
        code_version: For the cache.
        weights_fingerprint: For the cache: which backbones are candidates depends on the weights at hand.
        registration: Options of `register_model`.
        register_anew: Whether to ask the registry each time, as another champion may have come meanwhile.

    Returns:
        The artifacts of all steps.
    """
    data = {
        "dataset": versioned.outputs["dataset"],
        "data_version": versioned.outputs["Output"],
        "code_version": code_version,
    }
    policy = augment(**data, flips=flips, seed=seed)
    start = {"champion": champion.outputs["champion"]} if champion else {}
    known = f" {champion.outputs['Output']}" if champion else ""
    plans = select_strategy(
        **data,
        **start,
        policy=policy.outputs["policy"],
        backbones=backbones,
        strategy=strategy,
        image_size=image_size,
        candidates=candidates,
        seed=seed,
        inputs_version=f"{policy.outputs['Output']}{known} {weights_fingerprint}",
    )
    with dsl.ParallelFor(plans.outputs["Output"], name="candidates", parallelism=at_a_time()) as candidate:
        trained = fine_tune(
            dataset=versioned.outputs["dataset"],
            policy=policy.outputs["policy"],
            plans=plans.outputs["plans"],
            **start,
            rank=candidate.rank,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            settings=settings,
            seed=seed,
            device=device,
            processes=processes,
            checkpoints=checkpoints,
            code_version=code_version,
            data_version=candidate.data_version,
            inputs_version=candidate.inputs_version,
        )
    chosen = choose_model(
        models=dsl.Collected(trained.outputs["model"]),
        code_version=code_version,
        data_version=data["data_version"],
        inputs_version=dsl.Collected(trained.outputs["Output"]),
    )
    finished = {**data, "model": chosen.outputs["model"], "inputs_version": chosen.outputs["Output"]}
    evaluated = evaluate(**finished, seed=seed)
    exported = export_onnx(**finished, calibration_images=calibration_images, min_agreement=min_agreement, seed=seed)
    registered = register_model(
        **data,
        bundle=exported.outputs["bundle"],
        evaluation=evaluated.outputs["evaluation"],
        model=chosen.outputs["model"],
        **registration,
        inputs_version=f"{chosen.outputs['Output']} {exported.outputs['Output']} {evaluated.outputs['Output']}",
    )
    place(versioned, policy, plans, trained, chosen, evaluated, exported, registered)
    if register_anew:
        registered.set_caching_options(False)
    return Outputs(
        versioned.outputs["dataset"],
        policy.outputs["policy"],
        plans.outputs["plans"],
        chosen.outputs["model"],
        evaluated.outputs["evaluation"],
        exported.outputs["bundle"],
        registered.outputs["registration"],
    )
