"""From attributions to what a report shows of one photograph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clip_xai.data.preprocess import Geometry
from clip_xai.report.explained import LOG_PROBABILITY, MARGIN_SUFFIX, ExplainedImage, Explanation, Item
from clip_xai.report.figures import fitted, resized_geometry
from clip_xai.report.ledger import Ledger
from clip_xai.report.map_evidence import MapEvidence
from clip_xai.report.measured_curves import MeasuredCurves
from clip_xai.xai.attribution import Attribution

LONGEST_SIDE = 1200  # no report shows more pixels, and a run over camera files must fit into memory

PAIR_NOTE = "Each patch with all words together: the sum of the maps of the single words."


@dataclass(frozen=True)
class Answer:
    """What several methods say about one target on one photograph.

    Attributes:
        score_name: What the target's scores are: ``log-probability``, ``cosine`` ...
        spans: Where each of the T scores stands in the caption, None for what is not a single word of it.
        attributions: One a method, of one photograph (B = 1), about all T scores or the last of them alone.
        settings: The methods' own settings, in the same order.
        notes: Sentences that a reader must see beside every one of them.
        left_out: Which methods do not answer, or not word by word, and why.
        contexts: For each of the T scores, what it is to be read against; empty where nothing is.
        curves: Insertion and deletion of the maps; None where that was not asked.
        evidence: What the score says of single maps; empty where that was not asked.
    """

    score_name: str
    spans: Sequence[tuple[int, int] | None]
    attributions: Sequence[Attribution]
    settings: Sequence[Mapping[str, object]]
    notes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    contexts: tuple[str, ...] = ()
    curves: MeasuredCurves | None = None
    evidence: tuple[MapEvidence, ...] = ()

    @property
    def items(self) -> tuple[Item, ...]:
        """The T scores with their labels."""
        whole = max(self.attributions, key=lambda one: len(one.labels))
        scores = whole.scores[0].tolist()
        labelled = zip(whole.labels, scores, self.spans, strict=True)
        margin = self.score_name.endswith(MARGIN_SUFFIX)
        return tuple(
            Item(
                label,
                float(score),
                self.score_name,
                span,
                context=self.contexts[row] if self.contexts else "",
                against=tuple(other for place, other in enumerate(whole.labels) if place != row) if margin else (),
            )
            for row, (label, score, span) in enumerate(labelled)
        )

    def rows(self, attribution: Attribution) -> range:
        """Which of the T scores the rows of one of the attributions are about."""
        return range(len(self.spans) - len(attribution.labels), len(self.spans))


def assemble(
    photograph: Image.Image,
    geometry: Geometry,
    answers: Sequence[Answer],
    *,
    name: str,
    caption: str | None = None,
    references: Sequence[str] = (),
    mask: NDArray[np.bool_] | None = None,
    facts: Mapping[str, str] | None = None,
    measurements: Mapping[str, str] | None = None,
    warning: str = "",
    truth: tuple[str, str] = ("finding", "mask"),
    ledger: Ledger | None = None,
) -> ExplainedImage:
    """Put together what is shown of one photograph; the items of several targets follow one another.

    Photographs of more than ``LONGEST_SIDE`` pixels are shown smaller, with everything registered to them.

    Args:
        photograph: The whole photograph.
        geometry: What the model saw of it.
        answers: One a target.
        name: File name.
        caption: Generated caption.
        references: Captions written by others.
        mask: Mask of the photograph's size.
        facts: Short facts to show and search.
        measurements: Finished measurements to show.
        warning: What a reader must see before anything else.
        truth: What the mask marks, and how.
        ledger: What the words of the caption rest on.
    """
    shown = photograph if max(photograph.size) <= LONGEST_SIDE else fitted(photograph, LONGEST_SIDE, LONGEST_SIDE)
    if mask is not None and shown is not photograph:
        mask = np.asarray(Image.fromarray(mask).resize(shown.size, Image.Resampling.NEAREST))
    return ExplainedImage(
        name=name,
        photograph=shown,
        geometry=resized_geometry(geometry, shown.width, shown.height),
        items=tuple(item for answer in answers for item in answer.items),
        explanations=_explanations(answers),
        caption=caption,
        references=tuple(references),
        mask=mask,
        truth=truth,
        facts=dict(facts or {}),
        measurements=dict(measurements or {}),
        warning=warning,
        left_out=tuple(dict.fromkeys(reason for answer in answers for reason in answer.left_out)),
        curves=_curves(answers),
        evidence=_evidence(answers),
        ledger=ledger,
    )


def _curves(answers: Sequence[Answer]) -> dict[int, tuple[MeasuredCurves, int]]:
    """The curves of each item that has some, and its number in them."""
    found: dict[int, tuple[MeasuredCurves, int]] = {}
    offset = 0
    for answer in answers:
        if answer.curves is not None:
            found |= {offset + row.item: (answer.curves, row.item) for row in answer.curves.rows}
        offset += len(answer.items)
    return found


def _evidence(answers: Sequence[Answer]) -> dict[tuple[str, int], MapEvidence]:
    """The evidence of maps by their method and item."""
    found: dict[tuple[str, int], MapEvidence] = {}
    offset = 0
    for answer in answers:
        found |= {(one.method, offset + one.item): one for one in answer.evidence}
        offset += len(answer.items)
    return found


def _explanations(answers: Sequence[Answer]) -> tuple[Explanation, ...]:
    """One explanation a method, its rows running over the items of all answers."""
    found: dict[str, Explanation] = {}
    offset = 0
    for answer in answers:
        for attribution, settings in zip(answer.attributions, answer.settings, strict=True):
            new = _explanation(attribution, settings, offset, answer)
            known = found.get(new.method)
            found[new.method] = new if known is None else _joined(known, new)
        offset += len(answer.items)
    return tuple(found.values())


def _explanation(attribution: Attribution, settings: Mapping[str, object], offset: int, answer: Answer) -> Explanation:
    values = attribution.values[0].double().cpu().numpy()
    tokens: tuple[tuple[str, ...], ...] = ()
    notes = answer.notes
    interactions: tuple[NDArray[np.floating], ...] = ()
    if attribution.kind == "pair":
        tokens = tuple(tuple(names) for names in attribution.tokens or ())
        interactions = tuple(row[: len(names)] for row, names in zip(values, tokens, strict=True))
        values = np.nansum(values, axis=1)
        notes = (*notes, PAIR_NOTE)
    elif attribution.tokens is not None:
        tokens = tuple(tuple(names) for names in attribution.tokens)
        if answer.score_name == LOG_PROBABILITY:
            values, tokens = _read_before(values, tokens, [answer.spans[row] for row in answer.rows(attribution)])
    items = tuple(offset + row for row in answer.rows(attribution))
    dependent = attribution.text_dependent
    return Explanation(attribution.method, settings, values, items, dependent, tokens, notes, interactions)


def _read_before(
    values: NDArray[np.floating], tokens: tuple[tuple[str, ...], ...], spans: Sequence[tuple[int, int] | None]
) -> tuple[NDArray[np.floating], tuple[tuple[str, ...], ...]]:
    """Blank, for each word of a caption, itself and what comes after: the language model had not read it yet."""
    words = sum(span is not None for span in spans)
    before = len(tokens[0]) - words  # the columns of the photograph and of the prompt
    values = values.copy()
    for row, span in enumerate(spans):
        if span is not None:
            values[row, before + row :] = np.nan
    return values, tuple(tuple(f"[{name}]" for name in row[:before]) + row[before:] for row in tokens)


def _joined(first: Explanation, second: Explanation) -> Explanation:
    """The rows of one method about two targets."""
    values = [first.values, second.values]
    if first.kind == "text":
        width = max(part.shape[1] for part in values)
        values = [np.pad(part, ((0, 0), (0, width - part.shape[1])), constant_values=np.nan) for part in values]
    notes = tuple(dict.fromkeys((*first.notes, *second.notes)))
    return replace(
        first,
        values=np.concatenate(values),
        items=first.items + second.items,
        tokens=first.tokens + second.tokens,
        notes=notes,
        interactions=first.interactions + second.interactions,
    )
