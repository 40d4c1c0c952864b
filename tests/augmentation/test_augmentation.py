"""Policies follow the data and say why; views repeat with their seed."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import ks_2samp
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.v2 import functional

from graftline import augment
from graftline.augmentation.apply import Augmenter
from graftline.augmentation.policy import choose_policy, measure_orientation
from graftline.augmentation.views import draw_views
from graftline.data.dataset import load_images
from graftline.errors import GraftlineError
from graftline.records import AugmentationPolicy, DataVersion, read_record


def test_grey_images_get_no_colour_jitter_and_the_record_says_so(policy: Path) -> None:
    record = read_record(policy, AugmentationPolicy)
    assert record.saturation == record.hue == 0
    assert record.brightness > 0
    assert any("every image is grey" in reason for reason in record.reasons)


def test_coloured_images_get_saturation_jitter(solar_dataset: Path) -> None:
    data = read_record(solar_dataset, DataVersion).model_copy(update={"grey": False})
    images = np.random.default_rng(0).integers(0, 255, (20, 64, 64, 3), dtype=np.uint8)
    assert choose_policy(data, measure_orientation(images, 0)).saturation > 0


def test_orientation_is_measured() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (200, 64, 64, 3))
    shaded = noise // 2 + np.linspace(0, 127, 64, dtype=np.int64)[:, None, None]  # bright below
    directionless, upright = (measure_orientation(x.astype(np.uint8), 0) for x in (noise, shaded))
    assert directionless.vertical < 0.7 < 0.95 < upright.vertical


@pytest.mark.parametrize(
    ("flips", "expected"), [("none", (0, 0, 0)), ("horizontal", (0.5, 0, 0)), ("both", (0.5, 0.5, 0))]
)
def test_the_user_says_which_flips_keep_the_label(
    flips: str, expected: tuple[float, float, float], solar_dataset: Path, tmp_path: Path
) -> None:
    record = augment(solar_dataset, tmp_path / "policy", flips=flips)  # type: ignore[arg-type]
    assert (record.horizontal_flip, record.vertical_flip, record.transpose) == expected


def test_preview_shows_real_images_beside_their_views(policy: Path) -> None:
    sheet = Image.open(policy / "preview.png")
    assert sheet.width == 8 * 128 + 7 * 4
    assert np.asarray(sheet.convert("L")).std() > 10


def test_views_repeat_with_their_seed_and_differ_with_another(solar_dataset: Path, policy: Path) -> None:
    images = torch.from_numpy(np.array(load_images(solar_dataset, "train", 96)[:4]))
    apply = Augmenter(read_record(policy, AugmentationPolicy), 64, "bicubic")
    state = torch.random.get_rng_state()
    first, again, other = apply(images, range(4)), apply(images, range(4)), apply(images, range(4, 8))
    assert first.shape == (4, 64, 64, 3) and first.dtype == torch.uint8
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(apply(images[2:], [2, 3]), first[2:])
    assert torch.equal(state, torch.random.get_rng_state())


def test_flips_that_are_off_never_happen(solar_dataset: Path) -> None:
    data = read_record(solar_dataset, DataVersion)
    images = torch.zeros(1, 64, 64, 3, dtype=torch.uint8)
    images[:, 32:] = 255  # bright below
    upright = choose_policy(data, measure_orientation(images.numpy(), 0), "horizontal")
    apply = Augmenter(upright, 64, "bilinear")
    for seed in range(20):
        view = apply(images, [seed]).float()
        assert view[:, 48:].mean() > view[:, :16].mean()


_DTYPES = (torch.float32, torch.bfloat16)
_STILL = {"crop_scale": (1.0, 1.0), "crop_ratio": (1.0, 1.0), "horizontal_flip": 0.0, "vertical_flip": 0.0}
_STILL |= {"transpose": 0.0, "brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}


def _views(policy: Path, images: torch.Tensor, size: int = 80, **changes: object) -> torch.Tensor:
    record = read_record(policy, AugmentationPolicy).model_copy(update=_STILL | changes)
    return Augmenter(record, size, "bicubic")(images, range(len(images))).permute(0, 3, 1, 2)


@pytest.fixture(scope="module")
def cells(solar_dataset: Path) -> torch.Tensor:
    return torch.from_numpy(np.array(load_images(solar_dataset, "train", 96)[:4]))


@pytest.mark.parametrize("size", [64, 96, 120])
def test_a_view_of_the_whole_image_is_an_antialiased_resize(policy: Path, cells: torch.Tensor, size: int) -> None:
    how = {"interpolation": functional.InterpolationMode.BICUBIC, "antialias": True}
    resized = functional.resize(cells.permute(0, 3, 1, 2), [size, size], **how)
    assert (_views(policy, cells, size).int() - resized.int()).abs().max() <= 1


@pytest.mark.parametrize(
    ("what", "how"),
    [
        ("horizontal_flip", functional.horizontal_flip),
        ("vertical_flip", functional.vertical_flip),
        ("transpose", lambda image: image.transpose(-2, -1)),
    ],
)
def test_a_flip_that_is_certain_happens(
    policy: Path, cells: torch.Tensor, what: str, how: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    assert torch.equal(_views(policy, cells, **{what: 1.0}), how(_views(policy, cells)))


def test_a_crop_shows_its_share_of_the_image(policy: Path) -> None:
    ramp = torch.arange(128, dtype=torch.uint8).repeat(8, 128, 1)[..., None].repeat(1, 1, 1, 3)
    view = _views(policy, ramp, crop_scale=(0.25, 0.25))[:, 0, 0].float()
    shown = view[:, -1] - view[:, 0]
    assert torch.all((shown - 63).abs() <= 3)
    assert view[:, 0].std() > 5, "crops lie in different places"


def test_crops_are_drawn_like_torchvision(policy: Path) -> None:
    record = read_record(policy, AugmentationPolicy).model_copy(update={"crop_scale": (0.5, 1.0)})
    views = draw_views(record, range(2000))
    torch.manual_seed(0)
    square = torch.zeros(3, 1000, 1000)
    theirs = [RandomResizedCrop.get_params(square, [0.5, 1.0], list(record.crop_ratio)) for _ in range(2000)]
    top, left, height, width = np.array(theirs).T / 1000
    for ours, expected in [(views.height, height), (views.width, width), (views.top, top), (views.left, left)]:
        assert ks_2samp(ours, expected).pvalue > 0.01
    assert ks_2samp(views.height * views.width, height * width).pvalue > 0.01


def test_a_crop_that_never_fits_is_the_whole_image(policy: Path) -> None:
    wide = {"crop_scale": (0.9, 0.9), "crop_ratio": (3.0, 4.0)}
    views = draw_views(read_record(policy, AugmentationPolicy).model_copy(update=wide), range(4))
    assert np.all(views.height == 1) and np.all(views.width == 1)
    assert np.all(views.top == 0) and np.all(views.left == 0)


def test_colours_change_about_their_mean_and_their_grey(policy: Path) -> None:
    image = torch.zeros(1, 32, 32, 3, dtype=torch.uint8)
    image[:, :16] = torch.tensor([150, 100, 60], dtype=torch.uint8)
    image[:, 16:] = torch.tensor([50, 60, 70], dtype=torch.uint8)
    seed = range(40, 41)
    for what, how in {
        "brightness": functional.adjust_brightness,
        "contrast": functional.adjust_contrast,
        "saturation": functional.adjust_saturation,
        "hue": functional.adjust_hue,
    }.items():
        record = read_record(policy, AugmentationPolicy).model_copy(update=_STILL | {what: 0.4})
        factor = float(getattr(draw_views(record, seed), what)[0])
        expected = how(image.permute(0, 3, 1, 2).float() / 255, factor) * 255
        got = Augmenter(record, 32, "bilinear")(image, seed).permute(0, 3, 1, 2)
        assert not torch.equal(got, image.permute(0, 3, 1, 2)), what
        assert (got - expected).abs().max() <= 1, what


def test_bfloat16_views_are_those_of_float32_within_rounding(policy: Path, cells: torch.Tensor) -> None:
    record = read_record(policy, AugmentationPolicy)
    exact, rounded = (Augmenter(record, 64, "bicubic", t)(cells, range(4)).float() for t in _DTYPES)
    assert (exact - rounded).abs().mean() < 1
    assert (exact - rounded).abs().max() <= 4


def test_a_folder_that_is_no_dataset_is_named(tmp_path: Path) -> None:
    with pytest.raises(GraftlineError, match="not an output of `graftline version_data`"):
        augment(tmp_path, tmp_path / "out")
