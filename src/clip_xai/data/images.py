"""Photographs from disk: decoded once, upright, RGB, with nothing of their metadata left."""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageOps,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from clip_xai.errors import UserError

#: Above this many pixels a file is taken for a decompression bomb (Pillow itself warns just above it).
MAX_PIXELS = 89_000_000

#: Formats that are decoded. Everything else that Pillow knows (PostScript, for one) runs code nobody needs here.
#: Taken from the plug-ins themselves: Pillow loads some of them late and fails on the names of those it has not loaded.
FORMATS = tuple(
    plugin.format
    for plugin in (
        JpegImagePlugin.JpegImageFile,
        PngImagePlugin.PngImageFile,
        BmpImagePlugin.BmpImageFile,
        TiffImagePlugin.TiffImageFile,
        WebPImagePlugin.WebPImageFile,
        GifImagePlugin.GifImageFile,
    )
)

#: What Pillow's decoders raise on damaged files.
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


class UnreadableImageError(UserError):
    """A file that cannot be shown as a photograph; the message names the file and says why."""


@dataclass(frozen=True)
class ImageFacts:
    """What a manifest keeps of a decoded file.

    Attributes:
        sha256: Hexadecimal digest of the file's bytes.
        height: Height of the upright photograph in pixels.
        width: Width of the upright photograph in pixels.
    """

    sha256: str
    height: int
    width: int


def read_image(path: Path | str) -> Image.Image:
    """Read a photograph as it would be looked at.

    EXIF rotation is applied; palette, grey, CMYK and 16-bit pictures become 8-bit RGB; transparency is laid on white.
    The picture that comes back carries no metadata, so nothing can be copied into an output by accident.

    Args:
        path: The file.

    Returns:
        An RGB picture.

    Raises:
        UnreadableImageError: The file is missing, damaged, truncated, too large or no picture.
    """
    return _decode(_read_bytes(Path(path)), Path(path))


def inspect_image(path: Path | str) -> ImageFacts:
    """Decode a photograph completely and return its digest and size.

    Raises:
        UnreadableImageError: As `read_image`.
    """
    content = _read_bytes(Path(path))
    image = _decode(content, Path(path))
    return ImageFacts(sha256=hashlib.sha256(content).hexdigest(), height=image.height, width=image.width)


def read_mask(path: Path | str) -> np.ndarray:
    """Read a lesion mask: bool ``[height, width]``, true where the picture is brighter than half.

    Raises:
        UnreadableImageError: As `read_image`.
    """
    return np.asarray(read_image(path).convert("L")) > 127


def as_rgb(image: Image.Image) -> Image.Image:
    """Bring a picture of any mode to 8-bit RGB; pictures that are RGB already are returned as they are.

    Raises:
        ValueError: The mode has no agreed range (floating point, 32-bit integers beyond 16 bits).
    """
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("integer pixels beyond 16 bits")
        return Image.fromarray(np.round(values / 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating-point pixels have no agreed range")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        picture = image.convert("RGBA")
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, picture).convert("RGB")
    return image.convert("RGB")


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise UnreadableImageError(f"{path}: no such file") from None
    except OSError as error:
        raise UnreadableImageError(f"{path}: cannot be opened ({error.strerror})") from error


def _decode(content: bytes, path: Path) -> Image.Image:
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as opened:
            if opened.width * opened.height > MAX_PIXELS:
                raise ValueError(f"{opened.width} x {opened.height} pixels are more than {MAX_PIXELS:,}")
            opened.load()
            upright = as_rgb(ImageOps.exif_transpose(opened))
            clean = Image.new("RGB", upright.size)
            clean.paste(upright)
            return clean
    except Image.UnidentifiedImageError:
        raise UnreadableImageError(f"{path}: not a picture in {', '.join(FORMATS)}") from None
    except _DAMAGE as error:
        raise UnreadableImageError(f"{path}: {error}") from error
