"""Maps of single embedding dimensions, weighted by a text: around any other method."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from clip_xai.errors import UserError
from clip_xai.models.backbones.base import VisionBackbone
from clip_xai.ranges import setting
from clip_xai.xai.attribution import Attribution
from clip_xai.xai.explainer import Explainer, explainers
from clip_xai.xai.target import ContrastTarget, EmbeddingDimensionTarget, SimilarityTarget, Target

MODES = ("collapsed", "per_dimension")


@explainers.register("embedding_space", title="Embedding space", group="gradients", order=7)
@dataclass(frozen=True)
class EmbeddingSpace(Explainer):
    """The embedding-space explanation of a similarity (Medical CLIP, 2024, arXiv 2403.18996), around another method.

    With Phi_d the map that the method finds for dimension d of the image embedding (at unit length for a cosine or a
    logit, as it is for a dot product) and t' the unit text embedding::

        H = sum_d t'_d Phi_d

    ``collapsed``: where the method is linear in its target, that is the method's own map of ``sum_d t'_d e_d``, which
    is the similarity itself: one vector-Jacobian product in place of D. Refused for methods that are not linear (a
    ReLU, an absolute value), where the two differ. ``per_dimension``: all D maps, for any method.

    Shapes: maps ``[B, T, h, w]``. Cost: ``collapsed``: that of the method for T targets. ``per_dimension``: that of the
    method for D targets, whatever T is, ``chunk_size`` dimensions at a time.

    Deviations from the paper: none for ``per_dimension``; ``collapsed`` is the same numbers for less work.

    Attributes:
        method: Name of the method around which this stands.
        mode: ``collapsed`` or ``per_dimension``.
        options: Settings of the method that are not its defaults.
        chunk_size: Dimensions explained at once.

    Raises:
        UserError: The target is not a similarity to texts, the method does not explain images, or ``collapsed`` would
            be wrong.

    Example:
        >>> from clip_xai.xai.examples import example
        >>> backbone, pixels, target = example()
        >>> one = EmbeddingSpace("input_x_gradient", "collapsed").explain(backbone, pixels, target).values
        >>> all_ = EmbeddingSpace("input_x_gradient", "per_dimension").explain(backbone, pixels, target).values
        >>> bool((one - all_).abs().max() < 1e-5 * one.abs().max())
        True
    """

    method: str = "input_x_gradient"
    mode: str = setting("collapsed", one_of=MODES)
    options: dict[str, Any] = field(default_factory=dict)
    chunk_size: int = setting(64, least=1)

    linear_in_target: ClassVar[bool] = True
    cost: ClassVar[str] = "of `method`, for T targets (collapsed) or for D"

    @property
    def inner(self) -> Explainer:
        """The method around which this stands.

        Raises:
            UserError: There is none of that name, or ``collapsed`` would be wrong for it.
        """
        able = [name for name, method in explainers.items() if method.modality == "image" and name != self.name]
        if self.method not in able:
            raise UserError(f"xai.embedding_space.method is {self.method!r}: choose one of {', '.join(able)}")
        cls = explainers[self.method]
        if not cls.text_dependent:
            raise UserError(f"{self.method} says nothing about a dimension: its map is the same for every target")
        if self.mode == "collapsed" and not cls.linear_in_target:
            linear = [name for name in able if explainers[name].linear_in_target]
            raise UserError(
                f"{self.method} is not linear in its target, so that one pass is not the sum over dimensions: set "
                f"xai.embedding_space.mode=per_dimension, or choose one of {', '.join(linear)}"
            )
        known = [item.name for item in fields(cls)]
        unknown = ", ".join(sorted(set(self.options) - set(known)))
        if unknown:
            has = ", ".join(known) or "none"
            raise UserError(f"xai.embedding_space.options: {self.method} has no {unknown}; its settings are {has}")
        return cls(**self.options)

    def refusal(self, backbone: VisionBackbone, target: Target) -> str | None:
        """A similarity to single texts is needed, and what the method needs."""
        alike = isinstance(target, SimilarityTarget) and not isinstance(target, ContrastTarget)
        if not alike or target.reads != "pooled" or getattr(target, "softmax", False):
            return f"weighs dimensions by a text, which target {target.name} does not have"
        return self.inner.refusal(backbone, target)

    def explain(self, backbone: VisionBackbone, pixels: Tensor, target: Target) -> Attribution:
        """Explain the target's scores; see the base class."""
        self.require(backbone, target)
        assert isinstance(target, SimilarityTarget)
        if self.mode == "collapsed":
            found = self.inner.explain(backbone, pixels, target)
            return self._attribution(found.values, found.scores, target)
        texts = F.normalize(target.text_embeddings.float(), dim=-1)
        if target.kind == "logit" and target.logit_scale:
            texts = texts * target.logit_scale
        parts: list[tuple[Tensor, Tensor]] = []
        for start in range(0, backbone.embed_dim, self.chunk_size):
            dimensions = range(start, min(start + self.chunk_size, backbone.embed_dim))
            found = self.dimensions(backbone, pixels, dimensions, unit=target.kind != "dot")
            part = texts[:, start : start + self.chunk_size].to(found.values)
            parts.append((torch.einsum("td,bdhw->bthw", part, found.values), found.scores @ part.T))
        values, scores = (torch.stack(column).sum(dim=0) for column in zip(*parts, strict=True))
        return self._attribution(values, scores, target)

    def dimensions(self, backbone: VisionBackbone, pixels: Tensor, dimensions: range, unit: bool = True) -> Attribution:
        """Return the method's maps of dimensions of the embedding, ``[B, len(dimensions), h, w]``.

        Args:
            backbone: The tower.
            pixels: ``[B, 3, S, S]``.
            dimensions: Which.
            unit: Of the embedding at unit length.
        """
        return self.inner.explain(backbone, pixels, EmbeddingDimensionTarget(dimensions, unit, backbone.embed_dim))
