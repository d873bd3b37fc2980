"""Photographs from disk: decoded once, upright, RGB, with nothing of their metadata left."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageOps,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
    features,
)

from clip_xai.data.dicom import DicomFacts, dicom_facts, is_dicom, read_dicom
from clip_xai.data.mask_rule import lesion_of
from clip_xai.data.pages import refuse_several
from clip_xai.data.regular import read_regular
from clip_xai.data.rendered_mark import is_marked
from clip_xai.errors import UserError

#: Above this many pixels a file is taken for a decompression bomb (Pillow itself warns just above it).
MAX_PIXELS = 89_000_000

#: Above this ratio of the longer to the shorter side a file is not a photograph: the resize of its shorter side to the
#: model's input would take gigabytes.
MAX_RATIO = 100

#: What is white in grey pictures of 16 bits: the first of these that no pixel exceeds.
_WHITES = tuple(2**bits - 1 for bits in (8, 10, 12, 14, 16))

#: Endings of files that are decoded where Pillow has the library for them, and of all others.
_FURTHER = {
    "jpg_2000": (Jpeg2KImagePlugin.Jpeg2KImageFile, (".jp2", ".j2k", ".jpx")),
    "avif": (AvifImagePlugin.AvifImageFile, (".avif",)),
}
_FURTHER = {name: further for name, further in _FURTHER.items() if features.check(name)}
SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif"),
    *(ending for _, endings in _FURTHER.values() for ending in endings),
    *(".dcm", ".dicom"),
)

#: Formats that are decoded. Everything else that Pillow knows (PostScript, for one) runs code nobody needs here.
#: Taken from the plug-ins themselves: Pillow loads some of them late and fails on the names of those it has not loaded.
FORMATS = tuple(
    str(plugin.format)
    for plugin in (
        JpegImagePlugin.JpegImageFile,
        PngImagePlugin.PngImageFile,
        BmpImagePlugin.BmpImageFile,
        TiffImagePlugin.TiffImageFile,
        WebPImagePlugin.WebPImageFile,
        GifImagePlugin.GifImageFile,
        *(further for further, _ in _FURTHER.values()),
    )
)


class UnreadableImageError(UserError):
    """A file that cannot be shown as a photograph; the message names the file and says why."""


#: Side of the picture that is compared when two photographs look alike.
THUMBNAIL = 16

#: JPEG files are decoded at an eighth, a quarter or a half of their size where this many pixels a side remain: their
#: every byte is still read, and looks are compared at `THUMBNAIL` pixels anyway.
_ENOUGH_TO_COMPARE = 256


@dataclass(frozen=True)
class ImageFacts:
    """What a manifest needs of a decoded file.

    Attributes:
        sha256: Hexadecimal digest of the file's bytes.
        height: Height of the upright photograph in pixels.
        width: Width of the upright photograph in pixels.
        format: What the bytes are, whatever the file's name says: ``JPEG``, ``PNG`` ...
        phash: 64-bit perceptual hash: equal in almost all bits for pictures that look alike.
        thumbnail: The picture at `THUMBNAIL` x `THUMBNAIL` pixels, RGB, row by row.
        rendered: Drawn by this package, as the file itself says.
        photometric: Photometric interpretation of a DICOM file; empty for all others.
        study: Digest of a DICOM file's study; empty for all others.
    """

    sha256: str
    height: int
    width: int
    format: str
    phash: int
    thumbnail: bytes
    rendered: bool = False
    photometric: str = ""
    study: str = ""


def read_image(path: Path | str) -> Image.Image:
    """Read a photograph as it would be looked at.

    EXIF rotation is applied; palette, grey, CMYK and 16-bit pictures become 8-bit RGB; transparency is laid on white.
    Values of 8 to 14 bits that a 16-bit picture holds are taken as such.
    The picture that comes back carries no metadata, so nothing can be copied into an output by accident.

    Args:
        path: The file.

    Returns:
        An RGB picture.

    Raises:
        UnreadableImageError: The file is missing, damaged, truncated, too large or no picture.
    """
    return _decode(_read_bytes(Path(path)), Path(path))[0]


def number_of(path: Path | str) -> int:
    """Return a number that a photograph has by its content: the first 64 bits of its file's SHA-256.

    What is drawn for a photograph by this number is the same in whatever selection it stands.

    Raises:
        UnreadableImageError: The file cannot be read.
    """
    return int.from_bytes(hashlib.sha256(_read_bytes(Path(path))).digest()[:8], "little")


def read_reduced(path: Path | str, at_least: int) -> tuple[Image.Image, tuple[int, int]]:
    """Read a photograph as `read_image`, JPEG files at a half, a quarter or an eighth where that suffices.

    The decoder then leaves out the frequencies that nobody would see, which takes a fraction of the time. A factor is
    only taken where it divides both sides, so that the reduced picture covers exactly the same scene.

    Args:
        path: The file.
        at_least: Neither side becomes shorter than this.

    Returns:
        An RGB picture, and the width and height that `read_image` would give.

    Raises:
        UnreadableImageError: As `read_image`.
    """
    image, size, _ = _decode(_read_bytes(Path(path)), Path(path), at_least, exact=True)
    return image, size


def inspect_image(path: Path | str) -> ImageFacts:
    """Decode a photograph completely and return its digest, size and looks.

    Raises:
        UnreadableImageError: As `read_image`.
    """
    content = _read_bytes(Path(path))
    image, (width, height), kind = _decode(content, Path(path), _ENOUGH_TO_COMPARE)
    if is_dicom(content):
        rendered, told = False, dicom_facts(content)
    else:
        told = DicomFacts("", "")
        with _opened(content, Path(path)) as opened:
            rendered = is_marked(opened)
    # Looks must not depend on the resolution that a copy was saved at.
    small = image.resize((128, 128), Image.Resampling.BOX)
    return ImageFacts(
        sha256=hashlib.sha256(content).hexdigest(),
        height=height,
        width=width,
        format=kind,
        phash=int.from_bytes(np.packbits(imagehash.phash(small).hash).tobytes(), "big"),
        thumbnail=small.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX).tobytes(),
        rendered=rendered,
        photometric=told.photometric,
        study=told.study,
    )


def read_mask(path: Path | str, values: Sequence[int] = ()) -> NDArray[np.bool_]:
    """Read a lesion mask: bool ``[height, width]``, by the rule of :mod:`clip_xai.data.mask_rule`.

    Args:
        path: The file.
        values: The values that are lesion, if the user names them (``data.mask_values``).

    Raises:
        UnreadableImageError: As `read_image`, or what is lesion cannot be told from the values.
    """
    return _decode_mask(Path(path), values)[0]


@dataclass(frozen=True)
class MaskFacts:
    """What a manifest needs of a mask.

    Attributes:
        height: Height of the upright mask in pixels.
        width: Width of the upright mask in pixels.
        share: Share of its pixels that are lesion.
        how: How that was decided: a description of :mod:`clip_xai.data.mask_rule`.
    """

    height: int
    width: int
    share: float
    how: str


def inspect_mask(path: Path | str, values: Sequence[int] = ()) -> MaskFacts:
    """Read a mask as `read_mask` and return its size, how much it marks, and how it was read.

    Raises:
        UnreadableImageError: As `read_mask`.
    """
    inside, how = _decode_mask(Path(path), values)
    return MaskFacts(inside.shape[0], inside.shape[1], float(inside.mean()), how)


def _decode_mask(path: Path, values: Sequence[int]) -> tuple[NDArray[np.bool_], str]:
    with _opened(_read_bytes(path), path) as opened:
        refuse_several(opened, "mask")
        opened.load()
        return lesion_of(ImageOps.exif_transpose(opened), values)


def as_rgb(image: Image.Image) -> Image.Image:
    """Bring a picture of any mode to 8-bit RGB; pictures that are RGB already are returned as they are.

    Of 16-bit pictures that hold nothing beyond 8, 10, 12 or 14 bits, the largest value of so many bits is white:
    cameras and microscopes write so.

    Raises:
        ValueError: The mode has no agreed range (floating point, 32-bit integers beyond 16 bits).
    """
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("integer pixels beyond 16 bits")
        full = next(largest for largest in _WHITES if values.max() <= largest)
        return Image.fromarray(np.round(values * (255 / full)).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating-point pixels have no agreed range")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        picture = image.convert("RGBA")
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, picture).convert("RGB")
    return image.convert("RGB")


def _read_bytes(path: Path) -> bytes:
    try:
        return read_regular(path)
    except FileNotFoundError:
        raise UnreadableImageError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise UnreadableImageError(f"{path}: cannot be opened ({said})") from error


def check_shape(width: int, height: int) -> None:
    """Refuse a picture that is too large, or too thin, to be looked at.

    Raises:
        ValueError: It is.
    """
    if width * height > MAX_PIXELS:
        raise ValueError(f"{width} x {height} pixels are more than {MAX_PIXELS:,}")
    if max(width, height) > MAX_RATIO * min(width, height):
        raise ValueError(f"{width} x {height} pixels: one side is more than {MAX_RATIO} times the other")


def _decode(
    content: bytes, path: Path, at_least: int | None = None, exact: bool = False
) -> tuple[Image.Image, tuple[int, int], str]:
    """Decode a file; return the clean picture, its full upright width and height, and its format."""
    with _opened(content, path) as opened:
        refuse_several(opened, "photograph")
        width, height = opened.size
        if at_least is not None and opened.format == "JPEG":
            factor = _reduction(width, height, at_least, exact)
            if factor > 1:
                opened.draft(None, (width // factor, height // factor))
        deep = _is_deep_colour(opened)
        opened.load()
        if deep and np.asarray(opened.convert("RGB")).max() < 16:
            raise ValueError("colours of 16 bits that hold 12 bits or fewer: Pillow reads them as black; save 8 bits")
        upright = as_rgb(ImageOps.exif_transpose(opened))
        if upright.size != opened.size or opened.getexif().get(0x0112, 1) in (5, 6, 7, 8):
            width, height = height, width
        clean = Image.new("RGB", upright.size)
        clean.paste(upright)
        return clean, (width, height), str(opened.format)


@contextmanager
def _opened(content: bytes, path: Path) -> Iterator[Image.Image]:
    """Open a file, not yet decoded, and say in one line what is wrong with it, here or in the ``with`` block."""
    try:
        if is_dicom(content):
            yield read_dicom(content, check_shape)
            return
        with Image.open(io.BytesIO(content), formats=FORMATS) as opened:
            check_shape(*opened.size)
            yield opened
    except Image.UnidentifiedImageError:
        raise UnreadableImageError(f"{path}: not a picture in {', '.join((*FORMATS, 'DICOM'))}") from None
    # Damaged and malicious files make the decoders fail in whatever way they happen to: struct.error, KeyError,
    # OverflowError ... Whichever it is, this one file cannot be shown, and that is said.
    except Exception as error:
        raise UnreadableImageError(f"{path}: {' '.join(str(error).split()) or type(error).__name__}") from error


def _is_deep_colour(image: Image.Image) -> bool:
    """Tell whether a file holds 16 bits a colour, of which Pillow keeps the upper 8; before it is loaded."""
    return image.mode in ("RGB", "RGBA") and any(";16" in str(tile.args) for tile in getattr(image, "tile", ()))


def _reduction(width: int, height: int, at_least: int, exact: bool) -> int:
    """Return by how much the JPEG decoder may shrink a picture: 8, 4, 2 or 1."""
    return next(
        (
            factor
            for factor in (8, 4, 2)
            if min(width, height) // factor >= at_least and not (exact and (width % factor or height % factor))
        ),
        1,
    )
