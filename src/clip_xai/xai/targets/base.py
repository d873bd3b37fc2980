"""The contract of every target."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from clip_xai.models.backbones.recording import batched_vjp, outside_inference


class Target(ABC):
    """T scores of each image, as a function of what the tower hands over.

    Gradient methods take the cotangent: with it, the tower never needs to know what was asked. Path and perturbation
    methods take the score, because a fixed cotangent stops being exact as soon as the image changes.

    Attributes:
        name: As in ``target=NAME``.
        reads: ``"pooled"``, the embedding ``[B, D]``; ``"patches"``, the patch tokens ``[B, N, W]``; or ``"tokens"``,
            the class token, where there is one, and the patches, ``[B, P + N, W]``.
        labels: What each of the T scores is about, for people.
        score_name: What the scores are: ``cosine``, ``log-probability`` ...
        notes: Sentences that a reader must see beside every answer, such as that a text was cut.
    """

    name: str
    reads: str
    labels: list[str]
    score_name: str = "score"
    notes: tuple[str, ...] = ()

    @abstractmethod
    def score(self, read: Tensor) -> Tensor:
        """Return the scores ``[B, T]``, differentiable with respect to ``read`` (``[B, D]`` or ``[B, S, W]``)."""

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
