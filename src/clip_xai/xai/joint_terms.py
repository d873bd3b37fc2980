"""What picture and words bring together: the joint (Harsanyi) term of the places and words that explainers rank first.

Of an image and a text, either alone can carry the score, so that measures which change one of them contradict each
other. The joint term of a set V of places and a set W of words::

    d(V, W) = v(V, W) - v(V, none) - v(none, W) + v(none, none)

is what they bring only together. A similarity v = e(V) . t(W) factorises, so that image and text encodes alone give it;
of a caption, v is the log-probability of what is explained, and W the words before it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from clip_xai.errors import UserError
from clip_xai.models.backbones.clip import with_texts
from clip_xai.xai.baselines import Baseline, TokenDrop
from clip_xai.xai.coalitions import caption_scores, encode, ids_without
from clip_xai.xai.curve_protocols import REMOVALS, CurveProtocol
from clip_xai.xai.imputation import Road
from clip_xai.xai.insertion_deletion import on_units, ranked
from clip_xai.xai.masks import CellMasks
from clip_xai.xai.methods.text_methods import caption_columns, caption_inputs
from clip_xai.xai.perturbation_bank import PerturbationBank
from clip_xai.xai.target import CaptionTarget, SimilarityTarget, Target
from clip_xai.xai.words import words_of

SHARES = (0.1, 0.3, 0.5, 0.7)  # of places and of words that are there


def joint_gain(
    bank: PerturbationBank,
    target: Target,
    row: int,
    maps: Tensor,
    words: Sequence[Tensor],
    *,
    shares: Sequence[float] = SHARES,
    removal: Baseline = REMOVALS["mean"],
    seed: int = 0,
    chunk_size: int = 64,
) -> Tensor:
    """Return how much more the first places and words bring together than the last ones do.

    ``mean over shares k of d(hottest k of the places, hottest k of the words) - d(coldest k, coldest k)``: a random
    pair of rankings has 0 in expectation, and a pair read backwards the negative.

    Args:
        bank: The towers and one photograph.
        target: Similarities or margins of texts that are known, or a caption.
        row: Which of its scores.
        maps: R maps of the picture, ``[R, h, w]``.
        words: With each of them the evidence of the text's K words, or of the words of the caption.
        shares: k.
        removal: What is left where places are missing; words are deleted from a text, and the mean embedding of the
            vocabulary stands for those of a caption.
        seed: Seed of the order of equals.
        chunk_size: Images or texts in one pass.

    Returns:
        ``[R]`` in double precision, in units of the score.

    Raises:
        ValueError: There are several photographs, or other numbers of maps and of words.
        UserError: The target is of another kind, or patches are to be left out.
    """
    if len(bank.pixels) != 1 or len(maps) != len(words):
        raise ValueError(f"{len(maps)} maps and {len(words)} rankings of words of {len(bank.pixels)} photographs")
    side = bank.pixels.shape[-1]
    if isinstance(removal, TokenDrop):
        raise UserError("joint terms need a picture without any place: choose mean, blur or road")
    units = CurveProtocol("joint", removal, removal, cells=True).units(bank.backbone.grid, side)
    places = _sets(ranked(on_units(maps.cpu(), units, side), seed).flatten(1), shares)
    named = _sets(torch.stack([ranked(one.cpu().view(1, 1, -1), seed).flatten() for one in words]), shares)
    fill = removal if isinstance(removal, Road) else removal(bank.pixels, bank.backbone.preprocess)
    none = torch.zeros(1, units[0] * units[1], dtype=torch.bool)
    masks = CellMasks(torch.cat([none, places.flatten(0, 2)]).view(-1, *units))
    read = torch.cat([part for _, part in bank.stream(masks, reads=target.reads, fill=fill, chunk_size=chunk_size)])
    if isinstance(target, CaptionTarget):
        joint = _of_caption(target, row, read, named.flatten(0, 2), chunk_size)
    elif isinstance(target, SimilarityTarget) and target.texts is not None:
        joint = _of_texts(bank, target, row, read, named.flatten(0, 2), chunk_size)
    else:
        raise UserError(f"target={target.name} has no words: joint terms are of captions, and of texts that are known")
    hottest, coldest = joint.double().cpu().view(2, len(maps), len(shares))
    return (hottest - coldest).mean(dim=1)


def _sets(ranks: Tensor, shares: Sequence[float]) -> Tensor:
    """Return the hottest and the coldest shares ``[2, R, shares, N]`` of ranks ``[R, N]``, at least one each."""
    count = ranks.shape[1]
    sizes = torch.tensor([max(1, round(share * count)) for share in shares])[None, :, None]
    return torch.stack([ranks[:, None] < sizes, ranks[:, None] >= count - sizes])


def _of_texts(
    bank: PerturbationBank, target: SimilarityTarget, row: int, read: Tensor, named: Tensor, chunk_size: int
) -> Tensor:
    """Joint terms ``[n]`` of images ``[1 + n, D]``, the first of nothing, and of the words that are there."""
    assert target.texts is not None
    towers = with_texts(bank.backbone)
    text = target.texts[row]
    words = words_of(text, towers.token_spans(text))
    if named.shape[1] != len(words):
        raise ValueError(f"evidence of {named.shape[1]} words of a text of {len(words)}")
    present = torch.cat([torch.zeros(1, len(words), dtype=torch.bool), named])
    texts = F.normalize(encode(towers, ids_without(towers, text, words, present, "delete"), chunk_size).float(), dim=-1)
    images = read.float() if target.kind == "dot" else F.normalize(read.float(), dim=-1)
    scale = float(target.logit_scale) if target.kind == "logit" and target.logit_scale is not None else 1.0
    return scale * ((images[1:] - images[:1]) * (texts[1:] - texts[:1])).sum(dim=1)


def _of_caption(target: CaptionTarget, row: int, read: Tensor, named: Tensor, chunk_size: int) -> Tensor:
    """Joint terms ``[n]`` of reads of ``1 + n`` images, the first of nothing, and of the words that are there."""
    columns = [positions for _, positions in caption_columns(target)][-len(target.caption_words()) :]
    if named.shape[1] != len(columns):
        raise ValueError(f"evidence of {named.shape[1]} words of a caption of {len(columns)}")
    present = torch.cat([torch.zeros(1, len(columns), dtype=torch.bool), named])
    nothing = _caption(target, row, read[:1], columns, present, chunk_size)[0]
    found = []
    for place, one in enumerate(read[1:], start=1):
        both, alone = _caption(target, row, one[None], columns, present[[place, 0]], chunk_size)[0]
        found.append(both - alone - nothing[place] + nothing[0])
    return torch.stack(found)


def _caption(
    target: CaptionTarget, row: int, read: Tensor, columns: list[list[int]], present: Tensor, chunk_size: int
) -> Tensor:
    with torch.no_grad():
        inputs = caption_inputs(read, target)
        return caption_scores(target, inputs, columns, present, chunk_size)[:, :, row]
