"""Which endings belong to which format of pictures."""

from __future__ import annotations

from pathlib import Path

_ENDINGS = {
    "JPEG": (".jpg", ".jpeg"),
    "PNG": (".png",),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "AVIF": (".avif",),
    "DICOM": (".dcm", ".dicom", ""),
    "JPEG2000": (".jp2", ".j2k", ".jpx"),
}


def has_ending_of(path: Path, kind: str) -> bool:
    """Tell whether a file's name ends as files of this format do; of a format that is not known here, whatever it is.

    Args:
        path: The file.
        kind: What its bytes are, such as ``JPEG``.
    """
    return path.suffix.lower() in _ENDINGS.get(kind, (path.suffix.lower(),))
