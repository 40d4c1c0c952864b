"""The one pipeline, the same on a laptop (`graftline run`) and on a cluster (`graftline compile`)."""

from kfp import dsl

from graftline.components.version_data import version_data
from graftline.pipelines.inputs import Inputs, with_inputs
from graftline.pipelines.training import Outputs, train_on


@dsl.pipeline(name="graftline-train", display_name="graftline: train and ship an image classifier")
@with_inputs("train")
def train(inputs: Inputs) -> Outputs:
    """Versions the data, chooses how to transfer, trains, measures, exports and registers."""
    return train_on(version_data(**inputs.of(version_data)), inputs)
