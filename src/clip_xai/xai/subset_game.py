"""Sensitivity-n and infidelity: does the heat of a set of cells foresee what taking the set away does to the score?

All maps of a photograph are held against the same sets, which are taken away once, so that the cost does not depend on
how many maps there are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from clip_xai.xai.baselines import Baseline, TokenDrop
from clip_xai.xai.curve_protocols import REMOVALS, CurveProtocol
from clip_xai.xai.dropping import dropped_scores, require_droppable
from clip_xai.xai.imputation import Road
from clip_xai.xai.insertion_deletion import on_units
from clip_xai.xai.masks import CellMasks
from clip_xai.xai.perturbation_bank import PerturbationBank
from clip_xai.xai.target import Target

#: Share of the cells in a set: n of sensitivity-n, from a few to nearly all.
SHARES = (0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8)
EACH = 16  # sets of each size


@dataclass(frozen=True)
class SubsetGame:
    """What the score loses as sets of cells are taken away from one photograph.

    Attributes:
        removed: The sets, bool ``[K, n, h, w]``: n of each of K sizes.
        drops: ``s(photograph) - s(photograph without the set)``, ``[K, n, T]`` in double precision.
        side: S, over which maps on other grids are laid.
    """

    removed: Tensor
    drops: Tensor
    side: int

    def heat(self, maps: Tensor) -> Tensor:
        """Return the heat of each map inside each set, ``[K, n, R]``; maps ``[R, h, w]`` on any grid."""
        cells = on_units(maps.cpu(), (self.removed.shape[2], self.removed.shape[3]), self.side)
        return torch.einsum("knhw,rhw->knr", self.removed.double(), cells.double())


def subset_game(
    bank: PerturbationBank,
    target: Target,
    removal: Baseline = REMOVALS["mean"],
    *,
    shares: tuple[float, ...] = SHARES,
    each: int = EACH,
    seed: int = 0,
    chunk_size: int = 64,
) -> SubsetGame:
    """Take random sets of whole patch cells away from one photograph.

    Args:
        bank: The tower and the photograph, ``[1, 3, S, S]``.
        target: What is scored.
        removal: What is left where they were.
        shares: Sizes of the sets, as shares of all cells; at least one cell each.
        each: Sets of each size.
        seed: Seed of the sets.
        chunk_size: Images in one forward pass.

    Raises:
        ValueError: There are several photographs.
        UserError: Patches are to be left out, which this tower or target does not allow.

    Example:
        >>> from clip_xai.xai.examples import example
        >>> backbone, pixels, target = example()
        >>> game = subset_game(PerturbationBank(backbone, pixels[:1]), target, each=5)
        >>> game.drops.shape, game.heat(torch.rand(3, *backbone.grid)).shape
        (torch.Size([7, 5, 2]), torch.Size([7, 5, 3]))
    """
    if len(bank.pixels) != 1:
        raise ValueError(f"sets of cells are taken from one photograph, not {len(bank.pixels)}")
    side = bank.pixels.shape[-1]
    rows, columns = CurveProtocol("sets", removal, removal, cells=True).units(bank.backbone.grid, side)
    sizes = torch.tensor([max(1, round(share * rows * columns)) for share in shares])
    order = torch.rand(len(shares), each, rows * columns, generator=torch.Generator().manual_seed(seed))
    removed = order.argsort(dim=-1).argsort(dim=-1) < sizes[:, None, None]
    kept = ~removed.flatten(0, 1)
    if isinstance(removal, TokenDrop):
        require_droppable(bank.backbone, target)
        scores = dropped_scores(bank, target.reads, target.score, kept, chunk_size)
    else:
        fill = removal if isinstance(removal, Road) else removal(bank.pixels, bank.backbone.preprocess)
        masks = CellMasks(kept.view(-1, rows, columns))
        scores = bank.scores(masks, target, fill=fill, chunk_size=chunk_size)[0]
    drops = (bank.whole_scores(target) - scores).double().cpu()
    return SubsetGame(removed.view(len(shares), each, rows, columns), drops.view(len(shares), each, -1), side)


def sensitivity_n(game: SubsetGame, maps: Tensor) -> Tensor:
    """Return how heat and drop go together over sets of one size, averaged over the sizes (Ancona et al., ICLR 2018).

    Pearson's correlation, over the sets of n cells, of the summed heat with the drop of the score; 1 for gradient x
    input of a linear model under removal to its baseline.

    Args:
        game: What the sets do.
        maps: ``[R, h, w]``.

    Returns:
        ``[R, T]``; 0 where a map has the same heat in all sets, NaN where nothing moves the score.
    """
    heat, drops = (values - values.mean(dim=1, keepdim=True) for values in (game.heat(maps), game.drops))
    spread = heat.square().sum(dim=1).sqrt()[:, :, None]
    moved = drops.square().sum(dim=1).sqrt()[:, None, :]
    together = torch.einsum("knr,knt->krt", heat, drops)
    flat = spread <= 1e-9 * game.heat(maps).abs().amax(dim=1)[:, :, None]
    correlation = torch.where(flat, 0.0, together / (spread * moved).clamp(min=1e-300))
    correlation = correlation.masked_fill(moved <= 1e-12, float("nan"))
    return correlation.nanmean(dim=0)


def infidelity(game: SubsetGame, maps: Tensor) -> Tensor:
    """Return the share of the drops' size that the heat of the sets does not foresee (Yeh et al., NeurIPS 2019).

    ``mean (b heat - drop)^2 / mean drop^2`` over all sets, with the scale b that does best for each map, because heat
    has no unit (captum's ``infidelity`` with ``normalize=True``, over the mean square of the drops): 0 for what
    foresees them exactly, 1 for what foresees nothing.

    Args:
        game: What the sets do.
        maps: ``[R, h, w]``.

    Returns:
        ``[R, T]``; NaN where nothing moves the score.
    """
    heat, drops = game.heat(maps).flatten(0, 1), game.drops.flatten(0, 1)
    both = heat.T @ drops
    explained = both.square() / heat.square().sum(dim=0)[:, None].clamp(min=1e-300)
    size = drops.square().sum(dim=0)
    return torch.where(size > 1e-20, 1 - explained / size.clamp(min=1e-300), float("nan"))
