"""The contract of every target."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from clip_xai.data.vocabulary import Vocabulary
from clip_xai.errors import UserError
from clip_xai.models.backbones.base import VisionBackbone
from clip_xai.models.backbones.recording import batched_vjp, outside_inference
from clip_xai.models.captioner import Captioner
from clip_xai.ranges import check, settings_of_parameters
from clip_xai.registry import Registry

if TYPE_CHECKING:
    from clip_xai.xai.targets.question import Question

CAPTION, TEXT = "caption", "text"  # what a target may need besides the tower


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

    @property
    def any_number(self) -> bool:
        """Whether it can score an image of which patches were left out, so that fewer tokens than N are read."""
        return self.reads == "pooled"

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


@dataclass(frozen=True)
class TargetContext:
    """All that a target can be made of.

    Attributes:
        name: The target that is asked for.
        question: What is asked, with the settings of ``target`` and the texts.
        backbone: The tower.
        captioner: Needed for captions, and for texts that are not given.
        token_ids: The generated caption's tokens.
        pixels: The images ``[B, 3, S, S]``.
    """

    name: str
    question: Question
    backbone: VisionBackbone
    captioner: Captioner | None = None
    token_ids: Sequence[int] | None = None
    pixels: Tensor | None = None

    @property
    def vocabulary(self) -> Vocabulary:
        """What is taken where nothing is given: the captioner's words, else those of the question."""
        return self.question.vocabulary if self.captioner is None else self.captioner.vocabulary

    def caption(self) -> tuple[Captioner, Sequence[int]]:
        """Return the captioner and the tokens of its caption.

        Raises:
            UserError: There is none.
        """
        if self.captioner is None or self.token_ids is None:
            raise UserError(
                f"target={self.name} needs a captioner: train one, or choose target=similarity with text=..."
            )
        return self.captioner, self.token_ids

    def texts(self) -> tuple[str, ...]:
        """Return the texts that were given, or the generated caption.

        Raises:
            UserError: There is neither, or one is blank.
        """
        asked = self.question.text
        texts = (asked,) if isinstance(asked, str) else asked
        if texts is None:
            if self.captioner is None or self.token_ids is None:
                raise UserError(f"without a captioner target={self.name} needs a text: add text=...")
            texts = (self.captioner.tokenizer.decode(self.token_ids),)
            if not texts[0].strip():
                raise UserError("the generated caption is empty; train the captioner further, or give text=...")
        if not all(text.strip() for text in texts):
            raise UserError(f'text= is blank: give a text, such as text="{self.vocabulary.probe}"')
        return texts


# Makes a target of a context. Parameters with a default are settings of its own. Facts that it is registered with:
# ``needs``, one of CAPTION, TEXT and an empty text, and ``order``, its place in lists.
TargetMaker = Callable[..., Any]
targets: Registry[TargetMaker] = Registry(
    "target", "targets", "clip_xai.xai.targets", order=lambda maker: getattr(maker, "order", 100)
)


def made_of(context: TargetContext) -> Any:
    """Return the target, or the target specification, that a name and what is asked stand for.

    Raises:
        UserError: No target has that name, or it lacks what it is made of.
    """
    maker = targets.named(context.name, "target.names")
    kind = settings_of_parameters(maker)
    own = {item.name for item in fields(kind)}
    options = {key: value for key, value in context.question.options.items() if key in own}
    check(kind(**options), "target")
    return maker(context, **options)


def needing(what: str) -> tuple[str, ...]:
    """Return the names of the targets that need a caption or a text."""
    return tuple(name for name, maker in targets.items() if getattr(maker, "needs", "") == what)
