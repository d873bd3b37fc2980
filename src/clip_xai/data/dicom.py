"""DICOM pictures as they would be looked at, and nothing else that such a file says.

Only the tags of `_READ` are ever read: what a picture needs, and the study, which leaves this module as a digest alone.
No name, date or identifier can reach a manifest, a report or a log, because none is in memory.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

#: What stands behind the preamble of 128 bytes.
_MAGIC, _PREAMBLE = b"DICM", 128

_READ = (
    *("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelData", "FloatPixelData"),
    *("DoubleFloatPixelData", "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "VOILUTSequence"),
    *("WindowCenter", "WindowWidth", "VOILUTFunction", "PixelPaddingValue", "PixelPaddingRangeLimit"),
    *("RedPaletteColorLookupTableDescriptor", "GreenPaletteColorLookupTableDescriptor"),
    *("BluePaletteColorLookupTableDescriptor", "RedPaletteColorLookupTableData"),
    *("GreenPaletteColorLookupTableData", "BluePaletteColorLookupTableData", "StudyInstanceUID"),
)


_PHOTOMETRIC = (
    *("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "RGB"),
    *("YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT", "XYB"),
)


@dataclass(frozen=True)
class DicomFacts:
    """All that is kept of a DICOM file beside its picture and its size.

    Attributes:
        photometric: Photometric interpretation, such as ``MONOCHROME1``.
        study: Digest of the study's identifier, sixteen hexadecimal digits; empty where there is none.
    """

    photometric: str
    study: str


def is_dicom(content: bytes) -> bool:
    """Tell from its first bytes whether a file is DICOM."""
    return content[_PREAMBLE : _PREAMBLE + len(_MAGIC)] == _MAGIC


def dicom_facts(content: bytes) -> DicomFacts:
    """Return what a manifest may know of a DICOM file.

    Raises:
        ValueError: The file cannot be read, or pydicom is not installed.
    """
    return _facts(_dataset(content))


def read_dicom(content: bytes, check_shape: Callable[[int, int], None]) -> Image.Image:
    """Decode the picture of a DICOM file: grey or RGB, 8 bits, as a viewer shows it at first.

    Grey pictures go through the modality transform (rescale or table) and the first VOI table or window; without one,
    pictures of more than 8 bits are stretched from their darkest to their brightest value, padding aside. MONOCHROME1
    is inverted, so that air is black. Colours become RGB.

    Args:
        content: The file.
        check_shape: Refuses a width and height, before anything is decoded.

    Returns:
        A picture of mode ``L`` or ``RGB`` without any metadata; its `format` is ``DICOM``.

    Raises:
        ValueError: The file holds several frames or no picture, its compression has no decoder here, it is damaged, or
            pydicom is not installed.
    """
    dataset = _dataset(content)
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames > 1:
        raise ValueError(f"a DICOM file of {frames} frames: save the one that is meant as a file of its own")
    if "PixelData" not in dataset:
        floating = "FloatPixelData" in dataset or "DoubleFloatPixelData" in dataset
        raise ValueError(f"a DICOM file with {'floating-point pixels' if floating else 'no picture'}")
    check_shape(int(dataset.get("Columns") or 0), int(dataset.get("Rows") or 0))
    _require_decoder(dataset)
    try:
        image = Image.fromarray(_shown(dataset))
    except MemoryError:
        raise
    # Decoders fail in whatever way they happen to, and their messages may quote the file.
    except Exception as error:
        raise ValueError(f"a DICOM file whose picture cannot be decoded ({type(error).__name__})") from None
    image.format = "DICOM"
    return image


def _dataset(content: bytes) -> Any:
    if importlib.util.find_spec("pydicom") is None:
        raise ValueError('a DICOM file: install pydicom to read it, as in pip install "clip-xai[dicom]"')
    import pydicom
    from pydicom import config

    # What pydicom would say of an invalid value quotes it.
    config.settings.reading_validation_mode = config.IGNORE
    try:
        return pydicom.dcmread(io.BytesIO(content), specific_tags=list(_READ))
    except Exception as error:
        raise ValueError(f"a damaged DICOM file ({type(error).__name__})") from None


def _facts(dataset: Any) -> DicomFacts:
    study = str(dataset.get("StudyInstanceUID") or "")
    photometric = str(dataset.get("PhotometricInterpretation") or "")
    known = photometric if photometric in _PHOTOMETRIC else "unknown"
    return DicomFacts(known, hashlib.sha256(study.encode()).hexdigest()[:16] if study else "")


def _require_decoder(dataset: Any) -> None:
    from pydicom.pixels import get_decoder
    from pydicom.uid import UID

    syntax = UID(str(dataset.file_meta.get("TransferSyntaxUID", "")))
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        named = syntax.name if syntax.is_transfer_syntax else "an unknown transfer syntax"
        raise ValueError(f"a DICOM file in {named}, which no decoder reads: save it uncompressed") from None
    if not decoder.is_available:
        raise ValueError(
            f"a DICOM file in {syntax.name}, for which no decoder is installed: install pylibjpeg and its plug-ins, or "
            "save it uncompressed"
        )


def _shown(dataset: Any) -> NDArray[np.uint8]:
    """Return the picture's pixels, ``[height, width]`` or ``[height, width, 3]``."""
    from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi, pixel_array

    pixels = pixel_array(dataset)
    stored = int(dataset.BitsStored)
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        colours = apply_color_lut(pixels, dataset)
        return _eight_bits(colours / float(np.iinfo(colours.dtype).max))
    if pixels.ndim == 3:
        return pixels if pixels.dtype == np.uint8 and stored == 8 else _eight_bits(pixels / (2.0**stored - 1))
    padding = _padding(dataset, pixels)
    values = apply_modality_lut(pixels, dataset).astype(np.float64)
    if dataset.get("VOILUTSequence"):
        table = apply_voi(values.astype(np.int64), dataset, index=0)
        light = table / (2.0 ** int(dataset.VOILUTSequence[0].LUTDescriptor[2]) - 1)
    elif dataset.get("WindowWidth") is not None and dataset.get("WindowCenter") is not None:
        light = _windowed(values, _first(dataset.WindowCenter), _first(dataset.WindowWidth),
                          str(dataset.get("VOILUTFunction") or "LINEAR"))  # fmt: skip
    elif stored <= 8 and pixels.dtype.kind == "u" and (values == pixels).all():
        light = values / (2.0**stored - 1)
    else:
        light = _stretched(values, padding)
    light = light.clip(0, 1)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        light = 1 - light
    light[padding] = 0
    return _eight_bits(light)


def _windowed(values: NDArray[np.float64], centre: float, width: float, function: str) -> NDArray[np.float64]:
    """Apply a window of DICOM PS3.3 C.11.2.1: 0 is black, 1 is white."""
    if function == "SIGMOID":
        return 1 / (1 + np.exp((-4 * (values - centre) / width).clip(-99, 99)))
    if function == "LINEAR_EXACT":
        return (values - centre) / width + 0.5
    if width <= 1:  # a threshold
        return (values > centre - 0.5).astype(np.float64)
    return (values - (centre - 0.5)) / (width - 1) + 0.5


def _stretched(values: NDArray[np.float64], padding: NDArray[np.bool_]) -> NDArray[np.float64]:
    held = values[~padding]
    if not held.size or held.min() == held.max():
        return np.zeros_like(values)
    return (values - held.min()) / (held.max() - held.min())


def _padding(dataset: Any, pixels: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which pixels are no picture but filled up around it."""
    value = dataset.get("PixelPaddingValue")
    if value is None:
        return np.zeros(pixels.shape, dtype=bool)
    other = dataset.get("PixelPaddingRangeLimit")
    low, high = sorted((int(value), int(value if other is None else other)))
    return (pixels >= low) & (pixels <= high)


def _first(value: Any) -> float:
    return float(value if np.isscalar(value) or not hasattr(value, "__len__") else value[0])


def _eight_bits(light: NDArray[np.float64]) -> NDArray[np.uint8]:
    return np.round(np.clip(light, 0, 1) * 255).astype(np.uint8)
