"""Where the parts of rendered pictures lie: a table beside the pictures, which no publisher's reader looks at."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clip_xai.data.synthetic.fields import Array

#: Folder below a drawing's root that holds what a publisher would not ship.
FOLDER = "synthetic"
FILE = f"{FOLDER}/parts.parquet"
_TEXTS = ("image", "part", "kind", "side", "zone", "size")
_SCHEMA = pa.schema([*((name, pa.string()) for name in _TEXTS), ("box", pa.list_(pa.int32())), ("mask", pa.binary())])


@dataclass(frozen=True)
class Part:
    """A part of one picture.

    Attributes:
        image: Path of the picture below the root.
        part: Name of the part; of a finding, its label.
        kind: ``finding``, ``structure`` or ``artefact``.
        side: ``left`` or ``right``, the patient's; empty where a part has none.
        zone: ``upper``, ``middle`` or ``lower``, likewise.
        size: ``small``, ``moderate`` or ``large``, likewise.
        box: x, y, width and height in pixels of the picture.
        mask: bool ``[H, W]``, packed by `packed`.
    """

    image: str
    part: str
    kind: str
    side: str
    zone: str
    size: str
    box: tuple[int, int, int, int]
    mask: bytes

    def pixels(self, height: int, width: int) -> Array:
        """Return the mask, bool ``[H, W]``."""
        bits = np.frombuffer(zlib.decompress(self.mask), np.uint8)
        return np.unpackbits(bits, count=height * width).reshape(height, width).astype(bool)


def packed(mask: Array) -> bytes:
    """Return a mask as bytes: eight pixels a byte, row by row, compressed."""
    return zlib.compress(np.packbits(mask).tobytes())


def box_of(mask: Array) -> tuple[int, int, int, int]:
    """Return x, y, width and height of the smallest box that holds a mask, in pixels.

    >>> mask = np.zeros((4, 6), bool)
    >>> mask[1:3, 2:5] = True
    >>> box_of(mask)
    (2, 1, 3, 2)
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return (0, 0, 0, 0)
    return (
        int(columns[0]),
        int(rows[0]),
        int(columns[-1] - columns[0] + 1),
        int(rows[-1] - rows[0] + 1),
    )


def write_parts(root: Path, parts: Iterable[Part]) -> None:
    """Write the table of parts below a root."""
    (root / FILE).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist([asdict(part) for part in parts], schema=_SCHEMA), root / FILE)


def read_parts(root: Path) -> list[Part]:
    """Return the parts of all pictures below a root."""
    return [Part(**{**row, "box": tuple(row["box"])}) for row in pq.read_table(root / FILE).to_pylist()]
