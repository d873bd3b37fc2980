"""FIxLIP: which words and patches count together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from clip_xai.errors import UserError
from clip_xai.models.backbones.base import VisionBackbone
from clip_xai.models.backbones.clip import CLIPBackbone, with_texts
from clip_xai.ranges import setting
from clip_xai.xai.attribution import Attribution
from clip_xai.xai.coalitions import ABSENT, encode, ids_without
from clip_xai.xai.explainer import Explainer, explainers
from clip_xai.xai.masks import PlayerMasks, pooled
from clip_xai.xai.methods.text_methods import text_tower
from clip_xai.xai.perturbation_bank import PerturbationBank
from clip_xai.xai.players import grid_players
from clip_xai.xai.target import SimilarityTarget, Target
from clip_xai.xai.words import Word, words_of

INDICES = ("banzhaf", "shapley")


@explainers.register("fixlip", title="FIxLIP", group="patches and words together", order=1)
@dataclass(frozen=True)
class Fixlip(Explainer):
    """FIxLIP (Baniecki et al., NeurIPS 2025, arXiv 2508.05430): second-order interactions of patches and words.

    Players are squares of the image and words of the text; v(A, B) is the similarity of the image that shows the
    squares A to the text that holds the words B. The interaction of a square i and a word j is that of the game of
    order two that fits v best when each player is present with probability p (``banzhaf``), which is the mean over the
    others of ``v(+i, +j) - v(+i, -j) - v(-i, +j) + v(-i, -j)``. The ``shapley`` index of order two (FSII) is the
    integral of that over p with density 6 p (1 - p).

    Because v(A, B) = e(A) . t(B), the interaction factorises::

        I_ij = b_i . c_j      b_i = mean gain of e from square i,   c_j = mean gain of t from word j     (both in R^D)

    so that m_I images and m_T texts are encoded instead of m_I m_T pairs, images serve all texts and texts all images.
    b and c are found by least squares of e(A) on A and of t(B) on B over the coalitions drawn, which is exactly the
    cross-modal regression of the published code on all m_I m_T pairs, whose matrix need never be built. Both are
    exact where all coalitions are asked.

    Shapes: values ``[B, T, K, h, w]``: K words, NaN past the end of shorter texts; a square's value is shared out
    evenly over its patches. Signed, in units of the score; a sum over words or patches is not a first-order
    evidence, but what the one gains from the other. Cost: ``images`` forward passes of the image tower, shared by all T
    texts, and up to ``texts`` of the text tower for each text, shared by all B images; for ``shapley`` times ``nodes``.

    Deviations from the published code: words instead of tokens, absent words are taken out of the text or padded, where
    the code hides them from attention; squares of ``cells`` x ``cells`` instead of patches; ``shapley`` factorises, too
    (there it needs joint samples); only the interactions across the two modalities are given.

    Attributes:
        index: ``"banzhaf"`` or ``"shapley"``.
        presence: p of ``banzhaf``.
        cells: Squares a side.
        images: Most coalitions of squares that are asked.
        texts: Most coalitions of words that are asked, for each text.
        nodes: Values of p that the integral of ``shapley`` is taken at.
        absent: ``"delete"`` or ``"pad"``.
        fill: Normalised value of absent squares; 0 is the mean colour of the tower's training data.
        seed: Seed of the coalitions.
        chunk_size: Images or texts in one forward pass; halved when memory runs out.

    Raises:
        UserError: The target is not a plain similarity to known texts, or there are too few coalitions for the players.

    Example:
        >>> from clip_xai.xai.examples import example
        >>> found = Fixlip(cells=2).explain(*example())
        >>> found.values.shape, found.tokens
        (torch.Size([2, 2, 3, 4, 4]), [['a', 'brown', 'lesion'], ['melanoma']])
    """

    reading: ClassVar[str] = (
        "The share of each patch, of each word, and of each patch together with each word in the score."
    )

    index: str = setting("banzhaf", one_of=INDICES)
    presence: float = setting(0.5, above=0, below=1)
    cells: int = setting(7, least=1)
    images: int = setting(500, least=1)
    texts: int = setting(256, least=1)
    nodes: int = setting(4, least=1)
    absent: str = setting("delete", one_of=ABSENT)
    fill: float = 0.0
    seed: int = setting(0, least=0)
    chunk_size: int = setting(64, least=1)

    modality: ClassVar[str] = "pair"
    linear_in_target: ClassVar[bool] = True
    cost: ClassVar[str] = "N F; up to M F of the text tower"

    def refusal(self, backbone: VisionBackbone, target: Target) -> str | None:
        """Return why the method is not defined for a tower and a target, None if it is."""
        reason = super().refusal(backbone, target)
        plain = type(target) is SimilarityTarget and target.texts is not None
        if reason is None and not isinstance(backbone, CLIPBackbone):
            return f"reads a text tower, which backbone {backbone.name} does not have"
        return reason if plain or reason is not None else "explains the plain similarity of an image to known texts"

    def explain(self, backbone: VisionBackbone, pixels: Tensor, target: Target) -> Attribution:
        """Explain the target's scores by pairs of words and patches; see the base class."""
        self.require(backbone, target)
        assert isinstance(target, SimilarityTarget) and target.texts is not None
        towers = with_texts(backbone)
        text_tower(towers)
        bank = PerturbationBank(backbone, pixels)
        words = [words_of(text, towers.token_spans(text)) for text in target.texts]
        if not all(words):
            raise UserError("a text has no words to explain: give another")
        side, grid = bank.pixels.shape[-1], backbone.grid
        owners = grid_players(side, self.cells, self.cells)
        values = torch.zeros(len(bank.pixels), len(words), max(map(len, words)), self.cells**2, device=pixels.device)
        for presence, weight in self._nodes():
            squares = drawn(self.cells**2, self.images, presence, self.seed)
            gains = self._image_gains(bank, owners, squares, target)
            for row, (text, found) in enumerate(zip(target.texts, words, strict=True)):
                of_words = self._word_gains(towers, text, found, presence, target)
                values[:, row, : len(found)] += weight * torch.einsum("kd,bpd->bkp", of_words, gains)
        for row, found in enumerate(words):
            values[:, row, len(found) :] = float("nan")
        scale = self._scale(target)
        shares = _patch_shares(owners, self.cells**2, grid).to(values)
        spread = (scale * values) @ shares
        names = [[word.text for word in found] for found in words]
        return self._attribution(spread.unflatten(-1, grid), bank.whole_scores(target), target, names)

    def _nodes(self) -> list[tuple[float, float]]:
        """The values of p that count, and their weights."""
        if self.index == "banzhaf":
            return [(self.presence, 1.0)]
        places, weights = np.polynomial.legendre.leggauss(self.nodes)
        chances = [(1 + place) / 2 for place in places]
        return [(float(p), float(3 * weight * p * (1 - p))) for p, weight in zip(chances, weights, strict=True)]

    def _image_gains(
        self, bank: PerturbationBank, owners: Tensor, squares: tuple[Tensor, Tensor], target: SimilarityTarget
    ) -> Tensor:
        present, weights = squares
        masks = PlayerMasks(owners[None], present[None])
        stream = bank.stream(masks, fill=self.fill, chunk_size=self.chunk_size)
        embeddings = torch.cat([read.float() for _, read in stream]).unflatten(0, (len(bank.pixels), -1))
        if target.kind != "dot":
            embeddings = F.normalize(embeddings, dim=-1)
        return gains(present, weights, embeddings)

    def _word_gains(
        self, backbone: CLIPBackbone, text: str, words: list[Word], presence: float, target: SimilarityTarget
    ) -> Tensor:
        present, weights = drawn(len(words), self.texts, presence, self.seed)
        embeddings = encode(backbone, ids_without(backbone, text, words, present, self.absent), self.chunk_size)
        return gains(present, weights, F.normalize(embeddings.float(), dim=-1)[None])[0]

    @staticmethod
    def _scale(target: SimilarityTarget) -> float:
        return float(target.logit_scale) if target.kind == "logit" and target.logit_scale is not None else 1.0


def drawn(players: int, samples: int, presence: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return coalitions, bool ``[n, players]``, and their weights ``[n]``, where each player comes with probability p.

    All of them, each with its probability, if they are at most ``samples``; else so many draws of equal weight.

    Raises:
        UserError: There are too few samples for as many players.
    """
    if 2**players <= samples:
        present = (torch.arange(2**players)[:, None] >> torch.arange(players)) % 2 == 1
        count = present.sum(dim=1)
        return present, presence**count * (1 - presence) ** (players - count)
    if samples < 2 * players:
        raise UserError(f"{players} squares or words need at least {2 * players} coalitions: raise images or texts")
    generator = torch.Generator().manual_seed(seed)
    present = torch.rand(samples, players, generator=generator) < presence
    return present, torch.full((samples,), 1 / samples)


def gains(present: Tensor, weights: Tensor, values: Tensor) -> Tensor:
    """Return what each player adds to a vector on average, ``[B, players, D]``: weighted least squares with intercept.

    Args:
        present: Bool ``[n, players]``.
        weights: ``[n]``.
        values: What the coalitions are worth, ``[B, n, D]``.

    Raises:
        UserError: The coalitions leave the gains open.
    """
    design = F.pad(present.double(), (1, 0), value=1.0)
    weighted = design.T * weights.double()
    factor, failed = torch.linalg.cholesky_ex(weighted @ design)
    if int(failed):
        raise UserError(f"{len(present)} coalitions leave the gains of {present.shape[1]} players open: raise samples")
    solution = torch.cholesky_solve(weighted, factor)[1:].to(values)
    return torch.einsum("pn,bnd->bpd", solution, values)


def _patch_shares(owners: Tensor, players: int, grid: tuple[int, int]) -> Tensor:
    """How much of each player lies in each patch, ``[players, h * w]``; rows sum to 1."""
    side = len(owners)
    member = F.one_hot(owners.flatten(), players).float().T.unflatten(1, (side, side))
    area = pooled(member, grid).flatten(1)
    return area / area.sum(dim=1, keepdim=True)
