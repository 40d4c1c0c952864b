"""The step `augment`: chooses augmentation for this data and shows it."""

from pathlib import Path
from typing import Literal, get_args

from graftline.errors import check_choice, check_seed
from graftline.files import output_folder
from graftline.records import AugmentationPolicy, DataVersion, read_record

_PREVIEW_SIDE = 256
_ROWS = 8


def augment(
    dataset: Path,
    out: Path,
    *,
    flips: Literal["auto", "none", "horizontal", "vertical", "both"] = "auto",
    seed: int = 0,
) -> AugmentationPolicy:
    """Chooses an augmentation policy for the data and draws a preview sheet.

    Only training images are looked at.

    Args:
        dataset: Folder written by version_data.
        out: Folder to write: record.json (the policy with its reasons) and preview.png.
        flips: Which flips leave the label as it is; auto decides by the images.
        seed: Of the measurement and the preview.

    Returns:
        The policy.

    Raises:
        GraftlineError: `dataset` was not written by version_data.
    """
    from graftline.augmentation.policy import Flips, choose_policy, measure_orientation
    from graftline.augmentation.preview import write_preview
    from graftline.data.dataset import load_images

    check_choice("flips", flips, get_args(Flips))
    check_seed(seed)
    data = read_record(dataset, DataVersion)
    images = load_images(dataset, "train", _PREVIEW_SIDE)
    policy = choose_policy(data, measure_orientation(images, seed), flips)
    with output_folder(out) as folder:
        policy.write(folder)
        write_preview(folder / "preview.png", images[:: max(1, len(images) // _ROWS)][:_ROWS], policy, seed)
    return policy
