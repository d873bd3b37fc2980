"""transformers' ``preprocessor_config.json``: how a photograph becomes a tower's input."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clip_xai.data.preprocess import Preprocess
from clip_xai.errors import UserError

FILE = "preprocessor_config.json"
_FILTERS = {2: "bilinear", 3: "bicubic", "bilinear": "bilinear", "bicubic": "bicubic"}


def read_processor(values: Mapping[str, Any], name: str) -> Preprocess:
    """Return the preprocessing that a processor's settings describe.

    Args:
        values: The file's content; CLIP's and SigLIP's processors, of older releases of the library too. What it does
            not say has the library's defaults for CLIP.
        name: The backbone's name, for errors.

    Raises:
        UserError: It asks for something that is not done here; the line says what.
    """
    refused = [f"no {key}" for key in ("do_resize", "do_rescale") if not values.get(key, True)]
    filter_ = values.get("resample", 3)
    if filter_ not in _FILTERS:
        refused.append(f"resample {filter_}")
    if abs(float(values.get("rescale_factor", 1 / 255)) - 1 / 255) > 1e-6:
        refused.append(f"rescale_factor {values['rescale_factor']}")
    size, crop = values.get("size", 224), values.get("crop_size", 224)
    side = _side(size)
    cropped = _side(crop) if values.get("do_center_crop", "crop_size" in values or isinstance(size, int)) else None
    exact = isinstance(size, Mapping) and "shortest_edge" not in size
    if side is None or (values.get("do_center_crop") and cropped is None):
        refused.append(f"size {size}, crop_size {crop}")
    elif exact and cropped not in (None, side):
        refused.append(f"a crop of {cropped} out of a square of {side}")
    elif not exact and cropped is None:
        refused.append("photographs that are not square (a shortest edge without a crop)")
    if refused:
        raise UserError(
            f"backbone {name}: its {FILE} asks for something unsupported: {', '.join(refused)}; correct the file, "
            "or remove it to use CLIP's own preprocessing"
        )
    assert side is not None
    normalises = values.get("do_normalize", True)
    default = Preprocess()
    return Preprocess(
        image_size=side if cropped is None else cropped,
        resize="squash" if exact else "shortest",
        scaled=None if cropped in (None, side) else side,
        interpolation=_FILTERS[filter_],
        floored=not exact,
        mean=tuple(values.get("image_mean") or default.mean) if normalises else (0.0,) * 3,
        std=tuple(values.get("image_std") or default.std) if normalises else (1.0,) * 3,
    )


def _side(size: Any) -> int | None:
    """Return the side that a size means, None where it is not a single one."""
    if isinstance(size, Mapping):
        sides = {size.get(key) for key in ("shortest_edge", "height", "width")} - {None}
        if set(size) - {"shortest_edge", "height", "width"} or len(sides) != 1:
            return None
        size = sides.pop()
    return size if isinstance(size, int) and size > 0 else None
