"""Settings that name blocks of a tower, held against how many it has."""

from __future__ import annotations


def too_deep(setting: str, layers: int, depth: int, published: int | None = None) -> str | None:
    """Return why a number of blocks does not fit a tower, None if it does.

    Args:
        setting: The setting's name, such as ``legrad.layers``.
        layers: How many of the last blocks it asks for.
        depth: How many the tower has.
        published: The default, where a tower of fewer blocks is to be taken whole.

    Example:
        >>> too_deep("legrad.layers", 99, 4)
        'asks for 99 blocks of a tower of 4 (xai.legrad.layers): set 1 to 4'
        >>> too_deep("clip_surgery.layers", 6, 4, published=6)
    """
    if layers <= depth or layers == published:
        return None
    return f"asks for {layers} blocks of a tower of {depth} (xai.{setting}): set 1 to {depth}"


def no_such_block(setting: str, layer: int, depth: int) -> str | None:
    """Return why a block's number does not fit a tower, None if it does.

    Args:
        setting: The setting's name, such as ``gradcam.layer``.
        layer: The number, from 0, or from the end if negative.
        depth: How many blocks the tower has.

    Example:
        >>> no_such_block("gradcam.layer", 4, 4)
        'asks for block 4 of a tower of 4 (xai.gradcam.layer): set -4 to 3'
    """
    if -depth <= layer < depth:
        return None
    return f"asks for block {layer} of a tower of {depth} (xai.{setting}): set {-depth} to {depth - 1}"
