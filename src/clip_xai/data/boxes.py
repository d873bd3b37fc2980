"""Boxes around findings, in pixels of the upright photograph, and the masks that they and run lengths stand for."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Box:
    """A box around one finding, in pixels of the photograph as it is looked at (after EXIF orientation).

    Edges lie between pixels: pixel column ``x`` covers ``[x, x + 1]``.

    Attributes:
        label: What is in it: a name of `Record.labels`.
        left: Left edge.
        top: Upper edge.
        width: Width, more than 0.
        height: Height, more than 0.
    """

    label: str
    left: float
    top: float
    width: float
    height: float

    def __post_init__(self) -> None:
        if not all(math.isfinite(value) for value in (self.left, self.top, self.width, self.height)):
            raise ValueError("a box with an edge that is not a finite number")
        if self.width <= 0 or self.height <= 0:
            raise ValueError(f"a box of {self.width:g} x {self.height:g} pixels, which holds nothing")

    @property
    def right(self) -> float:
        """Right edge."""
        return self.left + self.width

    @property
    def bottom(self) -> float:
        """Lower edge."""
        return self.top + self.height

    def scaled(self, across: float, down: float) -> Box:
        """Return the box on a copy of the photograph that is this many times as wide and as high."""
        return Box(self.label, self.left * across, self.top * down, self.width * across, self.height * down)

    def clipped(self, width: int, height: int) -> Box | None:
        """Return the part of the box that lies on a photograph of this size, or None where nothing does."""
        left, top = max(self.left, 0.0), max(self.top, 0.0)
        right, bottom = min(self.right, float(width)), min(self.bottom, float(height))
        if right <= left or bottom <= top:
            return None
        if (left, top, right, bottom) == (self.left, self.top, self.right, self.bottom):
            return self
        return Box(self.label, left, top, right - left, bottom - top)


def mask_of_boxes(boxes: Iterable[Box], height: int, width: int) -> NDArray[np.bool_]:
    """Return the union of boxes: bool ``[height, width]``, a pixel by its centre, and at least one pixel of each box.

    Args:
        boxes: Boxes on the photograph.
        height: Height of the photograph in pixels.
        width: Width of the photograph in pixels.
    """
    inside = np.zeros((height, width), dtype=bool)
    for box in boxes:
        rows, columns = _pixels(box.top, box.bottom, height), _pixels(box.left, box.right, width)
        inside[rows, columns] = True
    return inside


def _pixels(start: float, end: float, length: int) -> slice:
    first, last = math.ceil(start - 0.5), math.ceil(end - 0.5)
    if first >= last:  # thinner than a pixel and between two centres
        first = math.floor((start + end) / 2)
        last = first + 1
    return slice(max(first, 0), min(max(last, 0), length))
