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
from graftline.pipelines.inputs import Inputs, with_inputs
from graftline.pipelines.resources import place
from graftline.pipelines.training import train_on


class Outputs(NamedTuple):
    """What is there at the end of every run: those of a condition's tasks cannot be outputs of a pipeline."""

    change: Artifact


@dsl.pipeline(name="graftline-retrain", display_name="graftline: train again when there is reason to")
@with_inputs("retrain")
def retrain(inputs: Inputs) -> Outputs:
    """Compares the source with the champion's data, and trains a challenger when they differ."""
    changed = detect_change(**inputs.of(detect_change))
    changed.set_caching_options(False)
    place(changed)
    with dsl.If(changed.outputs["Output"] == True, name="changed"):  # noqa: E712 - KFP records the comparison
        versioned = version_data(**inputs.of(version_data), previous=changed.outputs["champion_data"])
        fetched = fetch_champion(
            **inputs.of(fetch_champion),
            version=changed.outputs["champion_version"],
            inputs_version=changed.outputs["champion_model"],
        )
        place(fetched)
        train_on(versioned, inputs, champion=fetched, register_anew=True)
    return Outputs(changed.outputs["change"])
