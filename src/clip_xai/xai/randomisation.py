"""Sanity checks by random parameters: a map that stays when the model's knowledge is gone did not show it.

All parameters are drawn anew: convolutions, norms, class token, positions, projections, the text tower, and of a
captioner or classifier what stands behind the tower. Each tensor is drawn from a normal distribution with its own mean
and standard deviation, so that the network keeps its scales; running statistics of norms, which are not parameters,
stay. It is a copy that is randomised: the model of the caller is never written to.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from clip_xai.models.backbones.base import VisionBackbone
from clip_xai.models.backbones.clip import CLIPBackbone
from clip_xai.models.backbones.recording import evaluation_mode
from clip_xai.models.backbones.transformer import TransformerTower
from clip_xai.xai.target import SimilarityTarget, Target

Stage = tuple[str, list[str]]


def copied(backbone: VisionBackbone, target: Target) -> tuple[VisionBackbone, Target]:
    """Return a copy of a tower and of what is asked of it, which share no tensor with the originals.

    A captioner or a classifier that the target asks is copied with it and reads the copied tower.
    """
    with torch.inference_mode(False):
        other, asked = copy.deepcopy((backbone, target))
    other.__dict__.pop("fingerprint", None)  # of the original's weights
    return other, asked


def modules_of(backbone: VisionBackbone, target: Target) -> list[nn.Module]:
    """Return the modules that decide a target's score: the backbone, and what the target itself asks."""
    asked = [getattr(target, name, None) for name in ("captioner", "head")]
    return [backbone, *(one for one in asked if isinstance(one, nn.Module))]


def stages(backbone: VisionBackbone) -> list[Stage]:
    """Return the names of all parameters of a backbone in groups, from the input up.

    Of a transformer: what comes before the first block, each block, and all that is left (last norm, projection, text
    tower, temperature). Of another network, its parts in the order in which it registers them.
    """
    every = dict(backbone.named_parameters())
    tower = backbone.image_tower
    found: list[Stage] = []
    if isinstance(tower, TransformerTower):
        names = {id(value): name for name, value in every.items()}
        found.append(("before the blocks", [name for name in _before(backbone, tower) if name in every]))
        for number, block in enumerate(tower.blocks):
            found.append((f"block {number}", [names[id(value)] for value in block.module.parameters()]))
    else:
        prefix = next((f"{name}." for name, part in backbone.named_modules() if part is tower.module and name), "")
        for name, part in _parts(tower.module):
            own = [f"{prefix}{name}.{key}" for key, _ in part.named_parameters()]
            found.append((name, [key for key in own if key in every]))
    taken = {name for _, names_of in found for name in names_of}
    found.append(("the rest", [name for name in every if name not in taken]))
    return [(name, names_of) for name, names_of in found if names_of]


def _parts(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """The children of a network; one that holds nearly all parameters by itself is opened in its place."""
    parts = list(module.named_children())
    most = 0.9 * sum(value.numel() for value in module.parameters())
    while True:
        large = [
            number
            for number, (_, part) in enumerate(parts)
            if any(True for _ in part.children()) and sum(value.numel() for value in part.parameters()) > most
        ]
        if not large:
            return parts
        name, part = parts[large[0]]
        inner = [(f"{name}.{key}", child) for key, child in part.named_children()]
        parts[large[0] : large[0] + 1] = inner


def _before(backbone: VisionBackbone, tower: TransformerTower) -> list[str]:
    """Names of the parameters that the first block's input depends on: those that a gradient reaches from there."""
    size = backbone.preprocess.image_size
    names, values = zip(*backbone.named_parameters(), strict=True)
    like = values[0]
    with evaluation_mode(backbone), torch.inference_mode(False), torch.enable_grad():
        leaves = [value.requires_grad for value in values]
        try:
            for value in values:
                value.requires_grad_(True)
            output = tower.embed(torch.zeros(1, 3, size, size, dtype=like.dtype, device=like.device))
            reached = torch.autograd.grad(output.sum(), values, allow_unused=True)
        finally:
            for value, before in zip(values, leaves, strict=True):
                value.requires_grad_(before)
    return [name for name, gradient in zip(names, reached, strict=True) if gradient is not None]


@torch.no_grad()
def draw_anew(parameters: Iterator[Tensor] | list[Tensor], seed: int) -> None:
    """Draw tensors in place from normal distributions with their own means and standard deviations.

    Args:
        parameters: The tensors.
        seed: Of the draws; each tensor has a stream of its own.
    """
    for number, value in enumerate(parameters):
        generator = torch.Generator().manual_seed((seed * 1_000_003 + number) % 2**63)
        drawn = torch.randn(value.shape, generator=generator).to(value)
        spread = value.float().std(correction=0)
        # A number by itself, or a norm that still is all ones, has no spread of its own.
        spread = torch.where(spread > 0, spread, value.float().abs().mean().clamp(min=1e-2))
        value.copy_(value.float().mean() + spread * drawn.float())


def randomised(backbone: VisionBackbone, target: Target, seed: int = 0) -> tuple[VisionBackbone, Target]:
    """Return a copy of a model, and of what is asked of it, all of whose parameters are drawn anew.

    Texts of a similarity are embedded by the random text tower; embeddings of texts that are not known are drawn anew
    like parameters.

    Args:
        backbone: The tower.
        target: What is asked.
        seed: Of the draws.
    """
    backbone, target = copied(backbone, target)
    seen: dict[int, Tensor] = {}
    for module in modules_of(backbone, target):
        seen |= {id(value): value for value in module.parameters()}
    draw_anew(list(seen.values()), seed)
    return backbone, _asked_again(backbone, target, seed)


def bottom_up(backbone: VisionBackbone, target: Target, seed: int = 0) -> Iterator[tuple[str, VisionBackbone, Target]]:
    """Yield a copy that loses its knowledge from the input up: one more stage is random at each step.

    The last step has random parameters everywhere, those behind the tower included. It is one and the same copy: look
    at it before the next step.

    Args:
        backbone: The tower.
        target: What is asked.
        seed: Of the draws.

    Yields:
        The stage that was drawn last, the tower and the target.
    """
    every = stages(backbone)
    backbone, target = copied(backbone, target)
    named = dict(backbone.named_parameters())
    for number, (name, names) in enumerate(every):
        draw_anew([named[one] for one in names], seed + 1000 * number)
        if number < len(every) - 1:
            yield name, backbone, target
    own = {id(value) for value in named.values()}
    behind = {
        id(value): value
        for module in modules_of(backbone, target)
        for value in module.parameters()
        if id(value) not in own
    }
    draw_anew(list(behind.values()), seed + 1000 * len(every))
    yield every[-1][0], backbone, _asked_again(backbone, target, seed)


def _asked_again(backbone: VisionBackbone, target: Target, seed: int) -> Target:
    """Put the texts of a similarity to the random text tower."""
    if not isinstance(target, SimilarityTarget):
        return target
    embeddings = target.text_embeddings.clone()
    if target.texts is not None and isinstance(backbone, CLIPBackbone):
        with torch.no_grad(), evaluation_mode(backbone):
            embeddings = backbone.encode_text(target.texts).to(embeddings)
    else:
        draw_anew([embeddings], seed)
    target.text_embeddings = embeddings
    return target
