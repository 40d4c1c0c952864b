"""Every colour mode becomes correct upright RGB; what cannot be read says why."""

import io
from typing import Any

import numpy as np
import pytest
from builders import noise
from PIL import Image

from graftline.data import decode
from graftline.data.decode import decode_rgb, pixel_id, resize_square
from graftline.errors import DataError


def encode(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def pixels(content: bytes) -> list[list[int]]:
    """The first row of pixels."""
    return decode_rgb(content)[0].tolist()


def row(mode: str, *values: Any) -> Image.Image:
    image = Image.new(mode, (len(values), 1))
    for x, value in enumerate(values):
        image.putpixel((x, 0), value)
    return image


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "GIF"])
def test_grey_and_one_bit_become_equal_channels(form: str) -> None:
    assert pixels(encode(row("L", 0, 100, 255), form)) == [[0] * 3, [100] * 3, [255] * 3]
    assert pixels(encode(row("1", 0, 1), form)) == [[0] * 3, [255] * 3]


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_not_clipped(form: str) -> None:
    image = Image.fromarray(np.array([[0, 257, 25700, 65535]], np.uint16))
    assert pixels(encode(image, form)) == [[0] * 3, [1] * 3, [100] * 3, [255] * 3]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.4, 1.0], [0, 102, 255]),
        ([0.0, 30.0, 200.0], [0, 30, 200]),
        ([0.0, 25700.0, 65535.0], [0, 100, 255]),
        ([-1.0, 0.0, 1.0], [0, 128, 255]),
        ([float("nan"), 0.0, 1.0], [0, 0, 255]),
    ],
)
def test_float_tiff_is_scaled_by_its_range(values: list[float], expected: list[int]) -> None:
    content = encode(Image.fromarray(np.array([values], np.float32)), "TIFF")
    assert pixels(content) == [[value] * 3 for value in expected]


def test_32_bit_tiff_of_16_bit_values() -> None:
    content = encode(Image.fromarray(np.array([[0, 25700, 65535]], np.int32)), "TIFF")
    assert pixels(content) == [[0] * 3, [100] * 3, [255] * 3]


def test_transparency_is_laid_on_white() -> None:
    assert pixels(encode(row("RGBA", (255, 0, 0, 255), (255, 0, 0, 0)))) == [[255, 0, 0], [255, 255, 255]]
    assert pixels(encode(row("RGBA", (0, 0, 0, 51)))) == [[204, 204, 204]]
    assert pixels(encode(row("LA", (100, 255), (100, 0)))) == [[100] * 3, [255] * 3]


def test_palette_with_and_without_transparency() -> None:
    image = row("P", 0, 1)
    image.putpalette([10, 20, 30, 40, 50, 60])
    assert pixels(encode(image)) == [[10, 20, 30], [40, 50, 60]]
    assert pixels(encode(image, transparency=1)) == [[10, 20, 30], [255, 255, 255]]
    assert pixels(encode(image, transparency=b"\x00\xff")) == [[255, 255, 255], [40, 50, 60]]


def test_transparent_colour_of_grey_and_rgb_png() -> None:
    assert pixels(encode(row("L", 9, 10), transparency=9)) == [[255] * 3, [10] * 3]
    assert pixels(encode(row("RGB", (9, 8, 7), (1, 2, 3)), transparency=(9, 8, 7))) == [[255] * 3, [1, 2, 3]]


def test_cmyk_tiff_is_not_inverted() -> None:
    assert pixels(encode(row("CMYK", (0, 255, 255, 0), (0, 0, 0, 0)), "TIFF")) == [[255, 0, 0], [255, 255, 255]]


def test_adobe_cmyk_jpeg_is_inverted_back() -> None:
    content = encode(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=100)
    assert b"Adobe" in content  # the marker of the inverted convention
    assert np.abs(decode_rgb(content).astype(int) - [255, 0, 0]).max() <= 3


def test_ycck_jpeg() -> None:
    # The same samples marked as YCCK: full luma, neutral chroma and no black ink, that is white paper.
    content = encode(Image.new("CMYK", (8, 8), (255, 127, 127, 0)), "JPEG", quality=100)
    at = content.index(b"Adobe") + 11
    assert content[at] == 0
    ycck = content[:at] + b"\x02" + content[at + 1 :]
    assert decode_rgb(ycck).min() >= 252
    assert decode_rgb(content).min() < 10


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientation_is_applied(form: str) -> None:
    image = Image.new("RGB", (32, 16), "black")
    image.paste("white", (16, 0, 32, 16))  # right half white
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise: the right half is at the bottom then
    rgb = decode_rgb(encode(image, form, exif=exif))
    assert rgb.shape == (32, 16, 3)
    assert rgb[4].max() < 40
    assert rgb[28].min() > 215


@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_orientations_agree_with_pillow(orientation: int) -> None:
    from PIL import ImageOps

    image = Image.fromarray(np.arange(18, dtype=np.uint8).reshape(2, 3, 3))
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encode(image, exif=exif)
    assert np.array_equal(decode_rgb(content), np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content)))))


def test_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (2, 2), colour) for colour in ("red", "blue")]
    content = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert pixels(content)[0] == [255, 0, 0]


def test_first_picture_of_a_phone_file_with_several() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    content = encode(frames[0], "MPO", save_all=True, append_images=frames[1:])
    assert Image.open(io.BytesIO(content)).format == "MPO"
    assert np.abs(decode_rgb(content).astype(int) - [255, 0, 0]).max() <= 3


@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP", "TIFF", "WEBP"])
def test_cut_off_files_are_errors(form: str) -> None:
    content = encode(Image.fromarray(noise(0, 64, 64)), form)
    with pytest.raises(DataError, match="damaged"):
        decode_rgb(content[: len(content) // 2])


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "the file is empty"), (b"hello, I am text", "not a JPEG"), (b"\x89PNG\r\n\x1a\n", "not a JPEG")],
)
def test_no_image_at_all(content: bytes, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        decode_rgb(content)


def test_formats_that_run_other_programs_are_refused() -> None:
    with pytest.raises(DataError, match="not a JPEG, PNG, BMP, WebP, TIFF or GIF image"):
        decode_rgb(encode(Image.new("RGB", (4, 4)), "EPS"))


def test_a_decompression_bomb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    side = 9_500  # few bytes, 90 million pixels
    with pytest.warns(Image.DecompressionBombWarning), pytest.raises(DataError, match="limit of 89,478,485 pixels"):
        decode_rgb(encode(Image.new("1", (side, side))))
    monkeypatch.setattr(decode, "MAX_PIXELS", 10)
    with pytest.raises(DataError, match="4 x 4 is larger than the limit of 10 pixels"):
        decode_rgb(encode(Image.new("RGB", (4, 4))))


def test_resize_keeps_the_whole_image_and_antialiases() -> None:
    stripes = np.zeros((64, 128, 3), np.uint8)
    stripes[:, ::2] = 255
    small = resize_square(stripes, 16)
    assert small.shape == (16, 16, 3)
    assert small.dtype == np.uint8
    assert np.abs(small.astype(int) - 127).max() <= 8
    assert not np.array_equal(resize_square(noise(0, 64, 64), 16), resize_square(noise(0, 64, 64), 16, "bilinear"))


def test_identity_is_of_the_pixels_not_the_file() -> None:
    image = Image.fromarray(noise(0, 8, 8))
    assert pixel_id(decode_rgb(encode(image))) == pixel_id(decode_rgb(encode(image, "BMP")))
    wide, tall = np.zeros((2, 8, 3), np.uint8), np.zeros((8, 2, 3), np.uint8)
    assert pixel_id(wide) != pixel_id(tall)
