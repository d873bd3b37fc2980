"""What is to be explained: differentiable scores of what an image tower hands over."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from clip_xai.errors import UserError
from clip_xai.models.backbones.base import Backbone
from clip_xai.models.backbones.trace import batched_vjp, evaluation_mode, outside_inference
from clip_xai.models.captioner import Captioner
from clip_xai.xai.words import Word, spans_of_ids, words_of

KINDS = ("cosine", "dot", "logit")


class Target(ABC):
    """T scores of each image, as a function of what the tower hands over.

    Gradient methods take the cotangent: with it, the tower never needs to know what was asked. Path and perturbation
    methods take the score, because a fixed cotangent stops being exact as soon as the image changes.

    Attributes:
        name: As in ``target=NAME``.
        reads: ``"pooled"``, the embedding ``[B, D]``, or ``"patches"``, the patch tokens ``[B, N, W]``.
        labels: What each of the T scores is about, for people.
    """

    name: str
    reads: str
    labels: list[str]

    @abstractmethod
    def score(self, read: Tensor) -> Tensor:
        """Return the scores ``[B, T]``, differentiable with respect to ``read`` (``[B, D]`` or ``[B, N, W]``)."""

    @property
    def settings(self) -> dict[str, Any]:
        """What, besides the labels, decides the score; plain values."""
        return {"target": self.name}

    def cotangent(self, read: Tensor) -> Tensor:
        """Return the derivative of each score with respect to ``read``, ``[B, T, *read.shape[1:]]``, detached."""
        return self.score_and_cotangent(read)[1]

    def score_and_cotangent(self, read: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores and cotangents, both detached, in one forward and one batched backward pass of the target."""
        with torch.inference_mode(False), torch.enable_grad():
            leaf = outside_inference(read).detach().requires_grad_()
            scores = self.score(leaf)
            each = torch.eye(scores.shape[1], device=scores.device).expand(scores.shape[0], -1, -1)
            cotangents = batched_vjp(scores, [leaf], each)[0]
        return scores.detach(), cotangents


class SimilarityTarget(Target):
    """Similarity of the image to each of T texts.

    With e the image embedding, e' and t' the embeddings at unit length and tau the model's scale:
    ``cosine`` is e'.t', ``dot`` is e.t', ``logit`` is tau e'.t'. The kind matters to methods that are not linear in
    the score.

    Example:
        >>> import torch
        >>> target = SimilarityTarget(torch.tensor([[2.0, 0.0], [0.0, 1.0]]), ["a", "b"])
        >>> target.score(torch.tensor([[3.0, 4.0]])).tolist()
        [[0.6000000238418579, 0.800000011920929]]
    """

    name = "similarity"
    reads = "pooled"

    def __init__(
        self,
        text_embeddings: Tensor,
        labels: Sequence[str],
        kind: str = "cosine",
        logit_scale: Tensor | float | None = None,
        texts: Sequence[str] | None = None,
    ) -> None:
        """Take embedded texts.

        Args:
            text_embeddings: ``[T, D]``, of any length.
            labels: T labels.
            kind: ``cosine``, ``dot`` or ``logit``.
            logit_scale: tau; needed for ``logit``.
            texts: The T texts themselves; needed by explainers of the text side.

        Raises:
            ValueError: The numbers of texts, labels and embeddings differ, or the kind is unknown or lacks its scale.
        """
        if len(text_embeddings) != len(labels) or (texts is not None and len(texts) != len(labels)):
            raise ValueError(f"{len(text_embeddings)} text embeddings cannot carry {len(labels)} labels")
        if kind not in KINDS:
            raise ValueError(f"kind is {kind!r}; choose one of {', '.join(KINDS)}")
        if kind == "logit" and logit_scale is None:
            raise ValueError("kind 'logit' needs the model's logit_scale")
        self.text_embeddings = outside_inference(text_embeddings).detach()
        self.labels = list(labels)
        self.kind = kind
        self.logit_scale = None if logit_scale is None else float(logit_scale)
        self.texts = None if texts is None else list(texts)

    @classmethod
    def from_texts(
        cls, backbone: Backbone, texts: Sequence[str], kind: str = "cosine", labels: Sequence[str] | None = None
    ) -> SimilarityTarget:
        """Embed texts with a backbone; the labels are the texts unless given."""
        with torch.no_grad(), evaluation_mode(backbone):
            embeddings = backbone.encode_text(texts)
        return cls(embeddings, labels or texts, kind, backbone.logit_scale.detach(), texts)

    @property
    def settings(self) -> dict[str, Any]:
        """The kind, and tau where it counts."""
        scale = {"logit_scale": self.logit_scale} if self.kind == "logit" else {}
        return {"target": self.name, "kind": self.kind, **scale}

    def score(self, read: Tensor) -> Tensor:
        """Return the similarities ``[B, T]`` of image embeddings ``[B, D]``."""
        return self.score_of(read, self.text_embeddings)

    def score_of(self, read: Tensor, text_embeddings: Tensor) -> Tensor:
        """Return the scores ``[B, T]`` for other embeddings ``[T, D]`` of the texts, differentiable in both."""
        texts = F.normalize(text_embeddings.to(read), dim=-1)
        images = read if self.kind == "dot" else F.normalize(read, dim=-1)
        similarity = images @ texts.T
        return similarity * self.logit_scale if self.kind == "logit" and self.logit_scale else similarity


class ContrastTarget(SimilarityTarget):
    """Margin of each text over the others: ``s_t - mean over u != t of s_u``, with s of the chosen kind."""

    name = "contrast"

    def __init__(
        self,
        text_embeddings: Tensor,
        labels: Sequence[str],
        kind: str = "cosine",
        logit_scale: Tensor | float | None = None,
        texts: Sequence[str] | None = None,
    ) -> None:
        """Take embedded texts; see ``SimilarityTarget``.

        Raises:
            UserError: There is no second text to contrast the first with.
        """
        if len(labels) < 2:
            raise UserError("a contrast needs at least two texts: give another one, or choose target=similarity")
        super().__init__(text_embeddings, labels, kind, logit_scale, texts)

    def score_of(self, read: Tensor, text_embeddings: Tensor) -> Tensor:
        """Return the margins ``[B, T]``."""
        similarity = super().score_of(read, text_embeddings)
        others = similarity.sum(dim=1, keepdim=True) - similarity
        return similarity - others / (similarity.shape[1] - 1)


class CaptionTarget(Target):
    """Log-probability, in nats, of parts of one caption under teacher forcing.

    ``s_t = sum over the tokens i of part t of log p(y_i | image, y_<i)``. Any number of images can be asked how likely
    they make this caption. The cotangent goes through GPT-2 and the mapper to what the mapper reads. Behind a mapper
    that reads the pooled embedding, words have no spatial evidence of their own: their maps differ only by the
    direction in that one vector.
    """

    name = "caption"

    def __init__(
        self, captioner: Captioner, token_ids: Sequence[int], parts: Sequence[Sequence[int]], labels: Sequence[str]
    ) -> None:
        """Take a caption and its parts; ``words`` makes the parts.

        Args:
            captioner: The captioner; asked in evaluation mode.
            token_ids: The caption's M tokens, without the end marker.
            parts: T lists of token positions, 0 to M - 1.
            labels: T labels.

        Raises:
            ValueError: A part is empty or lies outside of the caption, or the labels do not fit.
        """
        if len(parts) != len(labels):
            raise ValueError(f"{len(parts)} parts cannot carry {len(labels)} labels")
        if not all(part and min(part) >= 0 and max(part) < len(token_ids) for part in parts):
            raise ValueError(f"every part needs token positions from 0 to {len(token_ids) - 1}")
        self.captioner = captioner
        self.labels = list(labels)
        self.reads = captioner.reads
        self.text = captioner.tokenizer.decode(token_ids)
        device = next(captioner.parameters()).device
        with torch.inference_mode(False):
            self.token_ids = torch.tensor(list(token_ids), device=device)
            self.membership = torch.zeros(len(parts), len(token_ids), device=device)
            for row, part in zip(self.membership, parts, strict=True):
                row[list(part)] = 1.0

    @classmethod
    def words(cls, captioner: Captioner, token_ids: Sequence[int], whole: bool = False) -> CaptionTarget:
        """Make one score of each word and punctuation mark of a caption.

        Args:
            captioner: The captioner.
            token_ids: The caption's tokens, as generated or as ``tokenizer.encode`` gives them.
            whole: Add a last score for the whole caption, which is the sum of the others.

        Raises:
            UserError: The caption is empty.
        """
        words = words_of(*spans_of_ids(captioner.tokenizer, token_ids))
        if not words:
            raise UserError(
                "the caption has no words to explain: train the captioner first, or choose target=similarity"
            )
        parts = [word.tokens for word in words]
        labels = [word.text for word in words]
        if whole:
            parts.append(tuple(range(len(token_ids))))
            labels.append("whole caption")
        return cls(captioner, token_ids, parts, labels)

    @property
    def settings(self) -> dict[str, Any]:
        """The caption."""
        return {"target": self.name, "caption": self.text}

    def caption_words(self) -> list[Word]:
        """Return the caption's words with their token positions."""
        return words_of(*spans_of_ids(self.captioner.tokenizer, self.token_ids.tolist()))

    def score(self, read: Tensor) -> Tensor:
        """Return the log-probabilities ``[B, T]`` of the parts for B images."""
        with evaluation_mode(self.captioner):
            return self.score_of(self.captioner.prefix(read), self.embeddings(read.shape[0]))

    def embeddings(self, images: int) -> Tensor:
        """Return the embeddings of the caption's tokens, without positions, once for each image: ``[B, M, E]``."""
        return self.captioner.language_model.transformer.wte(self.token_ids).expand(images, -1, -1)

    def score_of(self, prefix: Tensor, embeddings: Tensor) -> Tensor:
        """Return the scores ``[B, T]`` as a function of the language model's inputs, differentiable in both.

        Args:
            prefix: What stands before the caption, ``[B, K + P, E]``.
            embeddings: Embeddings of the caption's tokens, ``[B, M, E]``. They change what later tokens are told,
                never which tokens are scored.
        """
        log_probs = self.captioner.caption_logits(prefix, embeddings).log_softmax(dim=-1)
        chosen = log_probs.gather(-1, self.token_ids.expand(len(prefix), -1).unsqueeze(-1)).squeeze(-1)
        return chosen @ self.membership.T.to(chosen)
