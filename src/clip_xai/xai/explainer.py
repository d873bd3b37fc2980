"""The contract of every explainer, and how several share one pass of the tower."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from torch import Tensor

from clip_xai.models.backbones.base import Backbone
from clip_xai.xai.attribution import Attribution
from clip_xai.xai.target import Target
from clip_xai.xai.trace import Needs, Trace


@dataclass(frozen=True)
class Explainer(ABC):
    """Finds the evidence behind a target's scores. Its settings are its fields.

    Attributes:
        name: As in ``xai=NAME``.
        modality: ``"image"``: evidence over the patch grid; ``"text"``: evidence over words.
        text_dependent: False when the result is the same whatever the target asks; such a method is a control.
        linear_in_target: Whether the evidence for a weighted sum of scores is the weighted sum of the evidence.
    """

    name: ClassVar[str]
    modality: ClassVar[str] = "image"
    text_dependent: ClassVar[bool] = True
    linear_in_target: ClassVar[bool]

    @property
    def settings(self) -> dict[str, Any]:
        """The settings, plain values."""
        return asdict(self)

    @abstractmethod
    def explain(self, backbone: Backbone, pixels: Tensor, target: Target) -> Attribution:
        """Explain the target's T scores of B images.

        The backbone is left as it was: no hooks, the same modes, the same parameters and no gradients on them.

        Args:
            backbone: The tower.
            pixels: Preprocessed images ``[B, 3, S, S]``.
            target: What is to be explained.
        """

    def _attribution(
        self, values: Tensor, scores: Tensor, target: Target, tokens: list[list[str]] | None = None
    ) -> Attribution:
        return Attribution(
            values=values.detach().float(),
            method=self.name,
            settings={**self.settings, **target.settings},
            scores=scores.detach().float(),
            labels=target.labels,
            text_dependent=self.text_dependent,
            kind=self.modality,
            tokens=tokens,
        )


@dataclass(frozen=True)
class TraceExplainer(Explainer):
    """An explainer whose map is a function of one trace."""

    @abstractmethod
    def needs(self) -> Needs:
        """Return what it reads of the tower."""

    @abstractmethod
    def maps(self, trace: Trace) -> Tensor:
        """Return raw maps ``[B, T, h, w]``."""

    def explain(self, backbone: Backbone, pixels: Tensor, target: Target) -> Attribution:
        """Explain the target's scores with a trace of its own; see the base class."""
        return self._attribution_of(Trace(backbone, pixels, target, self.needs()), target)

    def _attribution_of(self, trace: Trace, target: Target) -> Attribution:
        return self._attribution(self.maps(trace), trace.scores, target)


def explain_together(
    explainers: Sequence[Explainer], backbone: Backbone, pixels: Tensor, target: Target
) -> list[Attribution]:
    """Explain one target by several methods; all that read a trace share one forward and one backward pass.

    Args:
        explainers: The methods.
        backbone: The tower.
        pixels: Preprocessed images ``[B, 3, S, S]``.
        target: What is to be explained.

    Returns:
        One attribution for each explainer, in their order, equal to what each gives alone.
    """
    needs = Needs()
    for explainer in explainers:
        if isinstance(explainer, TraceExplainer):
            needs |= explainer.needs()
    shared = Trace(backbone, pixels, target, needs) if needs != Needs() else None
    return [
        explainer._attribution_of(shared, target)
        if isinstance(explainer, TraceExplainer) and shared is not None
        else explainer.explain(backbone, pixels, target)
        for explainer in explainers
    ]
