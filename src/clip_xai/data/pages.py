"""Files that hold several pictures, of which one is meant."""

from __future__ import annotations

from PIL import Image, MpoImagePlugin, TiffImagePlugin

#: The tag of a TIFF page that says what it is (NewSubfileType of TIFF 6.0), and its bit for a smaller copy.
_KIND_OF_PAGE, _SMALLER_COPY = 254, 1


def refuse_several(opened: Image.Image, meant: str) -> None:
    """Refuse a file of several pictures: pages of a TIFF, frames of an animated GIF, PNG or WebP.

    Smaller copies of one, which a TIFF may hold beside it, are not counted. Of the pictures that a camera writes into
    one JPEG (MPO), the first is the photograph by the format's own rule, and the others are other views of it.

    Args:
        opened: The file.
        meant: What is looked for in it, such as "photograph".

    Raises:
        ValueError: Which of them is meant is open.
    """
    if isinstance(opened, MpoImagePlugin.MpoImageFile):
        return
    count = _pages(opened) if isinstance(opened, TiffImagePlugin.TiffImageFile) else getattr(opened, "n_frames", 1)
    if count > 1:
        raise ValueError(f"{count} pictures in one file, and which is the {meant} is open: save that one alone")


def _pages(opened: TiffImagePlugin.TiffImageFile) -> int:
    count = 0
    for page in range(opened.n_frames):
        opened.seek(page)
        count += not int(opened.tag_v2.get(_KIND_OF_PAGE, 0)) & _SMALLER_COPY
    opened.seek(0)
    return count
