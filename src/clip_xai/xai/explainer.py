"""The contract of every explainer, and how several share one pass of the tower."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from torch import Tensor

from clip_xai.errors import UserError
from clip_xai.models.backbones.base import VisionBackbone
from clip_xai.ranges import check
from clip_xai.registry import Registry
from clip_xai.xai.attribution import Attribution
from clip_xai.xai.perturbation_bank import PerturbationBank
from clip_xai.xai.target import Target
from clip_xai.xai.trace import Needs, Trace

log = logging.getLogger(__name__)
# What methods do to find the evidence: the sections in which tables and reports show them.
GROUPS = ("activation maps", "attention", "gradients", "perturbation", "patches and words together", "words")
SUPPORTED = {
    "attention": "attention over all patches",
    "class_token": "a class token",
    "output_gradients": "the tokens after its blocks",
    "text_trace": "a text tower opened up",
}


@dataclass(frozen=True)
class Explainer(ABC):
    """Finds the evidence behind a target's scores. Its settings are its fields.

    Attributes:
        name: As in ``xai=NAME``; ``explainers.register`` gives a class its name, title, group and order.
        title: As written in its paper.
        group: One of ``GROUPS``, or another one.
        order: Its place in the group.
        reading: How to read its map, in one sentence; the first line of the docstring if empty.
        modality: ``"image"``: evidence over the patch grid; ``"text"``: evidence over words.
        text_dependent: False when the result is the same whatever the target asks; such a method is a control.
        linear_in_target: Whether the evidence for a weighted sum of scores is the weighted sum of the evidence.
        needs_of_tower: What a tower must support, out of a backbone's ``supports``; nothing where any will do.
        every_word: Whether reports explain every word of a caption by it. Where each score takes dozens of passes of
            its own, they explain the diagnosis and the whole caption, unless words alone are asked for.
        shares_trace: False for one that needs a trace of its own kind, where others share one.
        cost: Forward (F) and backward (B) passes of the image tower for one image and T scores, for the table.
    """

    name: ClassVar[str]
    title: ClassVar[str] = ""
    group: ClassVar[str] = "other"
    order: ClassVar[int] = 100
    reading: ClassVar[str] = ""
    modality: ClassVar[str] = "image"
    text_dependent: ClassVar[bool] = True
    linear_in_target: ClassVar[bool]
    needs_of_tower: ClassVar[frozenset[str]] = frozenset()
    every_word: ClassVar[bool] = True
    shares_trace: ClassVar[bool] = True
    cost: ClassVar[str] = ""

    def __post_init__(self) -> None:
        check(self, f"xai.{self.name}")

    @property
    def settings(self) -> dict[str, Any]:
        """The settings, plain values."""
        return asdict(self)

    @abstractmethod
    def explain(self, backbone: VisionBackbone, pixels: Tensor, target: Target) -> Attribution:
        """Explain the target's T scores of B images.

        The backbone is left as it was: no hooks, the same modes, the same parameters and no gradients on them.

        Args:
            backbone: The tower.
            pixels: Preprocessed images ``[B, 3, S, S]``.
            target: What is to be explained.

        Raises:
            UserError: The method is not defined for this tower or target.
        """

    def refusal(self, backbone: VisionBackbone, target: Target) -> str | None:
        """Return why the method is not defined for a tower and a target, None if it is."""
        lacking = sorted(self.needs_of_tower - backbone.supports)
        if not lacking:
            return None
        remedies = backbone.image_tower.remedies
        helps = f" ({'; '.join(remedies[need] for need in lacking)})" if set(lacking) <= set(remedies) else ""
        what = " and ".join(SUPPORTED[need] for need in lacking)
        return f"reads {what}, which backbone {backbone.name} does not have{helps}"

    def require(self, backbone: VisionBackbone, target: Target) -> None:
        """Raise a ``UserError`` with the reason and the methods that are defined, unless this one is."""
        reason = self.refusal(backbone, target)
        if reason is None:
            return
        able = [name for name, method in explainers.items() if method().refusal(backbone, target) is None]
        raise UserError(f"{self.name} {reason}: choose one of {', '.join(able)}")

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


def _place(method: type[Explainer]) -> tuple[int, str, int]:
    return GROUPS.index(method.group) if method.group in GROUPS else len(GROUPS), method.group, method.order


explainers: Registry[type[Explainer]] = Registry("explainer", "explainers", "clip_xai.xai.methods", order=_place)


def groups() -> dict[str, list[type[Explainer]]]:
    """Return the explainers of each group, in the order of tables and reports."""
    found: dict[str, list[type[Explainer]]] = {}
    for method in explainers.values():
        found.setdefault(method.group, []).append(method)
    return found


@dataclass(frozen=True)
class TraceExplainer(Explainer):
    """An explainer whose map is a function of one trace."""

    @abstractmethod
    def needs(self, backbone: VisionBackbone, target: Target) -> Needs:
        """Return what it reads of this tower for this target."""

    @abstractmethod
    def maps(self, trace: Trace) -> Tensor:
        """Return raw maps ``[B, T, h, w]``."""

    def explain(self, backbone: VisionBackbone, pixels: Tensor, target: Target) -> Attribution:
        """Explain the target's scores with a trace of its own; see the base class."""
        self.require(backbone, target)
        return self._attribution_of(Trace(backbone, pixels, target, self.needs(backbone, target)), target)

    def _attribution_of(self, trace: Trace, target: Target) -> Attribution:
        return self._attribution(self.maps(trace), trace.scores, target)


@dataclass(frozen=True)
class BankExplainer(Explainer):
    """An explainer that changes the image and watches the score: a function of one bank of masked images."""

    def needs(self, backbone: VisionBackbone, target: Target) -> Needs:
        """Return what else it reads of this tower for this target, on the images themselves."""
        return Needs()

    @abstractmethod
    def maps(self, bank: PerturbationBank, target: Target, trace: Trace | None) -> tuple[Tensor, Tensor]:
        """Return raw maps ``[B, T, h, w]`` and the scores ``[B, T]`` that they explain.

        Args:
            bank: The stream of masked images, shared with other explainers.
            target: What is to be explained.
            trace: What the tower computed on the images themselves; None if nothing is needed of it.
        """

    def explain(self, backbone: VisionBackbone, pixels: Tensor, target: Target) -> Attribution:
        """Explain the target's scores with a bank of its own; see the base class."""
        self.require(backbone, target)
        needs = self.needs(backbone, target)
        trace = Trace(backbone, pixels, target, needs) if needs != Needs() else None
        return self._attribution_of(PerturbationBank(backbone, pixels), target, trace)

    def _attribution_of(self, bank: PerturbationBank, target: Target, trace: Trace | None) -> Attribution:
        return self._attribution(*self.maps(bank, target, trace), target)


def defined_for(
    explainers: Sequence[Explainer], backbone: VisionBackbone, target: Target
) -> tuple[list[Explainer], list[str]]:
    """Return those of several methods that are defined for a tower and a target, and why the others are not.

    Returns:
        The methods, in their order, and one sentence for each of the others.

    Raises:
        UserError: None is defined.
    """
    judged = [(explainer, explainer.refusal(backbone, target)) for explainer in explainers]
    able = [explainer for explainer, reason in judged if reason is None]
    refused = [f"{explainer.name} {reason}" for explainer, reason in judged if reason is not None]
    if not able:
        raise UserError(f"none of the requested methods is defined for target={target.name}: {'; '.join(refused)}")
    return able, refused


def explain_together(
    explainers: Sequence[Explainer],
    backbone: VisionBackbone,
    pixels: Tensor,
    target: Target,
    bank: PerturbationBank | None = None,
) -> list[Attribution]:
    """Explain one target by several methods.

    All that read a trace share one forward and one backward pass; all that mask the image share one bank.

    Args:
        explainers: The methods.
        backbone: The tower.
        pixels: Preprocessed images ``[B, 3, S, S]``.
        target: What is to be explained.
        bank: A bank of the same tower and images, such as the one that another target was explained with; None for a
            new one.

    Returns:
        One attribution for each explainer, in their order, equal to what each gives alone.

    Raises:
        UserError: A method is not defined for this tower or target.
    """
    needs = Needs()
    for explainer in explainers:
        explainer.require(backbone, target)
        if isinstance(explainer, TraceExplainer | BankExplainer) and explainer.shares_trace:
            needs |= explainer.needs(backbone, target)
    shared = Trace(backbone, pixels, target, needs) if needs != Needs() else None
    bank = bank or PerturbationBank(backbone, pixels)
    return [_with(explainer, shared, bank, backbone, pixels, target) for explainer in explainers]


def explain_apart(
    explainers: Sequence[Explainer],
    backbone: VisionBackbone,
    pixels: Tensor,
    target: Target,
    bank: PerturbationBank | None = None,
) -> tuple[list[Explainer], list[Attribution], list[str]]:
    """Explain one target by several methods, of which one that fails does not take others with it.

    Args:
        explainers: As for :func:`explain_together`, and so are the others.
        backbone: The tower.
        pixels: Preprocessed images.
        target: What is to be explained.
        bank: A bank of the same tower and images.

    Returns:
        The methods that answered, their attributions, and a sentence for each of the others.
    """
    try:
        return list(explainers), explain_together(explainers, backbone, pixels, target, bank), []
    except OSError:
        raise  # a full disk, say, is nobody's method
    except Exception:
        log.debug("one of several methods failed; each is tried by itself", exc_info=True)
    bank = bank or PerturbationBank(backbone, pixels)
    able: list[Explainer] = []
    found: list[Attribution] = []
    failed: list[str] = []
    for explainer in explainers:
        try:
            found += explain_together([explainer], backbone, pixels, target, bank)
            able.append(explainer)
        except UserError as error:
            failed.append(f"{explainer.name} is left out: {error}.")
        except OSError:
            raise
        except Exception as error:
            log.exception("%s failed", explainer.name)
            failed.append(f"{explainer.name} is left out, it failed: {type(error).__name__}: {_first_line(error)}.")
    return able, found, failed


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:200]


def _with(
    explainer: Explainer,
    trace: Trace | None,
    bank: PerturbationBank,
    backbone: VisionBackbone,
    pixels: Tensor,
    target: Target,
) -> Attribution:
    if isinstance(explainer, TraceExplainer) and explainer.shares_trace and trace is not None:
        return explainer._attribution_of(trace, target)
    if isinstance(explainer, BankExplainer):
        return explainer._attribution_of(bank, target, trace)
    return explainer.explain(backbone, pixels, target)
