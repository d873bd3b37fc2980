"""Scores of classes: named by prompts, or given by a classifier."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip_xai.data.vocabulary import load_vocabulary
from clip_xai.errors import UserError
from clip_xai.models.backbones.base import VisionBackbone
from clip_xai.models.backbones.classifier import VisionClassifier
from clip_xai.models.backbones.clip import CLIPBackbone, with_texts
from clip_xai.models.backbones.recording import evaluation_mode
from clip_xai.xai.targets.base import Target, TargetContext, targets
from clip_xai.xai.targets.similarity import SimilarityTarget, cut_notes

CLASSIFIER_KINDS = {
    "logit": "class logit",
    "margin": "class logit margin",
    "log_probability": "log-probability of the class",
}


class ClassTarget(SimilarityTarget):
    """Zero-shot class scores (Radford et al., ICML 2021, arXiv 2103.00020): texts ensembled over templates.

    With t'_ck the unit embedding of template k filled with class c::

        t_c = mean over k of t'_ck, scaled to unit length
        s_c = cosine, dot product or tau * cosine of the image and t_c, or (``log_probability``) the log of the softmax
              of tau * cosine over all classes

    Shapes: scores ``[B, C]``. Cost: one pass of the text tower over C times K prompts, when it is built.

    Example:
        >>> from clip_xai.xai.examples import example
        >>> backbone, pixels, _ = example()
        >>> target = ClassTarget.from_classes(backbone, ["nevus", "melanoma"], kind="log_probability")
        >>> scores = target.score(backbone.encode_image(pixels))
        >>> bool((scores.exp().sum(1) - 1).abs().max() < 1e-5)
        True
    """

    name = "class"

    def __init__(
        self,
        class_embeddings: Tensor,
        classes: Sequence[str],
        kind: str = "cosine",
        logit_scale: Tensor | float | None = None,
        templates: Sequence[str] = (),
    ) -> None:
        """Take one embedding for each class.

        Args:
            class_embeddings: ``[C, D]``.
            classes: C names.
            kind: ``cosine``, ``dot``, ``logit`` or ``log_probability``.
            logit_scale: tau; needed for the last two.
            templates: What the prompts were made of, for the record.

        Raises:
            ValueError: As ``SimilarityTarget``.
        """
        self.softmax = kind == "log_probability"
        super().__init__(class_embeddings, classes, "logit" if self.softmax else kind, logit_scale)
        self.score_name = "log-probability of the class" if self.softmax else kind
        self.templates = list(templates)

    @classmethod
    def from_classes(
        cls,
        backbone: CLIPBackbone,
        classes: Sequence[str],
        templates: Sequence[str] | None = None,
        kind: str = "cosine",
        labels: Sequence[str] | None = None,
    ) -> ClassTarget:
        """Embed classes with a backbone.

        Args:
            backbone: Gives the embeddings.
            classes: What is put into the templates.
            templates: Texts with ``{}`` where the class stands; those of skin if None.
            kind: As above.
            labels: Names to show; the classes if None.

        Raises:
            UserError: There is no class, or a template has no place for it.
        """
        templates = load_vocabulary().templates if templates is None else templates
        if not classes or not templates:
            raise UserError("a class target needs classes and templates: set target.classes and target.templates")
        misplaced = [template for template in templates if template.count("{}") != 1]
        if misplaced:
            raise UserError(f"the template {misplaced[0]!r} must hold {{}} once, where the class stands")
        prompts = [template.replace("{}", name) for name in classes for template in templates]
        with torch.no_grad(), evaluation_mode(backbone):
            units = F.normalize(backbone.encode_text(prompts), dim=-1)
        means = units.unflatten(0, (len(classes), len(templates))).mean(dim=1)
        embeddings = F.normalize(means, dim=-1)
        target = cls(embeddings, labels or classes, kind, backbone.logit_scale.detach(), templates)
        target.notes = cut_notes(backbone, prompts)
        return target

    @property
    def settings(self) -> dict[str, Any]:
        """The kind, tau where it counts, and the templates."""
        kind = {"kind": "log_probability"} if self.softmax else {}
        return {**super().settings, **kind, "templates": self.templates}

    def score_of(self, read: Tensor, text_embeddings: Tensor) -> Tensor:
        """Return the scores ``[B, C]``."""
        scores = super().score_of(read, text_embeddings)
        return scores.log_softmax(dim=-1) if self.softmax else scores


class ClassifierTarget(Target):
    """Scores of a classifier that stands on the tower.

    With ``z = head(read)`` and for class c of C one of::

        s_c = z_c                                     logit
        s_c = z_c - mean over u != c of z_u           margin
        s_c = z_c - log sum over u of exp z_u         log_probability of one class
        s_c = log sigmoid z_c                         log_probability where several may show at once

    Shapes: scores ``[B, T]`` of T classes. The head is asked in evaluation mode and left as it was.

    Example:
        >>> import torch
        >>> target = ClassifierTarget(torch.nn.Linear(4, 3), ["a", "b", "c"], classes=[2])
        >>> target.score(torch.zeros(5, 4)).shape, target.labels
        (torch.Size([5, 1]), ['c'])
    """

    name = "logit"

    def __init__(
        self,
        head: nn.Module | Callable[[Tensor], Tensor],
        labels: Sequence[str],
        reads: str = "pooled",
        classes: Sequence[int] | None = None,
        kind: str = "logit",
        multilabel: bool = False,
    ) -> None:
        """Take a head.

        Args:
            head: From what the tower hands over, ``[B, D]`` or ``[B, N, W]``, to logits ``[B, C]``.
            labels: Names of all C classes.
            reads: ``"pooled"``, ``"patches"`` or ``"tokens"``.
            classes: Which classes are explained; all if None.
            kind: ``logit``, ``margin`` or ``log_probability``.
            multilabel: Whether an image can show several classes at once: a probability is then each class's own.

        Raises:
            ValueError: A class is out of range, or the kind is unknown or has nothing to compare with.
        """
        self.classes = list(range(len(labels))) if classes is None else list(classes)
        if not self.classes or not all(0 <= index < len(labels) for index in self.classes):
            raise ValueError(f"classes {self.classes} are not all from 0 to {len(labels) - 1}")
        if kind not in CLASSIFIER_KINDS or (kind == "margin" and len(labels) < 2):
            raise ValueError(f"kind is {kind!r} of {len(labels)} classes; choose one of {', '.join(CLASSIFIER_KINDS)}")
        self.head, self.reads, self.kind, self.multilabel = head, reads, kind, multilabel
        self.score_name = CLASSIFIER_KINDS[kind]
        self.labels = [labels[index] for index in self.classes]

    @classmethod
    def of(
        cls,
        backbone: VisionBackbone,
        classes: Sequence[str | int] = (),
        kind: str = "logit",
        pixels: Tensor | None = None,
    ) -> ClassifierTarget:
        """Make the scores of a classifier's classes.

        Args:
            backbone: The classifier.
            classes: Names, or numbers that count from 0. None of them for the likeliest class of the images.
            kind: As above.
            pixels: The images ``[B, 3, S, S]`` whose likeliest classes are taken where none is named.

        Raises:
            UserError: The backbone is no classifier, has no such class, or no class is named and no image given.
        """
        if not isinstance(backbone, VisionClassifier):
            raise UserError(
                f"backbone {backbone.name} is not a classifier, so that it has no logits: choose backbone=timm or "
                "torchvision, or target=class for classes that are named by texts"
            )
        if kind not in CLASSIFIER_KINDS:
            raise UserError(f"target.kind={kind} is not a score of a classifier: choose {', '.join(CLASSIFIER_KINDS)}")
        if not classes:
            if pixels is None:
                raise UserError("a classifier's target needs classes: set target.classes")
            with torch.no_grad(), evaluation_mode(backbone):
                chosen = sorted(set(backbone.logits(pixels).argmax(dim=1).tolist()))
        else:
            chosen = [_number(backbone, one) for one in classes]
        multilabel = backbone.multilabel
        return cls(backbone.logits_of, backbone.classes, backbone.reads, list(dict.fromkeys(chosen)), kind, multilabel)

    @property
    def settings(self) -> dict[str, Any]:
        """The kind and the classes' numbers."""
        return {"target": self.name, "kind": self.kind, "classes": self.classes}

    def score(self, read: Tensor) -> Tensor:
        """Return the scores ``[B, T]`` of the chosen classes."""
        if not isinstance(self.head, nn.Module):
            return self._of_logits(self.head(read))[:, self.classes]
        with evaluation_mode(self.head):
            return self._of_logits(self.head(read))[:, self.classes]

    def _of_logits(self, logits: Tensor) -> Tensor:
        if self.kind == "margin":
            return logits - (logits.sum(dim=1, keepdim=True) - logits) / (logits.shape[1] - 1)
        if self.kind != "log_probability":
            return logits
        return F.logsigmoid(logits) if self.multilabel else logits.log_softmax(dim=1)


def _number(backbone: VisionClassifier, asked: str | int) -> int:
    """Return a class's number; a name comes before a number that is written alike."""
    name = str(asked).strip()
    if name in backbone.classes:
        return backbone.classes.index(name)
    if name.isdecimal() and int(name) < len(backbone.classes):
        return int(name)
    near = difflib.get_close_matches(name, backbone.classes)
    some = ", ".join(backbone.classes[:5])
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"the first are {some}"
    raise UserError(
        f"target.classes: backbone {backbone.name} has {len(backbone.classes)} classes (0 to "
        f"{len(backbone.classes) - 1}), and {name!r} is none of them; {hint}"
    )


@targets.register("class", order=7)
def zero_shot_class(context: TargetContext) -> ClassTarget:
    """Make the scores of the classes that are asked."""
    asked, words = context.question, context.vocabulary
    classes = words.classes if asked.classes is None else asked.classes
    templates = words.templates if asked.templates is None else asked.templates
    return ClassTarget.from_classes(with_texts(context.backbone), classes, templates, asked.kind)


@targets.register("logit", order=8)
def classifier_logit(context: TargetContext) -> ClassifierTarget:
    """Make the scores of a classifier's classes: those that are asked, or the likeliest of each image."""
    return ClassifierTarget.of(context.backbone, context.question.classes or (), context.question.kind, context.pixels)
