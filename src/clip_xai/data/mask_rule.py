"""Which pixels of a mask are lesion, however the tool that drew it stores them.

Pictures of masks hold 0 and 1, 0 and 255, a palette's numbers, labels, one colour on black, or a transparent ground.
What is meant is decided by the values that a file holds; where they leave it open the file is refused, because a mask
that is read wrongly makes every measure of localisation wrong without a sign.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

#: Grey values up to this are labels of classes or lesions rather than shades.
MAX_LABEL = 31

#: So many colours are still labels; a drawing with soft edges has more.
_MAX_COLOURS = 32

#: How a mask was read.
EMPTY, FULL = "one value: nothing marked", "one value: everything marked"
CHOSEN = "the values of data.mask_values"
ALPHA, TWO, LABELS, HALF = "opacity", "two values: what is not 0", "labels: what is not 0", "shades: above half"


def lesion_of(image: Image.Image, values: Sequence[int] = ()) -> tuple[NDArray[np.bool_], str]:
    """Return which pixels of a mask are lesion, and how that was decided.

    Opacity counts alone where it varies and not at all elsewhere. Of a palette's numbers and of labels, what is not 0;
    of two values, 0 against the other; of shades that hold 0 and the full range, what is above half; one value marks
    nothing (0) or everything.

    Args:
        image: The mask, upright.
        values: The values that are lesion, if the user names them: grey values, labels or a palette's numbers.

    Returns:
        Bool ``[height, width]``, and one of this module's descriptions.

    Raises:
        ValueError: The values leave open what is meant.
    """
    opacity = _opacity(image)
    if opacity is not None:
        inside, how = (np.isin(opacity, values), CHOSEN) if values else _by_shade(opacity, 255)
        return inside, how if how == CHOSEN else ALPHA
    if image.mode in ("P", "PA"):
        return _by_palette(image, values)
    pixels, full = _pixels(image)
    if values:
        return np.isin(pixels if pixels.ndim == 2 else pixels.max(axis=2), values), CHOSEN
    if pixels.ndim == 3 and (pixels == pixels[..., :1]).all():
        pixels = pixels[..., 0]
    return _by_shade(pixels, full) if pixels.ndim == 2 else _by_colour(pixels)


def _opacity(image: Image.Image) -> NDArray[np.uint8] | None:
    """Return the alpha channel where it says something."""
    if image.mode not in ("RGBA", "LA", "PA", "La", "RGBa") and "transparency" not in image.info:
        return None
    opacity = np.asarray(image.convert("RGBA").getchannel("A"))
    return opacity if opacity.min() != opacity.max() else None


def _pixels(image: Image.Image) -> tuple[NDArray[Any], float]:
    """Return the values ``[height, width]`` or colours ``[height, width, 3]``, and the value of white."""
    if image.mode == "1":
        return np.asarray(image).astype(np.uint8) * 255, 255
    if image.mode in ("L", "LA", "La"):
        return np.asarray(image.getchannel(0)), 255
    if image.mode.startswith("I"):
        return np.asarray(image), 65535
    if image.mode == "F":
        pixels = np.asarray(image)
        if not np.isfinite(pixels).all():
            raise ValueError("a mask with values that are not numbers")
        return pixels, 1.0
    return np.asarray(image.convert("RGB")), 255


def _by_palette(image: Image.Image, values: Sequence[int]) -> tuple[NDArray[np.bool_], str]:
    numbers = np.asarray(image.getchannel(0) if image.mode == "PA" else image)
    if values:
        return np.isin(numbers, values), CHOSEN
    colours = np.asarray(image.convert("RGB"))
    black = ~colours.any(axis=2)
    out_of_order = bool(numbers[black].any())
    if (colours == colours[..., :1]).all() and (out_of_order or (numbers == colours[..., 0]).all()):
        # A grey mask that a tool has put into a palette, white first as often as black.
        return _by_shade(colours[..., 0], 255)
    if out_of_order:
        raise ValueError(_open("a palette in which black is another number than 0"))
    return (numbers != 0, LABELS) if numbers.min() != numbers.max() else _uniform(numbers)


def _by_shade(pixels: NDArray[Any], full: float) -> tuple[NDArray[np.bool_], str]:
    held = np.unique(pixels)
    if len(held) == 1:
        return _uniform(pixels)
    if held[0] == 0 and len(held) == 2:
        return pixels != 0, TWO
    if held[0] == 0 and held[-1] == full:
        return pixels > full / 2, HALF
    if held[0] == 0 and held[-1] <= MAX_LABEL and np.issubdtype(pixels.dtype, np.integer):
        return pixels != 0, LABELS
    raise ValueError(_open(f"the values {_listed(held)}"))


def _by_colour(pixels: NDArray[Any]) -> tuple[NDArray[np.bool_], str]:
    """One colour on black, soft edges included, or the colours of labels."""
    strongest = pixels.max(axis=2)
    colours = np.unique(pixels.reshape(-1, pixels.shape[2]), axis=0).astype(float)
    if len(colours) == 1:
        return _uniform(strongest)
    if colours[0].any():  # in order, black comes first
        raise ValueError(_open(f"{len(colours)} colours without black"))
    if len(colours) == 2:
        return strongest != 0, TWO
    hues = colours[1:] / colours[1:].max(axis=1, keepdims=True)
    bright = colours[1:].max(axis=1) > MAX_LABEL  # dark shades are too coarse to have a hue
    if np.ptp(hues[bright], axis=0).max(initial=0) < 0.1:
        return _by_shade(strongest, 255)
    if len(colours) <= _MAX_COLOURS:
        return strongest != 0, LABELS
    raise ValueError(_open(f"{len(colours)} colours"))


def _uniform(pixels: NDArray[Any]) -> tuple[NDArray[np.bool_], str]:
    marked = pixels != 0
    return marked, FULL if marked.any() else EMPTY


def _open(what: str) -> str:
    return f"a mask of {what}: which are lesion is open; name them, as in data.mask_values=[1]"


def _listed(held: NDArray[Any]) -> str:
    few = [f"{value:g}" for value in held[:4].tolist()]
    return f"{', '.join(few)}{f' ... {held[-1]:g} ({len(held)} of them)' if len(held) > 4 else ''}"
