"""Fine-tuning a tower, once and blind to every explanation, to pictures of which some patches are left out.

F-Fidelity (Zheng et al., ICLR 2025) judges maps on such a tower, so that what is removed never looks like nothing that
it knows. Published for classifiers and their labels; here the tower learns to hand over what the original does for the
whole picture, so that it works for any model, without captions or labels, and what is scored stays the model's own.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from clip_xai.errors import UserError
from clip_xai.models.backbones.base import VisionBackbone
from clip_xai.models.backbones.recording import evaluation_mode
from clip_xai.models.backbones.token_drop import drops_tokens, features_of_kept
from clip_xai.models.backbones.tower import Features
from clip_xai.models.backbones.transformer import TransformerTower
from clip_xai.progress import track


@dataclass(frozen=True)
class TunedTower:
    """A tower that was tuned to pictures with patches left out.

    Attributes:
        backbone: A copy; the original is as it was.
        before: How far the embeddings of such pictures were from those of whole ones, ``1 - cosine``, on pictures that
            it was not tuned on; NaN where there was none.
        after: The same of the tuned tower.
    """

    backbone: VisionBackbone
    before: float
    after: float


def tuned_to_dropped_tokens(
    backbone: VisionBackbone,
    pictures: Sequence[Tensor],
    *,
    share: float = 0.1,
    steps: int = 200,
    batch_size: int = 32,
    learning_rate: float = 1e-4,
    held_out: int = 0,
    seed: int = 0,
) -> TunedTower:
    """Fine-tune a copy of a tower to hand over the same with a share of the patches left out at random.

    The loss is ``1 - cosine`` of the embeddings plus the mean squared difference of the tokens that are there, over
    their variance, to those of the original tower on the whole picture.

    Args:
        backbone: The tower; its weights are not written to.
        pictures: Preprocessed pictures ``[3, S, S]``.
        share: Share of the patches that are left out.
        steps: Optimiser steps.
        batch_size: Pictures of a step.
        learning_rate: Of AdamW; it falls to 0 along a cosine.
        held_out: So many of the pictures, the last ones, are measured on and not tuned on.
        seed: Of the batches and of what is left out.

    Raises:
        UserError: Patches cannot be left out of this tower, or there is no picture to tune on.
    """
    if not drops_tokens(backbone.image_tower):
        raise UserError(
            f"backbone {backbone.name} is not a ViT that is read at a class token, so that patches cannot be left out: "
            "leave F-Fidelity out"
        )
    training, rest = pictures[: len(pictures) - held_out], pictures[len(pictures) - held_out :]
    if not training:
        raise UserError("there is no picture to fine-tune on: give more pictures, or hold fewer out")
    with torch.inference_mode(False):
        tuned = copy.deepcopy(backbone)
    tuned.__dict__.pop("fingerprint", None)  # of the original's weights
    parameters = [value.requires_grad_(True) for value in tuned.image_tower.module.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(seed)
    with evaluation_mode(backbone), evaluation_mode(tuned), torch.enable_grad():
        for _ in track(range(steps), "Tuning the tower to patches left out"):
            chosen = torch.randint(len(training), (min(batch_size, len(training)),), generator=generator)
            loss = _loss(
                backbone, tuned, torch.stack([training[number] for number in chosen.tolist()]), share, generator
            )
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
    tuned.requires_grad_(False)
    before, after = (_distance(backbone, one, rest, share, seed) for one in (backbone, tuned))
    return TunedTower(tuned, before, after)


def _loss(
    backbone: VisionBackbone, tuned: VisionBackbone, pixels: Tensor, share: float, generator: torch.Generator
) -> Tensor:
    whole, part, kept = _both(backbone, tuned, pixels, share, generator)
    prefix = whole.prefix_tokens
    rows = torch.cat([torch.arange(prefix, device=kept.device).expand(len(kept), -1), kept + prefix], dim=1)
    tokens = whole.tokens.gather(1, rows[..., None].expand(-1, -1, whole.tokens.shape[-1]))
    apart = (part.tokens - tokens).square().mean() / tokens.var().clamp(min=1e-12)
    return (1 - F.cosine_similarity(part.pooled, whole.pooled)).mean() + apart


def _both(
    backbone: VisionBackbone, tuned: VisionBackbone, pixels: Tensor, share: float, generator: torch.Generator
) -> tuple[Features, Features, Tensor]:
    """What the original hands over for whole pictures and the other for parts of them, and which patches are there."""
    tower = tuned.image_tower
    assert isinstance(tower, TransformerTower)
    pixels = pixels.to(next(tuned.parameters()).device)
    places = tower.grid[0] * tower.grid[1]
    # As many of each picture, so that they are one batch; how many differs from batch to batch.
    left_out = int((torch.rand(places, generator=generator) < share).sum())
    order = torch.rand(len(pixels), places, generator=generator).argsort(dim=1)
    kept = order[:, left_out:].sort(dim=1).values.to(pixels.device)
    with torch.no_grad():
        whole = backbone.features(pixels)
    return whole, features_of_kept(tower, tower.embed(pixels), kept), kept


@torch.no_grad()
def _distance(
    backbone: VisionBackbone, other: VisionBackbone, pictures: Sequence[Tensor], share: float, seed: int
) -> float:
    if not pictures:
        return float("nan")
    generator = torch.Generator().manual_seed(seed + 1)
    with evaluation_mode(backbone), evaluation_mode(other):
        found = []
        for first in range(0, len(pictures), 64):
            batch = torch.stack(list(pictures[first : first + 64]))
            whole, part, _ = _both(backbone, other, batch, share, generator)
            found.append(1 - F.cosine_similarity(part.pooled, whole.pooled))
    return float(torch.cat(found).mean())
