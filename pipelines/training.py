"""What comes after `version_data`, shared by the pipelines `train` and `retrain`.

A KFP cluster's cache looks at the names of input artifacts, not at their content; each task therefore also gets the
hash of its inputs' records as a plain parameter (`inputs_version`). The candidates are trained side by side, on a
laptop one after another; the test images are read only when one of them has been chosen.
"""

from typing import NamedTuple

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Model

from graftline.components.augment import augment
from graftline.components.choose_model import choose_model
from graftline.components.evaluate import evaluate
from graftline.components.export_onnx import export_onnx
from graftline.components.fine_tune import fine_tune
from graftline.components.register_model import register_model
from graftline.components.select_strategy import select_strategy
from graftline.pipelines.inputs import Inputs
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
    inputs: Inputs,
    *,
    champion: dsl.PipelineTask | None = None,
    register_anew: bool = False,
) -> Outputs:
    """Adds all that comes after `version_data` to the pipeline that is being built.

    Args:
        versioned: The task of `version_data`.
        inputs: The pipeline's inputs; each task gets those that its component has a parameter for.
        champion: The task of `fetch_champion`, where there may be weights to start from.
        register_anew: Whether to ask the registry each time, as another champion may have come meanwhile.

    Returns:
        The artifacts of all steps.
    """
    data = {"dataset": versioned.outputs["dataset"], "data_version": versioned.outputs["Output"]}
    policy = augment(**inputs.of(augment), **data)
    start = {"champion": champion.outputs["champion"]} if champion else {}
    known = f" {champion.outputs['Output']}" if champion else ""
    plans = select_strategy(
        **inputs.of(select_strategy),
        **data,
        **start,
        policy=policy.outputs["policy"],
        inputs_version=f"{policy.outputs['Output']}{known} {inputs['weights_fingerprint']}",
    )
    with dsl.ParallelFor(plans.outputs["Output"], name="candidates", parallelism=at_a_time()) as candidate:
        trained = fine_tune(
            **inputs.of(fine_tune),
            **start,
            dataset=versioned.outputs["dataset"],
            policy=policy.outputs["policy"],
            plans=plans.outputs["plans"],
            rank=candidate.rank,
            data_version=candidate.data_version,
            inputs_version=candidate.inputs_version,
        )
    chosen = choose_model(
        **inputs.of(choose_model),
        models=dsl.Collected(trained.outputs["model"]),
        data_version=data["data_version"],
        inputs_version=dsl.Collected(trained.outputs["Output"]),
    )
    finished = {**data, "model": chosen.outputs["model"], "inputs_version": chosen.outputs["Output"]}
    evaluated = evaluate(**inputs.of(evaluate), **finished)
    exported = export_onnx(**inputs.of(export_onnx), **finished)
    registered = register_model(
        **inputs.of(register_model),
        **data,
        bundle=exported.outputs["bundle"],
        evaluation=evaluated.outputs["evaluation"],
        model=chosen.outputs["model"],
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
