"""F-Fidelity (Zheng et al., ICLR 2025): relevance gain from pictures that never miss more than the model was tuned to.

Removing whole regions shows a model what it never saw. Here a part of a map's hottest cells is removed at random, so
little that no picture is less complete than those on which the model was fine-tuned once, blind to every explanation
(:func:`clip_xai.training.dropped_tokens.tuned_to_dropped_tokens`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from clip_xai.xai.dropping import dropped_scores, require_droppable
from clip_xai.xai.insertion_deletion import on_units, ranked
from clip_xai.xai.perturbation_bank import PerturbationBank
from clip_xai.xai.target import Target

ALPHA, BETA = 0.1, 0.1  # as published
DRAWS, SIZES = 50, 20


@dataclass(frozen=True)
class FFidelity:
    """Mean scores of R maps over one photograph as parts of their hottest and of their coldest cells are removed.

    Attributes:
        shares: The share of cells among which some are removed at each size, ``[K]``.
        most: Among the hottest, ``[R, K, T]``.
        least: Among the coldest, ``[R, K, T]``.
    """

    shares: Tensor
    most: Tensor
    least: Tensor

    def gain(self) -> Tensor:
        """Return the area of ``least`` above ``most`` over the shares, ``[R, T]``: the mean height by trapezoids."""
        widths = self.shares.diff().to(self.most)[:, None]
        apart = self.least - self.most
        return ((apart[:, 1:] + apart[:, :-1]) / 2 * widths).sum(dim=1) / widths.sum()


def deletion_rate(cells: int, size: int, alpha: float = ALPHA, beta: float = BETA) -> float:
    """Return how likely each of the chosen cells is deleted: never more than ``beta`` of all cells in expectation.

    Args:
        cells: N, all cells.
        size: Cells among which some are deleted.
        alpha: The chance that is wanted.
        beta: Share of all cells that the model was tuned without.

    Example:
        >>> deletion_rate(100, 5), deletion_rate(100, 50, alpha=0.5)
        (0.1, 0.2)
    """
    return min(alpha, beta * cells / size)


def f_fidelity(
    bank: PerturbationBank,
    target: Target,
    maps: Tensor,
    *,
    alpha: float = ALPHA,
    beta: float = BETA,
    draws: int = DRAWS,
    sizes: int = SIZES,
    seed: int = 0,
    chunk_size: int = 64,
) -> FFidelity:
    """Average the score over random deletions among the hottest, and among the coldest, cells of several maps.

    At each of ``sizes`` even steps up to all cells, each of the hottest (coldest) so many cells is left out of the
    tower with the probability of :func:`deletion_rate`. All maps, sizes and both orders share the same draws.

    Args:
        bank: The fine-tuned tower and one photograph.
        target: What is scored.
        maps: ``[R, h, w]`` on any grid.
        alpha: How likely a chosen cell is deleted.
        beta: Share of patches that the tower was tuned without.
        draws: Pictures behind each mean.
        sizes: Points of the curves.
        seed: Seed of the draws and of the order of equal cells.
        chunk_size: Images in one forward pass.

    Raises:
        UserError: Patches cannot be left out of this tower, or for this target.

    Example:
        >>> from clip_xai.xai.examples import example
        >>> backbone, pixels, target = example()
        >>> bank = PerturbationBank(backbone, pixels[:1])
        >>> f_fidelity(bank, target, torch.rand(3, *backbone.grid), draws=4, sizes=4).gain().shape
        torch.Size([3, 2])
    """
    require_droppable(bank.backbone, target)
    grid = bank.backbone.grid
    cells = grid[0] * grid[1]
    ranks = ranked(on_units(maps.cpu(), grid, bank.pixels.shape[-1]), seed).flatten(1)
    counts = [max(1, round(cells * step / sizes)) for step in range(1, sizes + 1)]
    rates = torch.tensor([deletion_rate(cells, count, alpha, beta) for count in counts])
    drawn = torch.rand(draws, cells, generator=torch.Generator().manual_seed(seed)) < rates[:, None, None]
    chosen = torch.tensor(counts)[None, :, None]
    hottest = ranks[:, None] < chosen  # [R, K, N]
    coldest = ranks[:, None] >= cells - chosen
    among = torch.stack([hottest, coldest])[:, :, :, None]
    rows, places = (~(among & drawn)).flatten(0, 3).unique(dim=0, return_inverse=True)
    scores = dropped_scores(bank, target.reads, target.score, rows, chunk_size).double().cpu()
    most, least = scores[places].unflatten(0, (2, len(ranks), sizes, draws)).mean(dim=3)
    return FFidelity(torch.tensor(counts) / cells, most, least)
