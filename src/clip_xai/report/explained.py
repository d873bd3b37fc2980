"""What a report shows of one photograph: plain finished results, whichever model and method made them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clip_xai.data.preprocess import Geometry
from clip_xai.xai.explainer import explainers
from clip_xai.xai.targets.classes import CLASSIFIER_KINDS

if TYPE_CHECKING:
    from clip_xai.report.ledger import Ledger
    from clip_xai.report.map_evidence import MapEvidence
    from clip_xai.report.measured_curves import MeasuredCurves

LOG_PROBABILITY = "log-probability"
RATIO = "log-probability ratio"
TOTAL_EFFECT = "total effect"
MARGIN_SUFFIX = " margin"
MARGIN = "cosine" + MARGIN_SUFFIX
NAMED = 3  # of the texts that a margin is over; the item's note names all
CLASS_AGNOSTIC_NOTE = (
    "Class-agnostic: this map does not depend on the word or text. It is the same picture for every one of them."
)
POOLED_NOTE = (
    "This caption model reads one pooled vector per photograph. Its words have no spatial evidence of their own: "
    "maps of different words differ only in how they weigh that one vector."
)
CERTAIN = -0.01
CERTAIN_NOTE = (
    "The model is certain: next to nothing moves this score, so its maps are faint and gradients close to noise. "
    "target=caption_contrast asks why it is this and not another."
)


def title_of(method: str) -> str:
    """Return a method's name as written in its paper; of one that is not known here, its plain name."""
    return (explainers[method].title if method in explainers else "") or method.replace("_", " ")


@dataclass(frozen=True)
class Item:
    """One thing that is explained: a word of the caption, the whole caption, or a text.

    Attributes:
        label: The word or text.
        score: Its raw score.
        score_name: What the score is: ``log-probability``, ``cosine``, ``cosine margin`` ...
        span: Where it stands in the caption (start, end), or None when it is not a part of it.
        context: What the score is to be read against, such as its rank among other texts; empty where nothing is.
        against: The other texts, where the score is a margin over their mean.
    """

    label: str
    score: float
    score_name: str
    span: tuple[int, int] | None = None
    context: str = ""
    against: tuple[str, ...] = ()

    @property
    def score_text(self) -> str:
        """The raw score with its name; beside a log-probability the probability."""
        if self.score_name == LOG_PROBABILITY:
            return f"log p {number(self.score)} (p {probability_text(math.exp(self.score))})"
        return f"{self.score_name} {number(self.score)}{' nats' if self.score_name == TOTAL_EFFECT else ''}"

    @property
    def note(self) -> str:
        """What a reader must know of the score itself; empty for most."""
        if self.against:
            alike = self.score_name.removesuffix(MARGIN_SUFFIX)
            return f"A margin: the {alike} with this text less the mean of those with {_quoted(self.against)}."
        return CERTAIN_NOTE if self.score_name == LOG_PROBABILITY and self.score > CERTAIN else ""


@dataclass(frozen=True)
class Explanation:
    """What one method says about the items of one photograph.

    Attributes:
        method: Name of the method, as in ``xai=NAME``.
        settings: Its settings.
        values: Raw, signed values: [T, h, w] over the picture, or [T, tokens] over text (NaN: not read for this item).
        items: Which item of the photograph each of the T rows is about.
        text_dependent: Whether the values depend on the item at all.
        tokens: For text: what the columns of each row stand for. For interactions: the words of each row's text.
        notes: Sentences a reader must see beside this explanation.
        interactions: Where a row's text is taken apart: for each row the values of each of its words with each place,
            [words, h, w]; the row itself is their sum.
    """

    method: str
    settings: Mapping[str, object]
    values: NDArray[np.floating]
    items: tuple[int, ...]
    text_dependent: bool = True
    tokens: tuple[tuple[str, ...], ...] = ()
    notes: tuple[str, ...] = ()
    interactions: tuple[NDArray[np.floating], ...] = ()

    def __post_init__(self) -> None:
        if len(self.values) != len(self.items):
            raise ValueError(f"{self.method}: {len(self.values)} rows of values for {len(self.items)} items")
        if self.values.ndim == 2 and len(self.tokens) != len(self.items):
            raise ValueError(f"{self.method}: tokens for {len(self.tokens)} of {len(self.items)} items")
        if self.interactions and not len(self.interactions) == len(self.tokens) == len(self.items):
            raise ValueError(f"{self.method}: interactions of {len(self.interactions)} of {len(self.items)} items")

    def row(self, item: int) -> NDArray[np.floating] | None:
        """The values of one item, or None where the method says nothing about it."""
        return self.values[self.items.index(item)] if item in self.items else None

    @property
    def kind(self) -> str:
        """``image`` for heat maps, ``text`` for values over tokens."""
        return "image" if self.values.ndim == 3 else "text"

    @property
    def title(self) -> str:
        """The method's name as written in its paper."""
        return title_of(self.method)

    @property
    def group(self) -> str:
        """What the method does to find the evidence, as in tables."""
        return explainers[self.method].group if self.method in explainers else "other"

    @property
    def reading(self) -> str:
        """How to read the map, in one sentence, else what the method is; empty for methods of one's own."""
        if self.method not in explainers:
            return ""
        method = explainers[self.method]
        return method.reading or ((method.__doc__ or "").strip().splitlines() or [""])[0]

    @property
    def all_notes(self) -> tuple[str, ...]:
        """The notes, with the class-agnostic one first where it applies."""
        return self.notes if self.text_dependent else (CLASS_AGNOSTIC_NOTE, *self.notes)

    @property
    def settings_text(self) -> str:
        """The settings on one line."""
        return ", ".join(f"{key} = {plain(value)}" for key, value in self.settings.items()) or "no settings"


@dataclass(frozen=True)
class ExplainedImage:
    """One photograph with everything that was found out about it.

    Attributes:
        name: File name; shown, never trusted.
        photograph: The whole photograph, upright, RGB.
        geometry: What part of it the model saw.
        items: What is explained.
        explanations: One a method.
        caption: The generated caption, or None when no captioner took part.
        references: Captions written by people (or by the source's template).
        mask: Mask [H, W] of what is to be found on the photograph, or None.
        facts: Short facts to show and search: source, diagnosis ...
        measurements: Finished measurements to show, such as localisation: name -> text.
        left_out: Which methods say nothing about some of the items, and why.
        warning: What a reader must see before anything else; empty for most.
        truth: What the mask marks, and how: ``("lesion", "mask")``.
        curves: Insertion and deletion of each item that has some, with its number in them.
        evidence: What the score says of single maps, by method and item.
        ledger: What the words of the caption rest on; None where that was not asked.
    """

    name: str
    photograph: Image.Image
    geometry: Geometry
    items: tuple[Item, ...]
    explanations: tuple[Explanation, ...]
    caption: str | None = None
    references: tuple[str, ...] = ()
    mask: NDArray[np.bool_] | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    measurements: Mapping[str, str] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    warning: str = ""
    truth: tuple[str, str] = ("finding", "mask")
    curves: Mapping[int, tuple[MeasuredCurves, int]] = field(default_factory=dict)
    evidence: Mapping[tuple[str, int], MapEvidence] = field(default_factory=dict)
    ledger: Ledger | None = None


def short_label(image: ExplainedImage, index: int) -> str:
    """What an item is, without repeating a whole caption that stands beside it anyway."""
    item = image.items[index]
    if item.score_name == LOG_PROBABILITY:
        return item.label.strip()
    if item.score_name == TOTAL_EFFECT:
        return f"{item.label.strip()} ({TOTAL_EFFECT})"
    if item.score_name in CLASSIFIER_KINDS.values():
        return item.label.strip() if item.label.startswith("class ") else f"class “{item.label.strip()}”"
    label = "the caption" if item.label.strip() == (image.caption or "").strip() else f"“{item.label.strip()}”"
    if item.against:
        over = "the mean of " if len(item.against) > 1 else ""
        more = f" and {len(item.against) - NAMED} more" if len(item.against) > NAMED else ""
        return f"{item.score_name} of {label} over {over}{_quoted(item.against[:NAMED])}{more}"
    return f"{item.score_name} {'of' if item.score_name == RATIO else 'with'} {label}"


def _quoted(texts: Sequence[str]) -> str:
    return ", ".join(f"“{text.strip()}”" for text in texts)


def slug(name: str, limit: int = 80) -> str:
    """A file name made of safe characters only, so that a hostile name cannot leave its folder.

    >>> slug('../"><script>.png')
    'script_.png'
    """
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", name).lstrip("._-")
    return (safe or "photograph")[:limit]


def number(value: float) -> str:
    """A raw value with three significant digits and a true minus sign.

    >>> number(-0.01234)
    '−0.0123'
    """
    text = "0" if value == 0 else f"{value:.3g}"
    return text.replace("-", "−")


def probability_text(probability: float) -> str:
    """A probability with two decimals; a small one as such and not as zero."""
    return f"{probability:.2f}" if probability >= 0.005 else number(probability)


def plain(value: object) -> str:
    """A setting as a person would write it."""
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(plain(entry) for entry in value) + "]"
    return str(value)
