"""Texts and captions from which words are missing, and what they score."""

from __future__ import annotations

import torch
from torch import Tensor

from clip_xai.models.backbones.chunks import in_chunks
from clip_xai.models.backbones.clip import CLIPBackbone
from clip_xai.models.backbones.recording import evaluation_mode
from clip_xai.models.causal_model import word_embeddings
from clip_xai.xai.target import CaptionTarget, SimilarityTarget
from clip_xai.xai.words import Word

ABSENT = ("delete", "pad")


def ids_without(backbone: CLIPBackbone, text: str, words: list[Word], present: Tensor, absent: str) -> Tensor:
    """Return the token ids of a text from which words are missing.

    Args:
        backbone: The text tower.
        text: The text.
        words: Its K words.
        present: Which words are there, bool ``[n, K]``.
        absent: ``"delete"`` takes the word's tokens out and moves the others up, as if it had not been written;
            ``"pad"`` leaves padding in their places.

    Returns:
        ``[n, M]``. Markers stay, and so do tokens of no word.
    """
    ids = backbone.tokenize([text])[0]
    padding = int(backbone.tokenize([""])[0, -1])
    kept = torch.ones(len(present), len(ids), dtype=torch.bool)
    for column, word in enumerate(words):
        kept[:, [backbone.first_token + token for token in word.tokens]] = present[:, column, None].cpu()
    if absent == "pad":
        return torch.where(kept, ids, padding)
    # A stable sort brings what is kept to the front, in its order.
    order = (~kept).int().sort(dim=1, stable=True).indices
    return torch.where(kept.gather(1, order), ids[order], padding)


def encode(backbone: CLIPBackbone, token_ids: Tensor, chunk_size: int) -> Tensor:
    """Encode ids ``[n, M]`` into text embeddings ``[n, D]``, chunk by chunk, equal rows once; no gradients."""
    unique, places = token_ids.unique(dim=0, return_inverse=True)
    device = next(backbone.parameters()).device
    with torch.no_grad(), evaluation_mode(backbone):
        chunks = in_chunks(lambda rows: backbone.encode_tokens(unique[rows].to(device)), len(unique), chunk_size)
        return torch.cat([part for _, part in chunks])[places.to(device)]


def text_scores(target: SimilarityTarget, read: Tensor, row: int, embeddings: Tensor) -> Tensor:
    """Return score ``row`` of images ``[B, D]`` as its own text takes other embeddings ``[n, D]``: ``[n, B]``.

    The other texts, which a contrast looks at, keep their embeddings.
    """
    with torch.no_grad():
        if type(target) is SimilarityTarget:
            return target.score_of(read, embeddings).T.float()
        scores = []
        for embedding in embeddings:
            texts = target.text_embeddings.to(embedding).clone()
            texts[row] = embedding
            scores.append(target.score_of(read, texts)[:, row].float())
        return torch.stack(scores)


def caption_scores(
    target: CaptionTarget, inputs: tuple[Tensor, Tensor], places: list[list[int]], present: Tensor, chunk_size: int
) -> Tensor:
    """Return the scores of a caption as parts of the language model's inputs are missing, ``[B, n, T]``.

    What is missing has the mean embedding of the vocabulary in its place; what is scored stays the same caption.

    Args:
        target: The target.
        inputs: Slots and prompt ``[B, P, E]``, the caption's embeddings ``[B, M, E]``.
        places: For each of K parts, its positions among all P + M.
        present: Which parts are there, bool ``[n, K]``.
        chunk_size: Captions in one pass; halved when memory runs out.
    """
    together = torch.cat(inputs, dim=1)
    blank = word_embeddings(target.captioner.language_model).weight.mean(dim=0).to(together)
    kept = torch.ones(len(present), together.shape[1], dtype=torch.bool, device=together.device)
    for column, positions in enumerate(places):
        kept[:, positions] = present[:, column, None].to(kept.device)
    rows = torch.cartesian_prod(torch.arange(len(together)), torch.arange(len(kept))).to(together.device)
    before = inputs[0].shape[1]

    def score(chunk: slice) -> Tensor:
        image, which = rows[chunk].T
        mixed = torch.where(kept[which, :, None], together[image], blank)
        return target.score_of(mixed[:, :before], mixed[:, before:]).float()

    with torch.no_grad(), evaluation_mode(target.captioner):
        parts = [part for _, part in in_chunks(score, len(rows), chunk_size)]
    return torch.cat(parts).unflatten(0, (len(together), len(kept)))
