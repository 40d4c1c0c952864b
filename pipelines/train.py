"""The one pipeline, the same on a laptop (`graftline run`) and on a cluster (`graftline compile`)."""

from kfp import dsl

from graftline.components.version_data import version_data
from graftline.pipelines.training import Outputs, train_on


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
    """Versions the data, chooses how to transfer, trains, measures, exports and registers."""
    versioned = version_data(
        source=source,
        validation_fraction=validation_fraction,
        test_fraction=test_fraction,
        registry=registry,
        code_version=code_version,
        source_fingerprint=source_fingerprint,
    )
    return train_on(
        versioned,
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
        registration={"name": name, "tracking_uri": tracking_uri},
    )
