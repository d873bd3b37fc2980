"""Evidence on the heat maps of one photograph: against random fields as smooth, and against maps without any model.

A blob at the centre that saw neither model nor photograph beats random fields on more than half of the photographs, so
a map must beat both: fields of its own smoothness, all maps of the page counted, and every blind control.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clip_xai.explanations.blind_maps import NAMES, blind_maps
from clip_xai.explanations.evidence_calibration import FIELDS, Calibration, p_value
from clip_xai.explanations.lesion_maps import items_to_measure
from clip_xai.metrics.multiplicity import benjamini_hochberg
from clip_xai.report.assemble import Answer
from clip_xai.report.map_evidence import MapEvidence
from clip_xai.text import counted
from clip_xai.xai.attribution import Attribution
from clip_xai.xai.perturbation_bank import PerturbationBank
from clip_xai.xai.random_fields import LENGTHS, gaussian_fields, nearest_length, smoothness_length
from clip_xai.xai.relevance_gain import PASSES, relevance_gains, units_of
from clip_xai.xai.target import Target

MEAN_MAP = "this method's mean map over other photographs"
WORD = "word"
NOT_MEASURED = f"{MEAN_MAP}: not measured for this model (python -m clip_xai.studies.evidence)"
#: Passes that each photograph costs whatever its maps: fields of both lengths, and the blind maps.
COMMON_PASSES = PASSES * (FIELDS * len(LENGTHS) + len(NAMES))


@dataclass(frozen=True)
class EvidenceSettings:
    """How evidence is gathered while photographs are explained.

    Attributes:
        words: Of the single words of a caption, too; else of its diagnosis, of the whole, of texts and of classes.
        calibration: What is known of this model's fields and mean maps; None for nothing.
        seed: Seed of the fields and of the order of equal places.
    """

    words: bool = False
    calibration: Calibration | None = None
    seed: int = 0


def measured_evidence(
    answer: Answer, bank: PerturbationBank, target: Target, settings: EvidenceSettings, number: int = 0
) -> tuple[MapEvidence, ...]:
    """Return the evidence of every heat map of an answer; the q-values are the page's, see :func:`corrected`.

    Args:
        answer: What the methods say of one photograph.
        bank: The tower and that photograph; two answers with the same bank share the passes of fields and blind maps.
        target: What the answer is about, with all its scores.
        settings: How.
        number: The photograph's own number: each has fields of its own.
    """
    kinds = kinds_of(answer, settings.words)
    seed = (settings.seed + number) % 2**31
    asked = _maps_of(answer, kinds)
    if not asked:
        return ()
    units = units_of(bank)
    blind = relevance_gains(
        bank, target, blind_maps(bank.pixels, bank.backbone.preprocess, units), seed=seed, key="blind"
    )
    lengths = [_length_of(one.values) for one in asked]
    fields = {
        length: field_gains(bank, target, length, seed)
        for length in dict.fromkeys(length for length in lengths if not math.isnan(length))
    }
    means = [_mean_map(one, settings.calibration) for one in asked]
    known = [mean for mean in means if mean is not None]
    gains = _gains(bank, target, [one.values for one in asked], seed)
    of_means = iter(_gains(bank, target, known, seed) if known else ())
    found = []
    for one, length, mean, gain in zip(asked, lengths, means, gains, strict=True):
        of_mean = None if mean is None else next(of_means)
        for item in one.items:
            beside = dict(zip(NAMES, blind[:, item].tolist(), strict=True))
            beside |= {} if of_mean is None else {MEAN_MAP: float(of_mean[item])}
            missing = "" if of_mean is not None else NOT_MEASURED
            if math.isnan(length):
                # It has no order, so neither a gain nor a chance to beat anything, calibrated or not.
                found.append(MapEvidence(one.method, item, 0.0, 1.0, True, length, math.nan, beside, missing))
                continue
            own, value = fields[length][:, item], float(gain[item])
            null = None if settings.calibration is None else settings.calibration.null(kinds[item], length)
            chance, spread = p_value(value, own, null), float(np.sqrt(np.mean(own**2)))
            known_null = null is not None
            found.append(MapEvidence(one.method, item, value, chance, known_null, length, spread, beside, missing))
    return tuple(found)


def cost_in_words(settings: EvidenceSettings, photographs: int) -> str:
    """Say what evidence costs before it is gathered: forward passes, which is nearly all of its time.

    Args:
        settings: How it is gathered.
        photographs: How many there are.
    """
    each = PASSES * (1 + (settings.calibration is not None))
    of = "words, diagnosis, caption and texts" if settings.words else "diagnosis, caption and texts"
    return (
        f"evidence: at most {COMMON_PASSES} forward passes for each of {counted(photographs, 'photograph')} and {each} "
        f"for each of its maps of {of} (evidence=none for none)"
    )


def field_gains(bank: PerturbationBank, target: Target, length: float, seed: int) -> NDArray[np.floating]:
    """Return the gains ``[FIELDS, T]`` of a photograph's fields of one length; their negatives have the negatives."""
    fields = gaussian_fields(FIELDS, units_of(bank), length, seed)
    return relevance_gains(bank, target, fields, seed=seed, key=(length, seed)).numpy()


def kinds_of(answer: Answer, words: bool) -> dict[int, str]:
    """Return which items of an answer have evidence, and what kind of thing each is."""
    kinds = dict(items_to_measure(answer))
    return {row: WORD for row in range(len(answer.items)) if row not in kinds} | kinds if words else kinds


def heat_of(attribution: Attribution, row: int) -> Tensor | None:
    """Return one row's heat over the picture ``[h, w]``, pairs of words and places summed; None where it has none."""
    if attribution.kind == "text":
        return None
    values = attribution.values[0, row].float().cpu()
    return values.nansum(dim=0) if attribution.kind == "pair" else values


@dataclass(frozen=True)
class _Asked:
    """One map and which items' scores are read of it."""

    method: str
    settings: Mapping[str, object]
    items: tuple[int, ...]
    kind: str
    values: Tensor


def _maps_of(answer: Answer, kinds: Mapping[int, str]) -> list[_Asked]:
    found = []
    for attribution, settings in zip(answer.attributions, answer.settings, strict=True):
        rows = answer.rows(attribution)
        items = [item for item in sorted(kinds) if item in rows]
        # One map for every item where it does not depend on what is asked.
        groups: Sequence[tuple[int, ...]] = [(item,) for item in items]
        if items and not attribution.text_dependent:
            groups = [tuple(items)]
        for group in groups:
            values = heat_of(attribution, group[0] - rows.start)
            if values is not None:
                found.append(_Asked(attribution.method, settings, group, kinds[group[0]], values))
    return found


def _length_of(values: Tensor) -> float:
    length = float(smoothness_length(values[None])[0])
    return length if math.isnan(length) else nearest_length(length)


def _mean_map(one: _Asked, calibration: Calibration | None) -> Tensor | None:
    return None if calibration is None else calibration.mean_map(one.method, one.kind, one.settings)


def _gains(bank: PerturbationBank, target: Target, maps: Sequence[Tensor], seed: int) -> list[Tensor]:
    """Gains ``[T]`` of maps on grids of their own, in one stream for each size of grid."""
    gains: list[Tensor] = [torch.empty(0)] * len(maps)
    for shape in dict.fromkeys(one.shape for one in maps):
        rows = [row for row, one in enumerate(maps) if one.shape == shape]
        found = relevance_gains(bank, target, torch.stack([maps[row] for row in rows]), seed=seed)
        for row, gain in zip(rows, found, strict=True):
            gains[row] = gain
    return gains


def corrected(pages: Sequence[Sequence[MapEvidence]]) -> list[tuple[MapEvidence, ...]]:
    """Return the evidence of all answers of a page with q-values over all of its maps (Benjamini-Hochberg).

    Args:
        pages: The evidence of each answer.
    """
    q_values = iter(benjamini_hochberg([one.p_value for answer in pages for one in answer]))
    return [tuple(replace(one, q_value=next(q_values)) for one in answer) for answer in pages]
