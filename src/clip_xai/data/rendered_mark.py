"""The mark in the file of a rendered photograph: wherever it is copied to, it says that nobody took it."""

from __future__ import annotations

from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

MARK = "rendered by CLIP-XAI, not a photograph of a person"

_KEY = "Comment"


def marked(format_: str) -> dict[str, Any]:
    """Return what ``Image.save`` is to be given so that a JPEG or PNG file carries the mark."""
    if format_ == "JPEG":
        return {"comment": MARK}
    info = PngInfo()
    info.add_text(_KEY, MARK)
    return {"pnginfo": info}


def is_marked(image: Image.Image) -> bool:
    """Tell whether an opened file carries the mark; only its header is looked at, where the mark is written."""
    said = image.info.get("comment", image.info.get(_KEY, ""))
    return (said.decode("utf-8", "replace") if isinstance(said, bytes) else said) == MARK
