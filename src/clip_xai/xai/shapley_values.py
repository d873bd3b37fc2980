"""Shapley values from coalitions: which to ask, and what follows from the answers.

KernelSHAP (Lundberg and Lee, NeurIPS 2017, arXiv 1705.07874): the Shapley values of a game v of M players are the
coefficients of the additive game that fits v best under the weights::

    pi(z) = (M - 1) / ( C(M, |z|) |z| (M - |z|) )      sum of phi = v(all) - v(nobody)

over all coalitions z but the empty and the full one, whose weights are infinite and become the constraint.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from math import comb

import torch
from torch import Tensor

from clip_xai.errors import UserError


@dataclass(frozen=True)
class Coalitions:
    """Which players are present, and how much each coalition counts.

    Attributes:
        present: Bool ``[n, M]``; neither nobody nor everybody.
        weights: ``[n]``, float64.
        exact: Every coalition is there, so the Shapley values will be exact.
    """

    present: Tensor
    weights: Tensor
    exact: bool


def coalitions(players: int, samples: int, seed: int) -> Coalitions:
    """Choose coalitions of M players.

    All of them if they are at most ``samples``. Else, sizes are taken from the outside in: one player and all but
    one always, then two and all but two and so on as long as a size's share of the samples would cover its coalitions;
    these are all taken, at their exact weight. The rest of the samples is drawn from the sizes that are left, in pairs
    of a coalition and its complement, with probability proportional to the kernel, and shares those sizes' weight
    evenly.

    Args:
        players: M.
        samples: Most coalitions that may be asked.
        seed: Seed of the draws.

    Raises:
        UserError: There are too few samples for as many players.

    Example:
        >>> coalitions(3, 6, seed=0).present.int().tolist()
        [[1, 0, 0], [0, 1, 1], [0, 1, 0], [1, 0, 1], [0, 0, 1], [1, 1, 0]]
    """
    every = 2**players - 2
    if players < 1:
        raise UserError("there are no players to share the score among: give a text with words, or more players")
    if samples < min(every, 4 * players):
        raise UserError(f"{players} players need at least {min(every, 4 * players)} samples: raise samples")
    if players == 1:
        return Coalitions(torch.zeros(0, 1, dtype=torch.bool), torch.zeros(0, dtype=torch.float64), True)
    sizes = list(range(1, players // 2 + 1))
    # Weight of a size and its complement together.
    total = {size: (players - 1) / (size * (players - size)) * (1 if 2 * size == players else 2) for size in sizes}
    rows: list[Tensor] = []
    weights: list[Tensor] = []
    left = samples
    while sizes:
        size = sizes[0]
        count = comb(players, size) * (1 if 2 * size == players else 2)
        if rows and samples < every and left * total[size] / sum(total[other] for other in sizes) < count:
            break
        block = _every(players, size)
        rows.append(block)
        weights.append(torch.full((len(block),), total[size] / count, dtype=torch.float64))
        left -= count
        sizes.pop(0)
    if sizes:
        block = _draw(players, {size: total[size] for size in sizes}, left // 2, seed)
        rows.append(block)
        weights.append(torch.full((len(block),), sum(total[size] for size in sizes) / len(block), dtype=torch.float64))
    return Coalitions(torch.cat(rows), torch.cat(weights), exact=not sizes)


def shapley_values(asked: Coalitions, values: Tensor, nobody: Tensor, everybody: Tensor) -> Tensor:
    """Return the Shapley values of T games on the same players, ``[M, T]``; exact if ``asked`` is.

    The weighted least squares with the sum as constraint, in closed form, with one factorisation for all T games::

        A = Z^T W Z     phi = A^-1 ( Z^T W (v - v0) - lambda 1 )     lambda: sum of phi = v(all) - v(nobody)

    Args:
        asked: The coalitions.
        values: Their values ``[n, T]``.
        nobody: Value of nobody, ``[T]``.
        everybody: Value of everybody, ``[T]``.

    Raises:
        UserError: The coalitions that were asked leave the values open.
    """
    device = values.device
    gain = (everybody - nobody).double()
    present = asked.present.to(device).double()
    players = present.shape[1]
    if players == 1:
        return gain[None].to(values)
    weighted = present.T * asked.weights.to(device)
    factor, failed = torch.linalg.cholesky_ex(weighted @ present)
    if int(failed):
        raise UserError(f"{len(present)} coalitions leave the values of {players} players open: raise samples")
    sides = torch.cat([weighted @ (values.double() - nobody.double()), present.new_ones(players, 1)], dim=1)
    solved = torch.cholesky_solve(sides, factor)
    free, ones = solved[:, :-1], solved[:, -1:]
    return (free - ones * (free.sum(dim=0) - gain) / ones.sum()).to(values)


def _every(players: int, size: int) -> Tensor:
    """All coalitions of a size, each followed by its complement."""
    present = torch.zeros(comb(players, size), players, dtype=torch.bool)
    chosen = torch.tensor(list(combinations(range(players), size)))
    present.scatter_(1, chosen, True)
    if 2 * size == players:
        return present
    return torch.stack([present, ~present], dim=1).flatten(0, 1)


def _draw(players: int, total: dict[int, float], pairs: int, seed: int) -> Tensor:
    """Pairs of a random coalition and its complement, sizes in proportion to their weight."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.tensor(list(total))
    drawn = sizes[torch.multinomial(torch.tensor(list(total.values())), pairs, replacement=True, generator=generator)]
    order = torch.rand(pairs, players, generator=generator).argsort(dim=1).argsort(dim=1)
    present = order < drawn[:, None]
    return torch.stack([present, ~present], dim=1).flatten(0, 1)
