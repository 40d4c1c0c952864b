"""The step `export_onnx`: a trained model becomes an edge bundle, proven against the original."""

from pathlib import Path

from graftline.errors import GraftlineError, check_seed
from graftline.files import output_folder
from graftline.records import EdgeBundle


def export_onnx(
    dataset: Path,
    model: Path,
    out: Path,
    *,
    calibration_images: int = 200,
    min_agreement: float = 0.97,
    seed: int = 0,
) -> EdgeBundle:
    """Exports a trained model to ONNX with preprocessing inside, in fp32 and smaller forms, each proven on test images.

    Args:
        dataset: Dataset folder that the model was trained on, from `version_data`.
        model: Model folder, from `fine_tune`.
        out: Bundle folder to write: ONNX files, labels, parity, lineage and a web page.
        calibration_images: Most training images that int8's ranges are measured on, at least 1; 100 are plenty.
        min_agreement: Least share of test images, in [0, 1], on which a form must name PyTorch's class to be kept.
        seed: Seed of the choice of calibration images.

    Returns:
        The bundle's record, with every variant's size, latency, accuracy and agreement.

    Raises:
        GraftlineError: The model was trained on other data, cannot be exported, or a value is out of its range.
    """
    check_seed(seed)
    check_values(calibration_images, min_agreement)
    from graftline.export.bundle import make_bundle

    with output_folder(out) as folder:
        return make_bundle(
            folder,
            dataset,
            model,
            calibration_images=calibration_images,
            min_agreement=min_agreement,
            seed=seed,
        )


def check_values(calibration_images: int, min_agreement: float) -> None:
    """Refuses options that cannot be what is given for them.

    Raises:
        GraftlineError: One of them is out of its range.
    """
    if calibration_images < 1:
        raise GraftlineError(f"calibration_images is {calibration_images}: int8 needs at least 1 image to calibrate on")
    if not 0 <= min_agreement <= 1:
        raise GraftlineError(f"min_agreement is {min_agreement}: give a share between 0 and 1")
