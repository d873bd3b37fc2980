"""Explainers of the text side: which words carry a score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from clip_xai.errors import UserError
from clip_xai.models.backbones.base import Backbone
from clip_xai.models.backbones.trace import batched_vjp, evaluation_mode, outside_inference
from clip_xai.xai.attribution import Attribution
from clip_xai.xai.explainer import Explainer
from clip_xai.xai.target import CaptionTarget, SimilarityTarget, Target
from clip_xai.xai.words import Word, words_of


@dataclass(frozen=True)
class TokenGradXInput(Explainer):
    """Gradient times input on token embeddings, summed over channels and over the tokens of each word.

    With x_i the embedding of token i before its position is added::

        a_i = x_i . ds/dx_i         a_word = sum of a_i over the word's tokens

    For a similarity to texts, x are the text tower's token embeddings; columns are the words of each text. For a
    caption, x are the language model's inputs and s the log-probability of each of its words (Captum and inseq call
    this input x gradient): the column ``image`` sums the mapper's slots, ``prompt`` (if there is one) the prompt, and
    the others are the caption's words; words that come later have exactly zero.

    Shapes: ``[B, T, K]``, signed; K columns named in ``tokens``, NaN past the end of shorter texts. Cost: for a
    similarity one forward and one batched backward pass of the text tower for all texts and images, for a caption one
    teacher-forced forward and one batched backward pass of the language model; in both cases one forward pass of the
    image tower.

    Deviations from inseq and captum: one teacher-forced pass instead of a growing prefix (equal by causality); words
    are joined from tokens by character offsets; no norm is taken and nothing is scaled.

    Raises:
        UserError: A similarity target does not know its texts, or the target is of another kind.
    """

    name: ClassVar[str] = "token_gradxinput"
    modality: ClassVar[str] = "text"
    linear_in_target: ClassVar[bool] = True

    def explain(self, backbone: Backbone, pixels: Tensor, target: Target) -> Attribution:
        """Explain the target's scores by words; see the base class."""
        with torch.no_grad(), evaluation_mode(backbone):
            read = backbone.features(pixels).read(target.reads)
        with torch.inference_mode(False), torch.enable_grad():
            read = outside_inference(read)
            if isinstance(target, CaptionTarget):
                return self._caption(read, target)
            if isinstance(target, SimilarityTarget) and target.texts is not None:
                return self._similarity(backbone, read, target, target.texts)
        raise UserError(
            "token_gradxinput explains texts and captions: give the target its texts, or choose target=caption"
        )

    def _similarity(self, backbone: Backbone, read: Tensor, target: SimilarityTarget, texts: list[str]) -> Attribution:
        trace = backbone.trace_text(backbone.tokenize(texts).to(read.device))
        scores, cotangents = _text_cotangents(read, trace.read, target)
        products = (trace.gradients(cotangents) * trace.inputs.detach().unsqueeze(1)).sum(dim=-1).transpose(0, 1)
        words = [words_of(text, backbone.token_spans(text)) for text in texts]
        values = products.new_full((*scores.shape, max(map(len, words))), float("nan"))
        for row, found in enumerate(words):
            # Position 0 is the start marker.
            values[:, row, : len(found)] = _by_word(products[:, row, 1:], found)
        return self._attribution(values, scores, target, [[word.text for word in found] for found in words])

    def _caption(self, read: Tensor, target: CaptionTarget) -> Attribution:
        captioner = target.captioner
        with evaluation_mode(captioner):
            prefix = captioner.prefix(read).detach().requires_grad_()
            embeddings = target.embeddings(len(read)).detach().requires_grad_()
            scores = target.score_of(prefix, embeddings)
        each = torch.eye(scores.shape[1], device=scores.device).expand(len(read), -1, -1)
        gradients = batched_vjp(scores, [prefix, embeddings], each)
        before, tokens = (
            (gradient * inputs.detach().unsqueeze(1)).sum(dim=-1)
            for gradient, inputs in zip(gradients, (prefix, embeddings), strict=True)
        )
        words = target.caption_words()
        slots = captioner.mapper.prefix_length
        columns = {"image": before[..., :slots].sum(dim=-1, keepdim=True)}
        if before.shape[-1] > slots:
            columns["prompt"] = before[..., slots:].sum(dim=-1, keepdim=True)
        values = torch.cat([*columns.values(), _by_word(tokens, words)], dim=-1)
        names = [*columns, *(word.text for word in words)]
        return self._attribution(values, scores, target, [list(names) for _ in target.labels])


def _text_cotangents(read: Tensor, text_embeddings: Tensor, target: SimilarityTarget) -> tuple[Tensor, Tensor]:
    """Return scores ``[B, T]`` and the derivative of each with respect to its own text's embedding, ``[T, B, D]``."""
    leaf = text_embeddings.detach().requires_grad_()
    scores = target.score_of(read.detach(), leaf)
    images, texts = scores.shape
    each = torch.eye(images * texts, device=scores.device, dtype=scores.dtype).unflatten(-1, (images, texts))
    (jacobian,) = torch.autograd.grad(scores, leaf, each, is_grads_batched=True)
    own = torch.arange(texts, device=scores.device)
    return scores.detach(), jacobian.unflatten(0, (images, texts))[:, own, own].transpose(0, 1)


def _by_word(tokens: Tensor, words: list[Word]) -> Tensor:
    """Sum ``[..., tokens]`` over the tokens of each word: ``[..., words]``."""
    return torch.stack([tokens[..., list(word.tokens)].sum(dim=-1) for word in words], dim=-1)
