"""Boxes and masks of findings brought onto the photographs that are there: scaled, clipped, or left out by name."""

from __future__ import annotations

import numpy as np
from PIL import Image

from clip_xai.data.record import Problem, Record
from clip_xai.data.run_lengths import decode_run_lengths, encode_run_lengths

#: By how much the shapes of a photograph and of a copy may differ: sides are rounded to whole pixels.
_SAME_SHAPE = 0.02


def place_findings(record: Record) -> list[Problem]:
    """Bring a record's boxes into pixels of its photograph and check its masks, in place; its size must be known.

    Boxes that were drawn on a picture of another size (`Record.box_frame`) are scaled. A box that reaches beyond the
    photograph is clipped, one that lies outside of it is left out, and both are named.

    Returns:
        What was changed or left out.
    """
    assert record.height is not None and record.width is not None
    problems = []
    if record.box_frame is not None and record.boxes and record.box_frame != (record.width, record.height):
        across, down = record.width / record.box_frame[0], record.height / record.box_frame[1]
        record.boxes = tuple(box.scaled(across, down) for box in record.boxes)
    record.box_frame = None
    size, placed = f"the photograph of {record.width} x {record.height}", []
    for box in record.boxes:
        clipped = box.clipped(record.width, record.height)
        where = f"its box of {box.label} ({box.left:g}, {box.top:g}) to ({box.right:g}, {box.bottom:g})"
        if clipped is None:
            problems.append(Problem(record.source, record.name, "box", f"{where} lies outside of {size}: left out"))
            continue
        if clipped is not box and _beyond(box.left, box.top, box.right, box.bottom, record.width, record.height):
            problems.append(Problem(record.source, record.name, "box", f"{where} reaches beyond {size}: clipped"))
        placed.append(clipped)
    record.boxes = tuple(placed)
    masks = {}
    for label, runs in record.label_masks.items():
        try:
            masks[label] = _resized(runs, record.mask_sizes.get(label), record.height, record.width)
        except ValueError as error:
            reason = f"its mask of {label} cannot be used: {error}"
            problems.append(Problem(record.source, record.name, "mask", reason))
    if record.label_masks:
        record.label_masks = masks
    return problems


def _resized(runs: str, drawn_on: tuple[int, int] | None, height: int, width: int) -> str:
    """Return a mask's run lengths on the photograph.

    Raises:
        ValueError: They are damaged, or of a picture of another shape.
    """
    drawn_on = drawn_on or (height, width)
    mask = decode_run_lengths(runs, *drawn_on)
    if drawn_on == (height, width):
        return runs
    if abs(drawn_on[1] / drawn_on[0] / (width / height) - 1) > _SAME_SHAPE:
        raise ValueError(f"it was drawn on {drawn_on[1]} x {drawn_on[0]}, the photograph is {width} x {height}")
    small = Image.fromarray(mask.astype(np.uint8) * 255).resize((width, height), Image.Resampling.BOX)
    shares = np.asarray(small)
    marked = shares >= 128
    # A finding that is smaller than a pixel is still there.
    return encode_run_lengths(marked if marked.any() or not mask.any() else shares == shares.max())


def _beyond(left: float, top: float, right: float, bottom: float, width: int, height: int) -> bool:
    """Tell whether edges lie outside by more than rounding leaves."""
    return min(left, top) < -1e-6 or right > width + 1e-6 or bottom > height + 1e-6
