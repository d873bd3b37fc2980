"""Files that hold several pictures, of which one is meant."""

from __future__ import annotations

from PIL import Image, TiffImagePlugin

#: The tag of a TIFF page that says what it is (NewSubfileType of TIFF 6.0), and its bit for a smaller copy.
_KIND_OF_PAGE, _SMALLER_COPY = 254, 1


def refuse_several(opened: Image.Image) -> None:
    """Refuse a file of several pictures; smaller copies of one, which a TIFF may hold beside it, are not counted.

    Raises:
        ValueError: Which of them is the photograph is open.
    """
    if not isinstance(opened, TiffImagePlugin.TiffImageFile):
        return
    count = 0
    for page in range(opened.n_frames):
        opened.seek(page)
        count += not int(opened.tag_v2.get(_KIND_OF_PAGE, 0)) & _SMALLER_COPY
    opened.seek(0)
    if count > 1:
        raise ValueError(f"{count} pictures in one file, and which is the photograph is open: save that one alone")
