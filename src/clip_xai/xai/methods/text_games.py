"""Explainers of the text side that take words away and watch the score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from clip_xai.models.backbones.clip import CLIPBackbone
from clip_xai.ranges import setting
from clip_xai.xai.coalitions import ABSENT, caption_scores, encode, ids_without, text_scores
from clip_xai.xai.explainer import explainers
from clip_xai.xai.methods.text_methods import TextExplainer, caption_columns, caption_inputs
from clip_xai.xai.shapley_values import Coalitions, coalitions, shapley_values
from clip_xai.xai.target import CaptionTarget, SimilarityTarget
from clip_xai.xai.words import Word


@explainers.register("token_occlusion", title="Token occlusion", group="words", order=3)
@dataclass(frozen=True)
class TokenOcclusion(TextExplainer):
    """Occlusion of words: leave one out (Li, Monroe and Jurafsky 2016, arXiv 1612.08220).

    What the score loses by it::

        a_word = s(text) - s(text without the word)

    For a similarity, the word is taken out of the text (``delete``) or replaced by padding (``pad``); end markers stay
    where the tower reads. For a caption, the inputs of the language model at the slots, the prompt or a word get the
    mean embedding of the vocabulary, and the score stays that of the same caption; words that come later have exactly
    zero.

    Shapes: ``[B, T, K]``, signed, in units of the score. Cost: one forward pass of the image tower; one forward pass of
    the text tower for each word of each text, shared by all images; for a caption one pass of the language model for
    each column and image, shared by all T scores.

    Deviations: whole words instead of tokens, joined by character offsets.

    Attributes:
        absent: ``"delete"`` or ``"pad"``; for similarities.
        chunk_size: Texts in one forward pass; halved when memory runs out.

    Raises:
        UserError: As for ``token_gradxinput``.

    Example:
        >>> from clip_xai.xai.examples import example
        >>> TokenOcclusion().explain(*example()).values.shape
        torch.Size([2, 2, 3])
    """

    reading: ClassVar[str] = "How much the score falls when a word is left out. Negative: leaving it out helps."

    absent: str = setting("delete", one_of=ABSENT)
    chunk_size: int = setting(64, least=1)

    linear_in_target: ClassVar[bool] = True
    cost: ClassVar[str] = "1 F; 1 F of the text tower or language model a word"

    def texts(
        self, backbone: CLIPBackbone, read: Tensor, target: SimilarityTarget, texts: list[str], words: list[list[Word]]
    ) -> tuple[list[Tensor], Tensor]:
        """Return the evidence of each text's words and the scores."""
        alone = [torch.cat([torch.ones(1, len(found)), 1 - torch.eye(len(found))]).bool() for found in words]
        games = play(backbone, read, target, texts, words, alone, self.absent, self.chunk_size)
        return [(game[0] - game[1:]).T for game in games], torch.stack([game[0] for game in games], dim=1)

    def caption(self, read: Tensor, target: CaptionTarget) -> tuple[Tensor, Tensor]:
        """Return the evidence of a caption's columns and the scores."""
        places = [positions for _, positions in caption_columns(target)]
        alone = torch.cat([torch.ones(1, len(places)), 1 - torch.eye(len(places))]).bool()
        game = caption_scores(target, caption_inputs(read, target), places, alone, self.chunk_size)
        return (game[:, :1] - game[:, 1:]).transpose(1, 2), game[:, 0]


@explainers.register("token_kernelshap", title="Token KernelSHAP", group="words", order=4)
@dataclass(frozen=True)
class TokenKernelShap(TextExplainer):
    """KernelSHAP (Lundberg and Lee, NeurIPS 2017, arXiv 1705.07874): Shapley values of words.

    Players are the words of a text; the value of a coalition is the score of the text in which the others are absent,
    as in ``token_occlusion``. For a caption, players are the columns ``image``, ``prompt`` and the words. The values
    sum to s(text) - s(no word), and are exact where ``samples`` allows all coalitions (up to 9 words by default); see
    ``kernelshap`` for how coalitions are chosen.

    Shapes: ``[B, T, K]``, signed, in units of the score. Cost: one forward pass of the image tower; up to ``samples`` +
    2 forward passes of the text tower for each text, shared by all images; for a caption as many passes of the language
    model for each image, shared by all T scores. Equal coalitions are encoded once.

    Deviations: as for ``kernelshap`` and ``token_occlusion``.

    Attributes:
        samples: Most coalitions that are asked.
        absent: ``"delete"`` or ``"pad"``; for similarities.
        seed: Seed of the coalitions.
        chunk_size: Texts in one forward pass; halved when memory runs out.

    Raises:
        UserError: As for ``token_gradxinput``, or there are too few samples for the words.

    Example:
        >>> from clip_xai.xai.examples import example
        >>> TokenKernelShap().explain(*example()).values.shape
        torch.Size([2, 2, 3])
    """

    reading: ClassVar[str] = (
        "Shapley values: the share of each word in the score, over all ways to leave out the others."
    )

    samples: int = setting(512, least=1)
    absent: str = setting("delete", one_of=ABSENT)
    seed: int = setting(0, least=0)
    chunk_size: int = setting(64, least=1)

    linear_in_target: ClassVar[bool] = True
    cost: ClassVar[str] = "1 F; up to samples + 2 F of the text tower or language model"

    def texts(
        self, backbone: CLIPBackbone, read: Tensor, target: SimilarityTarget, texts: list[str], words: list[list[Word]]
    ) -> tuple[list[Tensor], Tensor]:
        """Return the evidence of each text's words and the scores."""
        asked = [coalitions(len(found), self.samples, self.seed) for found in words]
        games = play(
            backbone, read, target, texts, words, [_with_ends(one) for one in asked], self.absent, self.chunk_size
        )
        rows = [shapley_values(one, game[2:], game[0], game[1]).T for one, game in zip(asked, games, strict=True)]
        return rows, torch.stack([game[1] for game in games], dim=1)

    def caption(self, read: Tensor, target: CaptionTarget) -> tuple[Tensor, Tensor]:
        """Return the evidence of a caption's columns and the scores."""
        places = [positions for _, positions in caption_columns(target)]
        asked = coalitions(len(places), self.samples, self.seed)
        games = caption_scores(target, caption_inputs(read, target), places, _with_ends(asked), self.chunk_size)
        rows = [shapley_values(asked, game[2:], game[0], game[1]).T for game in games]
        return torch.stack(rows), games[:, 1]


def play(
    backbone: CLIPBackbone,
    read: Tensor,
    target: SimilarityTarget,
    texts: list[str],
    words: list[list[Word]],
    present: list[Tensor],
    absent: str,
    chunk_size: int,
) -> list[Tensor]:
    """Return for each text the scores ``[n_t, B]`` as words are missing; one stream of texts for all.

    Args:
        backbone: The text tower.
        read: Image embeddings ``[B, D]``.
        target: What is asked.
        texts: Its texts.
        words: Their words.
        present: For each text, which words are there, bool ``[n_t, K_t]``.
        absent: ``"delete"`` or ``"pad"``.
        chunk_size: Texts in one forward pass.
    """
    ids = [ids_without(backbone, *one, absent) for one in zip(texts, words, present, strict=True)]
    embeddings = encode(backbone, torch.cat(ids), chunk_size).split([len(one) for one in ids])
    return [text_scores(target, read, row, found) for row, found in enumerate(embeddings)]


def _with_ends(asked: Coalitions) -> Tensor:
    """Nobody, everybody, and the coalitions."""
    players = asked.present.shape[1]
    ends = torch.tensor([[False] * players, [True] * players])
    return torch.cat([ends, asked.present])
