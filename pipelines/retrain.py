"""Retraining, on a schedule or by hand (`graftline retrain`): only when there is reason to.

`detect_change` decides; without a reason the pipeline ends there. A plan that starts from the champion's weights is
trained beside those that start from a pretrained backbone. Old test images stay test images, and the new model becomes
champion only with evidence: see `register_model`.
"""

from typing import NamedTuple

from kfp import dsl
from kfp.dsl import Artifact

from graftline.components.detect_change import detect_change
from graftline.components.fetch_champion import fetch_champion
from graftline.components.version_data import version_data
from graftline.pipelines.resources import place
from graftline.pipelines.training import train_on


class Outputs(NamedTuple):
    """What is there at the end of every run: those of a condition's tasks cannot be outputs of a pipeline."""

    change: Artifact


@dsl.pipeline(name="graftline-retrain", display_name="graftline: train again when there is reason to")
def retrain(
    source: str,
    production: str = "",
    name: str = "graftline",
    promote: str = "better",
    validation_fraction: float = 0.15,
    test_fraction: float = 0.2,
    registry: str = "",
    flips: str = "auto",
    backbones: str = "",
    strategy: str = "auto",
    image_size: int = 0,
    candidates: int = 0,
    epochs: int = 0,
    batch_size: int = 0,
    learning_rate: float = 0.0,
    settings: str = "",
    device: str = "auto",
    processes: int = 0,
    checkpoints: str = "",
    calibration_images: int = 200,
    min_agreement: float = 0.97,
    tracking_uri: str = "",
    seed: int = 0,
    code_version: str = "",
    source_fingerprint: str = "",
    weights_fingerprint: str = "",
) -> Outputs:
    """Compares the source with the champion's data, and trains a challenger when they differ."""
    changed = detect_change(
        source=source, production=production, name=name, registry=registry, tracking_uri=tracking_uri
    )
    changed.set_caching_options(False)
    place(changed)
    with dsl.If(changed.outputs["Output"] == True, name="changed"):  # noqa: E712 - KFP records the comparison
        versioned = version_data(
            source=source,
            validation_fraction=validation_fraction,
            test_fraction=test_fraction,
            registry=registry,
            previous=changed.outputs["champion_data"],
            code_version=code_version,
            source_fingerprint=source_fingerprint,
        )
        fetched = fetch_champion(
            name=name,
            version=changed.outputs["champion_version"],
            tracking_uri=tracking_uri,
            code_version=code_version,
            inputs_version=changed.outputs["champion_model"],
        )
        place(fetched)
        train_on(
            versioned,
            champion=fetched,
            flips=flips,
            backbones=backbones,
            strategy=strategy,
            image_size=image_size,
            candidates=candidates,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            settings=settings,
            device=device,
            processes=processes,
            checkpoints=checkpoints,
            calibration_images=calibration_images,
            min_agreement=min_agreement,
            seed=seed,
            code_version=code_version,
            weights_fingerprint=weights_fingerprint,
            registration={"name": name, "promote": promote, "tracking_uri": tracking_uri},
            register_anew=True,
        )
    return Outputs(changed.outputs["change"])
