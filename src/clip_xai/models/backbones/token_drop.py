"""Leaving patches out of a transformer: what is taken away is not there at all, and nothing stands in its place."""

from __future__ import annotations

import torch
from torch import Tensor

from clip_xai.models.backbones.recording import Recorder
from clip_xai.models.backbones.tower import Features, ImageTower, known_read
from clip_xai.models.backbones.transformer import TransformerTower, open_block, openable


def drops_tokens(tower: ImageTower) -> bool:
    """Tell whether patches can be left out of a tower.

    Its blocks must be plain attention over all tokens, and its embedding read at a class token: the mean of no patch at
    all is not defined.
    """
    return isinstance(tower, TransformerTower) and tower.reads_class_token and openable(tower)


def read_kept(tower: TransformerTower, embedded: Tensor, kept: Tensor, reads: str) -> Tensor:
    """Read images of which each shows K of its N patches; the others never enter the first block.

    Args:
        tower: One that :func:`drops_tokens`, in evaluation mode.
        embedded: What enters the first block of the whole images, ``[n or 1, P + N, W]``.
        kept: Numbers of the patches that stay, ``[n, K]``, row by row from the upper left; K may be 0.
        reads: ``"pooled"``, ``"patches"`` or ``"tokens"``.

    Returns:
        ``[n, D]``, ``[n, K, W]`` or ``[n, P + K, W]``.
    """
    tokens = _chosen(tower, embedded, kept)
    *others, last = tower.blocks
    for block in others:
        tokens = block.run(tokens, None)
    if known_read(reads) != "pooled":
        return tower.read(last.run(tokens, None), reads)
    recorder = Recorder(len(others) + 1, (), ())
    return tower.pooled(open_block(recorder, len(others), last, tokens, slice(0, 1)))


def features_of_kept(tower: TransformerTower, embedded: Tensor, kept: Tensor) -> Features:
    """Return all that the tower hands over for images of which each shows K of its patches; see :func:`read_kept`."""
    tokens = _chosen(tower, embedded, kept)
    for block in tower.blocks:
        tokens = block.run(tokens, None)
    return Features(tower.pooled(tokens), tower.last_norm(tokens), tower.prefix_tokens)


def _chosen(tower: TransformerTower, embedded: Tensor, kept: Tensor) -> Tensor:
    prefix = torch.arange(tower.prefix_tokens, device=kept.device).expand(len(kept), -1)
    rows = torch.cat([prefix, kept + tower.prefix_tokens], dim=1)
    return embedded.expand(len(kept), -1, -1).gather(1, rows[..., None].expand(-1, -1, embedded.shape[-1]))
