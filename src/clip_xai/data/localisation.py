"""Where on a photograph its findings are: the truth that heat maps are held against."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from clip_xai.data.boxes import mask_of_boxes
from clip_xai.data.images import read_mask
from clip_xai.data.record import Record
from clip_xai.data.run_lengths import decode_run_lengths

if TYPE_CHECKING:
    from torch import Tensor

    from clip_xai.data.preprocess import Preprocess


def localised_labels(record: Record) -> tuple[str, ...]:
    """Return the labels that a record has boxes or masks of their own for, in order and each once."""
    return tuple(dict.fromkeys([*(box.label for box in record.boxes), *record.label_masks]))


def localisation_truth(record: Record, label: str | None = None) -> NDArray[np.bool_] | None:
    """Return which pixels of the photograph show a finding.

    With a label: the union of its boxes and its own mask; where the record has none for any label, the mask file, which
    marks the subject of the photograph whatever it is called. Nothing is shown of a label that is stated to be absent.
    Without a label: the union of all boxes and masks of the record.

    Args:
        record: A row of a manifest; height and width are known.
        label: A name of `Record.labels`.

    Returns:
        Bool ``[height, width]`` of the upright photograph, or None where it is not known where the finding is.

    Raises:
        UnreadableImageError: The mask file cannot be used.
        ValueError: The size of the photograph is not known.
    """
    if label is not None and record.labels.get(label, True) is False:
        return None
    boxes = [box for box in record.boxes if label in (None, box.label)]
    masks = [runs for name, runs in record.label_masks.items() if label in (None, name)]
    by_file = record.mask is not None and (label is None or not localised_labels(record))
    if not boxes and not masks and not by_file:
        return None
    truth = np.zeros((0, 0), dtype=bool)
    if boxes or masks:
        if record.height is None or record.width is None:
            raise ValueError(f"{record.identifier}: the size of the photograph is not known")
        truth = mask_of_boxes(boxes, record.height, record.width)
        for runs in masks:
            truth |= decode_run_lengths(runs, record.height, record.width)
    if by_file:
        assert record.mask is not None
        marked = read_mask(record.mask, record.mask_values)
        truth = marked if not truth.size else truth | marked
    return truth


def localisation_on_grid(
    record: Record, preprocess: Preprocess, size: int | tuple[int, int], label: str | None = None
) -> Tensor | None:
    """Return how much of each cell of the model's square shows a finding.

    The square is the one that `preprocess` cuts from the photograph, so the truth lies in the space of heat maps:
    a box outside of the centre crop is not in it, and padding shows nothing.

    Args:
        record: As for `localisation_truth`.
        preprocess: What the model's input is made by.
        size: Cells per side, or ``(h, w)``: the patch grid of a heat map, or the model's input size.
        label: As for `localisation_truth`.

    Returns:
        Shares ``[h, w]`` in float32 from 0 to 1, or None where it is not known where the finding is.
    """
    import torch

    truth = localisation_truth(record, label)
    if truth is None:
        return None
    height, width = truth.shape
    return preprocess.geometry(width, height).locate(torch.from_numpy(truth), size)
