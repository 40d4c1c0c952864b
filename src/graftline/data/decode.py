"""Any image file to correct 8-bit RGB pixels, the square model input, and the identity of a picture.

Decoding never guesses by contrast stretching where the format fixes the scale: 16-bit grey is divided by 257, a stored
orientation is applied, transparency is laid on white.
"""

import hashlib
import io
from typing import Literal

import numpy as np
from PIL import Image

from graftline.errors import DataError

Interpolation = Literal["bicubic", "bilinear"]
MAX_PIXELS = 89_478_485  # Pillow's own line for a decompression bomb: a quarter of a gigabyte of RGB
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF")  # no others: Pillow would run Ghostscript for an EPS
_RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
_ORIENTATION_TAG = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode_rgb(content: bytes) -> np.ndarray:
    """Decodes one image file (of an animation: the first frame).

    Args:
        content: The bytes of a JPEG, PNG, BMP, WebP, TIFF or GIF file in any colour mode.

    Returns:
        uint8 [H, W, 3], RGB, upright. 16-bit grey is divided by 257; 32-bit grey is taken as [0, 1] (float only), as
        8-bit or as 16-bit by its range, and stretched from its own minimum to its maximum when it fits none of them.

    Raises:
        DataError: The file is not an image, is damaged or cut off, or has more than `MAX_PIXELS` pixels.
    """
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            _refuse_bomb(*image.size)
            image.load()
            return _to_rgb(_upright(image))
    except DataError:
        raise
    except Image.DecompressionBombError as error:
        raise DataError(f"larger than the limit of {MAX_PIXELS:,} pixels: make it smaller") from error
    except Exception as error:  # Pillow's readers raise nearly any kind on a damaged file
        raise DataError(_reason(content, error)) from error


def resize_square(rgb: np.ndarray, side: int, interpolation: Interpolation = "bicubic") -> np.ndarray:
    """Resizes the whole image to a square, antialiased; nothing is cut off.

    Args:
        rgb: uint8 [H, W, 3].
        side: Width and height of the result in pixels.
        interpolation: The filter.

    Returns:
        uint8 [side, side, 3].
    """
    return np.asarray(Image.fromarray(rgb).resize((side, side), _RESAMPLING[interpolation]))


def pixel_id(rgb: np.ndarray) -> str:
    """Returns the identity of a picture: the hexadecimal SHA-256 of its shape and its RGB pixels."""
    digest = hashlib.sha256(f"{rgb.shape[0]}x{rgb.shape[1]}:".encode())
    digest.update(np.ascontiguousarray(rgb).data)
    return digest.hexdigest()


def _refuse_bomb(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise DataError(f"{width} x {height} is larger than the limit of {MAX_PIXELS:,} pixels: make it smaller")


def _reason(content: bytes, error: Exception) -> str:
    if not content:
        return "the file is empty"
    if isinstance(error, Image.UnidentifiedImageError):
        return "not a JPEG, PNG, BMP, WebP, TIFF or GIF image"
    return f"damaged image ({type(error).__name__}: {error})".replace("\n", " ")


def _upright(image: Image.Image) -> Image.Image:
    turn = _TURNS.get(_orientation(image))
    return image if turn is None else image.transpose(turn)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # a broken EXIF block does not make the pixels unreadable
        return 1


def _to_rgb(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I;16"):
        return _grey_to_rgb(_halve_depth(np.asarray(image)))
    if image.mode in ("I", "F"):
        return _grey_to_rgb(_scale_grey(np.asarray(image), is_float=image.mode == "F"))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("RGB"))


def _halve_depth(grey: np.ndarray) -> np.ndarray:
    """16-bit grey to 8-bit, rounded: 65535 becomes 255 and 257 becomes 1."""
    return ((grey.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _scale_grey(grey: np.ndarray, is_float: bool) -> np.ndarray:
    """32-bit grey to 8-bit; the format does not fix the scale, so its range decides (see `decode_rgb`)."""
    values = np.nan_to_num(grey.astype(np.float64), posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 65535:
        values = (values - low) * (255 / (high - low)) if high > low else np.zeros_like(values)
    elif is_float and high <= 1:
        values = values * 255
    elif high > 255:
        values = values / 257
    return np.round(values).astype(np.uint8)


def _grey_to_rgb(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[:, :, None], 3, axis=2)
