"""How alike an image and texts are."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from clip_xai.errors import UserError
from clip_xai.models.backbones.clip import CLIPBackbone, with_texts
from clip_xai.models.backbones.recording import evaluation_mode, outside_inference
from clip_xai.xai.targets.base import TEXT, Target, TargetContext, targets

KINDS = ("cosine", "dot", "logit")


class CutTextWarning(UserWarning):
    """A text is longer than what the text tower reads."""


def cut_notes(backbone: CLIPBackbone, texts: Sequence[str]) -> tuple[str, ...]:
    """Return a sentence for each text whose end is not read, and warn of it."""
    notes = []
    for text in dict.fromkeys(texts):
        unread = backbone.unread(text)
        if unread.strip():
            read = text[: len(text) - len(unread)].rstrip()
            notes.append(
                f"Only the beginning of this text was read, up to “…{read[-40:]}”; not read: “{unread.strip()}”."
            )
    for note in notes:
        warnings.warn(note, CutTextWarning, stacklevel=3)
    return tuple(notes)


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
        self.score_name = kind
        self.text_embeddings = outside_inference(text_embeddings).detach()
        self.labels = list(labels)
        self.kind = kind
        self.logit_scale = None if logit_scale is None else float(logit_scale)
        self.texts = None if texts is None else list(texts)

    @classmethod
    def from_texts(
        cls, backbone: CLIPBackbone, texts: Sequence[str], kind: str = "cosine", labels: Sequence[str] | None = None
    ) -> SimilarityTarget:
        """Embed texts with a backbone; the labels are the texts unless given.

        What of a text is beyond the tower's context is not read: a warning says so, and the target's notes.
        """
        with torch.no_grad(), evaluation_mode(backbone):
            embeddings = backbone.encode_text(texts)
        target = cls(embeddings, labels or texts, kind, backbone.logit_scale.detach(), texts)
        target.notes = cut_notes(backbone, texts)
        return target

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
    """Margin of each text over the others: ``s_t - mean over u != t of s_u``, with s of the chosen kind.

    Its scores are named as what they are, ``cosine margin``: no similarity, and nothing without the others.
    """

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
        self.score_name = f"{kind} margin"

    def score_of(self, read: Tensor, text_embeddings: Tensor) -> Tensor:
        """Return the margins ``[B, T]``."""
        similarity = super().score_of(read, text_embeddings)
        others = similarity.sum(dim=1, keepdim=True) - similarity
        return similarity - others / (similarity.shape[1] - 1)


@targets.register("similarity", needs=TEXT, order=5)
def similarity(context: TargetContext) -> SimilarityTarget:
    """Make the similarity to the texts that are asked, or to the caption."""
    texts = context.texts()
    return SimilarityTarget.from_texts(with_texts(context.backbone), texts, context.question.kind)


@targets.register("contrast", needs=TEXT, order=6)
def contrast(context: TargetContext) -> SimilarityTarget:
    """Make the margin of the texts that are asked, or of the caption, over the others."""
    asked = context.question.against
    texts = [*context.texts(), *(context.vocabulary.contrast if asked is None else asked)]
    return ContrastTarget.from_texts(with_texts(context.backbone), texts, context.question.kind)
