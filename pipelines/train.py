"""The one pipeline, the same on a laptop (`graftline run`) and on a cluster (`graftline compile`).

A KFP cluster's cache looks at the names of input artifacts, not at their content; each task therefore also gets the
hash of its inputs' records as a plain parameter (`inputs_version`).
"""

from typing import NamedTuple

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Model

from graftline.components.augment import augment
from graftline.components.evaluate import evaluate
from graftline.components.export_onnx import export_onnx
from graftline.components.fine_tune import fine_tune
from graftline.components.register_model import register_model
from graftline.components.select_strategy import select_strategy
from graftline.components.version_data import version_data
from graftline.pipelines.resources import place


class Outputs(NamedTuple):
    """The artifacts of a whole run."""

    dataset: Dataset
    policy: Artifact
    plans: Artifact
    model: Model
    evaluation: Artifact
    bundle: Model
    registration: Artifact


@dsl.pipeline(name="graftline-train", display_name="graftline: train and ship an image classifier")
def train(
    source: str,
    name: str = "graftline",
    validation_fraction: float = 0.15,
    test_fraction: float = 0.2,
    registry: str = "",
    flips: str = "auto",
    backbones: str = "",
    strategy: str = "auto",
    image_size: int = 0,
    rank: int = 1,
    epochs: int = 0,
    batch_size: int = 0,
    learning_rate: float = 0.0,
    settings: str = "",
    device: str = "auto",
    checkpoints: str = "",
    calibration_images: int = 200,
    min_agreement: float = 0.97,
    tracking_uri: str = "",
    seed: int = 0,
    code_version: str = "",
    source_fingerprint: str = "",
) -> Outputs:
    """Versions the data, chooses how to transfer, trains, measures, exports and registers."""
    versioned = version_data(
        source=source,
        validation_fraction=validation_fraction,
        test_fraction=test_fraction,
        registry=registry,
        code_version=code_version,
        source_fingerprint=source_fingerprint,
    )
    data = {
        "dataset": versioned.outputs["dataset"],
        "data_version": versioned.outputs["Output"],
        "code_version": code_version,
    }
    policy = augment(**data, flips=flips, seed=seed)
    chosen = {**data, "policy": policy.outputs["policy"]}
    plans = select_strategy(
        **chosen,
        backbones=backbones,
        strategy=strategy,
        image_size=image_size,
        seed=seed,
        inputs_version=policy.outputs["Output"],
    )
    trained = fine_tune(
        **chosen,
        plans=plans.outputs["plans"],
        rank=rank,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        settings=settings,
        seed=seed,
        device=device,
        checkpoints=checkpoints,
        inputs_version=plans.outputs["Output"],
    )
    finished = {**data, "model": trained.outputs["model"], "inputs_version": trained.outputs["Output"]}
    evaluated = evaluate(**finished, seed=seed)
    exported = export_onnx(**finished, calibration_images=calibration_images, min_agreement=min_agreement, seed=seed)
    registered = register_model(
        **data,
        bundle=exported.outputs["bundle"],
        evaluation=evaluated.outputs["evaluation"],
        name=name,
        tracking_uri=tracking_uri,
        inputs_version=f"{exported.outputs['Output']} {evaluated.outputs['Output']}",
    )
    place(versioned, policy, plans, trained, evaluated, exported, registered)
    return Outputs(
        versioned.outputs["dataset"],
        policy.outputs["policy"],
        plans.outputs["plans"],
        trained.outputs["model"],
        evaluated.outputs["evaluation"],
        exported.outputs["bundle"],
        registered.outputs["registration"],
    )
