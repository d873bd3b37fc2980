"""transformers' settings of a processor: how a photograph becomes a tower's input.

They stand in ``preprocessor_config.json``, or, as newer releases of the library write a whole processor, under
``image_processor`` in ``processor_config.json``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from clip_xai.data.preprocess import Preprocess
from clip_xai.errors import UserError

FILE, WHOLE_FILE = "preprocessor_config.json", "processor_config.json"
_EITHER = f"{FILE} or {WHOLE_FILE}"
_FILTERS = {2: "bilinear", 3: "bicubic", "bilinear": "bilinear", "bicubic": "bicubic"}

# What the library's processors do where their settings are silent: each kind its own.
_SQUARE = {"size": {"height": 224, "width": 224}, "do_center_crop": False, "image_mean": 0.5, "image_std": 0.5}
_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "CLIP": {},
    "Siglip": {**_SQUARE, "resample": 3},
    "ViT": {**_SQUARE, "resample": 2},
}
_TOLD = ("size", "resample", "image_mean", "image_std")


def find_processor(config: Callable[[str], dict[str, Any] | None]) -> dict[str, Any] | None:
    """Return the settings of the processor in a folder, in the order in which the library looks for them.

    Args:
        config: Gives a JSON file of the folder by its name, None where there is none.
    """
    whole = (config(WHOLE_FILE) or {}).get("image_processor")
    return whole if isinstance(whole, dict) else config(FILE)


def read_processor(values: Mapping[str, Any], name: str) -> Preprocess:
    """Return the preprocessing that a processor's settings describe.

    Args:
        values: The file's content; CLIP's, SigLIP's and ViT's processors, of older releases of the library too. What
            it does not say has the library's defaults for its kind; without a kind, CLIP's.
        name: The backbone's name, for errors.

    Raises:
        UserError: It asks for something that is not done here; the line says what.
    """
    try:
        return _read(values, name)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"backbone {name}: its {_EITHER} cannot be followed ({error}): correct the file, or take it away to use "
            "CLIP's own preprocessing"
        ) from error


def _read(values: Mapping[str, Any], name: str) -> Preprocess:
    kind = str(values.get("image_processor_type") or "CLIPImageProcessor")
    # Some are called CLIPImageProcessorFast, the oldest CLIPFeatureExtractor.
    defaults = next(
        (said for begins, said in _DEFAULTS.items() if kind.startswith((f"{begins}Im", f"{begins}Fe"))), None
    )
    silent = [key for key in _TOLD if key not in values]
    if defaults is None and silent:
        raise ValueError(f"a {kind}, of which it does not say {', '.join(silent)}")
    values = {**(defaults or {}), **values}
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
            f"backbone {name}: its {_EITHER} asks for something unsupported: {', '.join(refused)}; correct the file, "
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
        mean=_of_colours(values.get("image_mean"), default.mean) if normalises else (0.0,) * 3,
        std=_of_colours(values.get("image_std"), default.std) if normalises else (1.0,) * 3,
    )


def _of_colours(given: Any, default: tuple[float, ...]) -> tuple[float, ...]:
    """Return one value a colour; a single one is that of all three."""
    if given is None:
        return default
    several = list(given) if isinstance(given, (list, tuple)) else [given]
    return tuple(float(value) for value in (several * 3 if len(several) == 1 else several))


def _side(size: Any) -> int | None:
    """Return the side that a size means, None where it is not a single one."""
    if isinstance(size, Mapping):
        sides = {size.get(key) for key in ("shortest_edge", "height", "width")} - {None}
        if set(size) - {"shortest_edge", "height", "width"} or len(sides) != 1:
            return None
        size = sides.pop()
    return size if isinstance(size, int) and size > 0 else None
