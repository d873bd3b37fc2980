"""Insertion and deletion (Petsiuk et al., BMVC 2018): what the score does as the hottest places come or go first.

A map that ranks well makes the score rise early when the photograph is inserted hottest first, and fall early when it
is deleted hottest first. Neither number means much by itself: a curve is read beside that of random smooth maps, and
beside that of the same map reversed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from clip_xai.xai.baselines import Baseline, TokenDrop
from clip_xai.xai.curve_protocols import PROTOCOLS, CurveProtocol, Score, scored
from clip_xai.xai.dropping import dropped_scores, require_droppable
from clip_xai.xai.imputation import Road
from clip_xai.xai.masks import Masks, pooled
from clip_xai.xai.perturbation_bank import PerturbationBank, scores_in_parts
from clip_xai.xai.targets import Target

RANDOM_SIDE = 4  # a random map is noise on so many places a side, made smooth
_SMOOTH_GRID = 8


class OrderMasks(Masks):
    """Masks that keep the places whose rank in a map lies between two bounds."""

    def __init__(self, ranks: Tensor, rows: Tensor) -> None:
        """Take the ranks of the places of R maps and what each mask keeps.

        Args:
            ranks: ``[R, h, w]``, 0 for the hottest place, on any grid.
            rows: ``[M, 3]``: number of the map, first rank kept, first rank no longer kept.
        """
        self.ranks, self.rows = ranks, rows
        self.count = len(rows)

    def kept(self, rows: Tensor) -> Tensor:
        """Return which places some of the masks keep, bool ``[n, h, w]``."""
        chosen = self.rows[rows.cpu()].to(self.ranks.device)
        ranks = self.ranks[chosen[:, 0]]
        return (ranks >= chosen[:, 1, None, None]) & (ranks < chosen[:, 2, None, None])

    def pixels(self, images: Tensor, rows: Tensor, side: int) -> Tensor:
        """Make masks at the resolution of the image, for one image; every pixel belongs to one place."""
        del images
        kept = self.kept(rows).float()
        down, across = (
            torch.arange(side, device=kept.device) * length // side for length in (kept.shape[1], kept.shape[2])
        )
        return kept[:, down][:, :, across]


@dataclass(frozen=True)
class Curves:
    """Curves of R maps over one photograph, for T scores each.

    Attributes:
        protocol: How they were drawn.
        score_name: What the heights are.
        shares: Share of the picture that is inserted or deleted at each point, ``[K]``.
        insertion: ``[R, K, T]``, the hottest places first.
        deletion: ``[R, K, T]``, the hottest places first.
        reversed_insertion: The coldest places first, ``[R', K, T]`` for the maps that are drawn reversed.
        reversed_deletion: Likewise.
        note: What a reader must know of the score; empty for most.
    """

    protocol: CurveProtocol
    score_name: str
    shares: Tensor
    insertion: Tensor
    deletion: Tensor
    reversed_insertion: Tensor
    reversed_deletion: Tensor
    note: str = ""

    def area(self, curves: Tensor) -> Tensor:
        """Return the areas ``[R, T]`` of some of the curves ``[R, K, T]``, by the protocol's rule."""
        return self.protocol.areas(curves.transpose(1, 2), self.shares)

    def relevance_gain(self) -> Tensor:
        """Return the symmetric relevance gain ``[R', T]`` of the maps that were drawn reversed.

        The area under deletion of the coldest places first, less that of the hottest first (Blücher, Vielhaben &
        Strodthoff, TMLR 2024): unlike either area alone it hardly depends on what stands where the photograph is
        deleted.
        """
        backwards = self.area(self.reversed_deletion)
        return backwards - self.area(self.deletion[: len(backwards)])

    def span(self) -> Tensor:
        """Return how far the score of the whole photograph lies above that of nothing, ``[T]``.

        Areas over its size compare between targets. It is the last point of deletion that stands for nothing, so that
        a protocol which ends before has none: NaN.
        """
        if float(self.shares[-1]) < 1:
            return torch.full_like(self.deletion[0, 0], torch.nan)
        return self.deletion[0, 0] - self.deletion[0, -1]


def insertion_deletion(
    bank: PerturbationBank,
    target: Target,
    maps: Tensor,
    protocol: CurveProtocol = PROTOCOLS["default"],
    *,
    seed: int = 0,
    reverse: int | None = None,
    chunk_size: int = 64,
) -> Curves:
    """Draw the curves of several maps over one photograph, in one stream of masked images for each baseline.

    Each map is sorted once. Places of equal heat come in an order that is drawn at random, the same for all maps; the
    reversed map has exactly the reverse order. Masked images that two curves share are run once, and all T scores
    are read from the same pass.

    Args:
        bank: The tower and the photograph, ``[1, 3, S, S]``.
        target: What is scored.
        maps: ``[R, h, w]``; on another grid than the protocol's they are laid over the picture (bilinear).
        protocol: How.
        seed: Seed of the order of equal places.
        reverse: So many of the maps, the first ones, are drawn reversed as well; None for all.
        chunk_size: Masked images in one forward pass.

    Raises:
        ValueError: There are several photographs, or a map that holds NaN or infinity.
        UserError: The protocol leaves patches out, which this tower or target does not allow.

    Example:
        >>> from clip_xai.xai.examples import example
        >>> backbone, pixels, target = example()
        >>> bank = PerturbationBank(backbone, pixels[:1])
        >>> found = insertion_deletion(bank, target, torch.rand(3, *backbone.grid))
        >>> found.insertion.shape, found.area(found.deletion).shape
        (torch.Size([3, 23, 2]), torch.Size([3, 2]))
    """
    if len(bank.pixels) != 1:
        raise ValueError(f"curves are drawn over one photograph, not {len(bank.pixels)}")
    if not torch.isfinite(maps).all():
        raise ValueError("a map holds NaN or infinity and has no order")
    side = bank.pixels.shape[-1]
    height, width = protocol.units(bank.backbone.grid, side)
    total = height * width
    ranks = ranked(on_units(maps, (height, width), side), seed)
    counts = torch.tensor(protocol.counts(total))
    none, every = torch.zeros_like(counts), torch.full_like(counts, total)
    backwards = len(maps) if reverse is None else reverse
    wanted = {  # of how many maps, and which ranks each point of a curve keeps of the photograph
        "insertion": (protocol.insertion, len(maps), none, counts),
        "deletion": (protocol.deletion, len(maps), counts, every),
        "reversed_insertion": (protocol.insertion, backwards, total - counts, every),
        "reversed_deletion": (protocol.deletion, backwards, none, total - counts),
    }
    if isinstance(protocol.deletion, TokenDrop):
        require_droppable(bank.backbone, target)
    how = scored(target, protocol)
    drawn: dict[str, Tensor] = {}
    for baseline in dict.fromkeys(place for place, _, _, _ in wanted.values()):
        rows = {
            name: _rows(number, low, high, total)
            for name, (place, number, low, high) in wanted.items()
            if place == baseline
        }
        kept, places = torch.cat([one.flatten(0, 1) for one in rows.values()]).unique(dim=0, return_inverse=True)
        scores = _scores(bank, target.reads, OrderMasks(ranks, kept), baseline, how.score, chunk_size)
        parts = scores[places].split([one.shape[0] * one.shape[1] for one in rows.values()])
        drawn |= {name: part.unflatten(0, one.shape[:2]) for (name, one), part in zip(rows.items(), parts, strict=True)}
    return Curves(protocol, how.name, counts / total, **drawn, note=how.note)


def random_smooth_maps(count: int, grid: tuple[int, int], seed: int = 0) -> Tensor:
    """Return maps ``[count, h, w]`` that know neither model nor photograph, smooth as maps are.

    Args:
        count: How many.
        grid: The tower's patch grid; they are at least 8 places a side.
        seed: Seed of the noise.
    """
    noise = torch.randn(count, 1, RANDOM_SIDE, RANDOM_SIDE, generator=torch.Generator().manual_seed(seed))
    size = (max(_SMOOTH_GRID, grid[0]), max(_SMOOTH_GRID, grid[1]))
    return F.interpolate(noise, size=size, mode="bicubic", align_corners=False)[:, 0]


def ranked(maps: Tensor, seed: int = 0) -> Tensor:
    """Return the rank of each place of each map, 0 for the hottest; equal places in an order drawn at random.

    Args:
        maps: ``[R, h, w]``.
        seed: Seed of that order.

    Example:
        >>> ranked(torch.tensor([[[3.0, 1.0], [2.0, 5.0]]])).tolist()
        [[[1, 3], [2, 0]]]
    """
    flat = maps.flatten(1)
    drawn = torch.randperm(flat.shape[1], generator=torch.Generator().manual_seed(seed)).to(flat.device)
    order = drawn[flat[:, drawn].argsort(dim=1, descending=True, stable=True)]
    places = torch.arange(flat.shape[1], device=flat.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places).view(maps.shape)


def on_units(maps: Tensor, units: tuple[int, int], side: int) -> Tensor:
    """Return maps ``[R, h, w]`` on the places that a protocol takes in one piece, laid over the picture (bilinear).

    Args:
        maps: On any grid.
        units: Rows and columns.
        side: S.
    """
    if tuple(maps.shape[1:]) == units:
        return maps
    # Rounded to single precision, so that rounding does not order what is flat.
    laid = F.interpolate(maps[:, None].double(), size=(side, side), mode="bilinear", align_corners=False)[:, 0]
    return (laid if units == (side, side) else pooled(laid, units)).float()


def _rows(maps: int, low: Tensor, high: Tensor, total: int) -> Tensor:
    """Rows ``[R, K, 3]`` of OrderMasks; nothing and everything are the same of every map."""
    empty = low >= high
    trivial = empty | ((low == 0) & (high == total))
    low, high = (torch.where(empty, torch.zeros_like(low), bound) for bound in (low, high))
    numbers = torch.arange(maps)[:, None] * ~trivial
    return torch.stack([numbers, low.expand(maps, -1), high.expand(maps, -1)], dim=-1)


def _scores(
    bank: PerturbationBank, reads: str, masks: OrderMasks, baseline: Baseline, score: Score, chunk_size: int
) -> Tensor:
    if isinstance(baseline, TokenDrop):
        kept = masks.kept(torch.arange(masks.count)).flatten(1)
        return dropped_scores(bank, reads, score, kept, chunk_size).cpu()
    fill = baseline if isinstance(baseline, Road) else baseline(bank.pixels, bank.backbone.preprocess)
    with torch.no_grad():
        stream = bank.stream(masks, reads=reads, fill=fill, chunk_size=chunk_size)
        return torch.cat([scores_in_parts(score, read) for _, read in stream]).cpu()
