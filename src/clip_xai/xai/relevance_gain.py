"""Symmetric relevance gain (SRG) of many maps over one photograph, quickly: three steps, one stream of masked images.

SRG = area(least relevant first) - area(most relevant first), the areas being those under the score while the photograph
is deleted (Blücher, Vielhaben & Strodthoff, TMLR 2024): unlike either area alone it hardly depends on what stands where
the photograph is deleted. The untouched photograph and the fill alone are common to both curves and drop out, so three
steps cost six masked images a map. The gain of a negated map is the negative of the map's own, wherever no two places
of it are equally hot.
"""

from __future__ import annotations

from collections.abc import Hashable

import torch
from torch import Tensor

from clip_xai.xai.baselines import MeanColour
from clip_xai.xai.curve_protocols import PROTOCOLS
from clip_xai.xai.insertion_deletion import OrderMasks, on_units, ranked
from clip_xai.xai.perturbation_bank import PerturbationBank, scores_in_parts
from clip_xai.xai.targets import Target

#: Shares that are deleted. The first is small: with equal steps, every map that has a small decisive region anywhere
#: in its hottest quarter gains as much as the one that points at it.
SHARES = (0.1, 0.3, 0.7)
STEPS = len(SHARES)
PASSES = 2 * STEPS  # masked images for each map
PROTOCOL = PROTOCOLS["default"]  # whole patch cells
DELETED_TO = MeanColour()


def relevance_gains(
    bank: PerturbationBank,
    target: Target,
    maps: Tensor,
    *,
    seed: int = 0,
    key: Hashable | None = None,
    chunk_size: int = 64,
) -> Tensor:
    """Return the symmetric relevance gain of several maps over one photograph, for every score of a target.

    ``sum_k w_k (s(least relevant share k deleted) - s(most relevant share k deleted))`` over the deleted shares
    k = .1, .3, .7, with the weights w_k of the trapezoidal rule. Cells of equal heat come in an order that is drawn at
    random, the same for all maps.

    Args:
        bank: The tower and the photograph, ``[1, 3, S, S]``.
        target: What is scored.
        maps: ``[R, h, w]``; on another grid than the tower's cells they are laid over the picture (bilinear).
        seed: Seed of the order of equal places.
        key: Names the maps where other targets are asked about the very same ones: the bank then keeps their pooled
            embeddings, and a second target costs no pass.
        chunk_size: Masked images in one forward pass.

    Returns:
        ``[R, T]`` in the units of the score, double precision, on the CPU.

    Raises:
        ValueError: There are several photographs, or a map that holds NaN or infinity.

    Example:
        >>> from clip_xai.xai.examples import example
        >>> backbone, pixels, target = example()
        >>> bank = PerturbationBank(backbone, pixels[:1])
        >>> relevance_gains(bank, target, torch.rand(5, *backbone.grid)).shape, bank.forwards
        (torch.Size([5, 2]), 30)
    """
    if len(bank.pixels) != 1:
        raise ValueError(f"gains are of maps over one photograph, not {len(bank.pixels)}")
    if not torch.isfinite(maps).all():
        raise ValueError("a map holds NaN or infinity and has no order")
    side = bank.pixels.shape[-1]
    units = units_of(bank)
    total = units[0] * units[1]
    counts = torch.tensor([round(total * share) for share in SHARES])
    number = torch.arange(len(maps)).repeat_interleave(STEPS)
    removed = counts.repeat(len(maps))
    least_first = torch.stack([number, torch.zeros_like(removed), total - removed], dim=1)
    most_first = torch.stack([number, removed, torch.full_like(removed, total)], dim=1)
    masks = OrderMasks(ranked(on_units(maps, units, side), seed), torch.cat([least_first, most_first]))
    masks.key = None if key is None else ("relevance gain", key)
    stream = bank.stream(
        masks, reads=target.reads, fill=DELETED_TO(bank.pixels), fill_key="mean colour", chunk_size=chunk_size
    )
    with torch.no_grad():
        scores = torch.cat([scores_in_parts(target.score, read) for _, read in stream]).double().cpu()
    least, most = scores.view(2, len(maps), STEPS, -1)
    # Trapezoids between the shares that are really deleted: cells do not always divide so.
    shares = torch.cat([torch.zeros(1), counts / total, torch.ones(1)]).double()
    weights = (shares[2:] - shares[:-2]) / 2
    return ((least - most) * weights[:, None]).sum(dim=1)


def units_of(bank: PerturbationBank) -> tuple[int, int]:
    """Return the cells, rows and columns, that are deleted in one piece."""
    return PROTOCOL.units(bank.backbone.grid, bank.pixels.shape[-1])
