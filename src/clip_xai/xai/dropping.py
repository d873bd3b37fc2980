"""Scores of a photograph of which patches were left out: nothing stands in their place, and fewer tokens are computed.

A fill (a mean colour, a blur) is itself something to see, and its outline tells of what it covers. A ViT can do
without: it reads as many tokens as there are.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from clip_xai.errors import UserError
from clip_xai.models.backbones.base import VisionBackbone
from clip_xai.models.backbones.chunks import in_chunks
from clip_xai.models.backbones.recording import evaluation_mode
from clip_xai.models.backbones.token_drop import drops_tokens, read_kept
from clip_xai.models.backbones.transformer import TransformerTower
from clip_xai.xai.perturbation_bank import PerturbationBank, scores_in_parts
from clip_xai.xai.target import Target


def undroppable(backbone: VisionBackbone, target: Target) -> str | None:
    """Return why patches cannot be left out where a target is asked of a tower; None if they can."""
    if not drops_tokens(backbone.image_tower):
        return f"backbone {backbone.name} is not a ViT that is read at a class token"
    if not target.any_number:
        return f"what target={target.name} reads needs every patch of the grid"
    return None


def require_droppable(backbone: VisionBackbone, target: Target) -> None:
    """Raise a ``UserError`` that says why patches cannot be left out, and what to choose instead."""
    reason = undroppable(backbone, target)
    if reason is not None:
        raise UserError(f"patches cannot be left out: {reason}; choose mean, blur or road in place of token_drop")


def dropped_scores(
    bank: PerturbationBank, reads: str, score: Callable[[Tensor], Tensor], kept: Tensor, chunk_size: int = 64
) -> Tensor:
    """Score one photograph with some of its patches, in batches of equal numbers of them.

    Args:
        bank: The tower and the photograph, ``[1, 3, S, S]``; its count of forwards goes up by one for each row, though
            a row costs less than a whole photograph.
        reads: What the score reads.
        score: From what the tower hands over to ``[n, T]``.
        kept: Which patches stay, bool ``[M, N]``.
        chunk_size: Rows in one forward pass.

    Returns:
        ``[M, T]`` in float32.

    Raises:
        ValueError: There are several photographs.
    """
    if len(bank.pixels) != 1:
        raise ValueError(f"patches are left out of one photograph, not {len(bank.pixels)}")
    tower = bank.backbone.image_tower
    assert isinstance(tower, TransformerTower)
    embedded = bank.embedded()
    kept = kept.to(embedded.device)
    counts = kept.sum(dim=1)
    found: Tensor | None = None
    with torch.no_grad(), evaluation_mode(bank.backbone):
        for count in counts.unique().tolist():
            members = (counts == count).nonzero()[:, 0]
            places = kept[members].nonzero()[:, 1].view(len(members), count)
            for rows, read in in_chunks(
                lambda rows, places=places: read_kept(tower, embedded, places[rows], reads),  # type: ignore[misc]
                len(members),
                chunk_size,
            ):
                scores = scores_in_parts(score, read)
                if found is None:
                    found = scores.new_empty(len(kept), scores.shape[1])
                found[members[rows]] = scores
    assert found is not None
    bank.forwards += len(kept)
    return found
