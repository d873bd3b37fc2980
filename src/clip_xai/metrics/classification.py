"""Judge a classifier: every measure for the model and for what it has to beat, on the same resamples of patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from clip_xai.data.vocabulary import GROUPS
from clip_xai.errors import UserError
from clip_xai.metrics.baselines import shuffled_within_sources
from clip_xai.metrics.class_baselines import training_frequencies
from clip_xai.metrics.class_measures import (
    ECE,
    Answers,
    Taken,
    label_metric,
    measures_of_classes,
    measures_of_labels,
)
from clip_xai.metrics.class_results import Bin, ClassificationResult, LabelResult
from clip_xai.metrics.intervals import (
    FEWEST,
    SAMPLES,
    Interval,
    bounds_of_counts,
    difference_span,
    group_numbers,
)
from clip_xai.metrics.multiplicity import above, holm
from clip_xai.metrics.ranking import BINS, Members, bin_numbers, resampled, roc_points
from clip_xai.metrics.results import (
    MAJORITY,
    MODEL,
    OVERALL,
    PRIOR,
    SHUFFLED,
    SYSTEMS,
    Comparison,
    Score,
    Verdict,
)
from clip_xai.metrics.verdicts import listed, verdicts
from clip_xai.text import counted, plural

Matrix = NDArray[np.float64]
# Baselines by key, as they stand in a sentence.
OPPONENTS = {
    MAJORITY: "the most frequent answer of the training set",
    PRIOR: "the label frequencies of the training set",
    SHUFFLED: "its own answers to other images of the same source",
}


@dataclass(frozen=True)
class _Drawn:
    """A measure with its value and its values on the resamples."""

    taken: Taken
    value: float
    draws: NDArray[np.float64]

    @property
    def interval(self) -> Interval:
        info, draws = self.taken.info, self.draws[np.isfinite(self.draws)]
        kind = info.key.split("/")[0]
        if kind == "auroc" and len(draws) and np.ptp(draws) == 0 and self.value == 0.5:
            # One answer to all photographs: .5 whatever the photographs are.
            return Interval(0.5, 0.5, 0.5, self.taken.rows, self.taken.groups, self.taken.clusters)
        if kind == ECE.key and len(draws):
            # Noise adds to distances: resamples lie above the value as far as the value lies above the truth.
            draws = np.clip(draws + self.value - draws.mean(), 0, 1)
        return self.bounded(self.value, draws, info.span, info.share)

    def against(self, other: _Drawn) -> Interval:
        """How much better than another system this one is, on the same resamples."""
        sign = -1.0 if self.taken.info.falling else 1.0
        draws = sign * (self.draws - other.draws)
        span = difference_span(self.taken.info.span)
        return self.bounded(sign * (self.value - other.value), draws[np.isfinite(draws)], span)

    def bounded(
        self, value: float, draws: NDArray[np.float64], span: tuple[float, float] | None, share: bool = False
    ) -> Interval:
        taken = self.taken
        if not len(draws):
            return Interval(value, np.nan, np.nan, taken.rows, taken.groups, taken.clusters)
        return bounds_of_counts(value, draws, taken.rows, taken.groups, taken.clusters, span=span, share=share)


def evaluate_classes(
    scores: ArrayLike,
    truth: ArrayLike,
    classes: Sequence[str],
    groups: Sequence[str],
    *,
    multiple: bool,
    train: ArrayLike | None = None,
    sources: Sequence[str] | None = None,
    train_sources: Sequence[str] | None = None,
    skipped: Mapping[str, str] | None = None,
    notes: Mapping[str, str] | None = None,
    set_aside: Mapping[str, str] | None = None,
    cautions: Sequence[str] = (),
    group_words: tuple[str, str] = GROUPS,
    samples: int = SAMPLES,
    seed: int = 0,
) -> ClassificationResult:
    """Judge a classifier beside the most frequent answer, the training frequencies and its answers to other images.

    Args:
        scores: The model's logits, [n, C].
        truth: 1 present, 0 absent, NaN not counted, [n, C].
        classes: Names of the C classes or labels.
        groups: Group (patient) of each photograph.
        multiple: Whether a photograph can have several labels at once (sigmoid) or has one class (softmax).
        train: Truth of the training photographs, [m, C]; without any, the two baselines that know it are left out.
        sources: Source of each photograph: images are shuffled within it, and it has training frequencies of its own.
        train_sources: Source of each training photograph.
        skipped: Reasons for what is left out, by name.
        notes: Settings to be shown beside those of the measures.
        set_aside: Files that are not among the photographs since they cannot be judged, with the reason.
        cautions: Sentences that a reader must see before any number.
        group_words: What a group is, singular and plural.
        samples: Resamples behind each interval.
        seed: Seed of the resamples and of the shuffling.

    Raises:
        UserError: Scores are not finite, no label is known, or a photograph has several classes where it can have one.
    """
    logits, states = np.asarray(scores, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    known = _require(logits, states, classes, groups, multiple)
    logits, states = logits[known], states[known]
    members_of = [str(groups[int(row)]) for row in np.flatnonzero(known)]
    origin = [str(sources[int(row)]) for row in np.flatnonzero(known)] if sources is not None else [""] * len(logits)
    model = Answers.of_logits(logits, multiple)
    left_out = _one_sided(states, classes, multiple)
    systems, reasons = training_frequencies(train, train_sources, origin, classes, multiple)
    found = {MODEL: _measured(model, states, classes, members_of, multiple, samples, seed)}
    for system, answers in systems.items():
        found[system] = _measured(answers, states, classes, members_of, multiple, samples, seed)
    scores_found = [_score(system, one) for system, drawn in found.items() for one in drawn.values()]
    comparisons = [
        _comparison(system, found[MODEL][key], one)
        for system, drawn in found.items()
        if system != MODEL
        for key, one in drawn.items()
        if key in found[MODEL]
    ]
    turned, unshuffled = shuffled_within_sources(members_of, origin, seed)
    rows = np.flatnonzero(turned >= 0)
    reasons |= {SYSTEMS[SHUFFLED] + (f" ({source})" if source else ""): reason for source, reason in unshuffled.items()}
    if len(rows):
        mine, paired = [members_of[row] for row in rows], found[MODEL]
        if len(rows) < len(turned):
            paired = _measured(model.at(rows), states[rows], classes, mine, multiple, samples, seed)
        shuffled = _measured(model.at(turned[rows]), states[rows], classes, mine, multiple, samples, seed)
        scores_found += [_score(SHUFFLED, one) for one in shuffled.values()]
        comparisons += [_comparison(SHUFFLED, paired[key], one) for key, one in shuffled.items() if key in paired]
    labels = _labels(model, states, classes, members_of, found[MODEL])
    metrics = tuple(one.taken.info for key, one in found[MODEL].items() if "/" not in key)
    said = verdicts(comparisons, metrics, cautions, OPPONENTS, MAJORITY, group_words)
    return ClassificationResult(
        verdicts=tuple(sorted((*said, *_of_labels(labels, group_words[1])), key=lambda verdict: not verdict.warning)),
        scores=tuple(scores_found),
        comparisons=tuple(comparisons),
        metrics=metrics,
        systems=(*found, *([SHUFFLED] if len(rows) else [])),
        scopes=(OVERALL,),
        skipped=left_out | reasons | dict(skipped or {}),
        settings=_settings(multiple, samples, seed, group_words[1]) | dict(notes or {}),
        set_aside=dict(set_aside or {}),
        group_words=group_words,
        labels=labels,
        multiple=multiple,
        photographs=len(logits),
        unknown=int((~known).sum()),
        reliability=_reliability(model, states, multiple),
        confusion=() if multiple else _confusion(model, states),
    )


def _measured(
    answers: Answers,
    truth: Matrix,
    classes: Sequence[str],
    groups: Sequence[str],
    multiple: bool,
    samples: int,
    seed: int,
) -> dict[str, _Drawn]:
    """Every measure of a system with its resamples, by key; those that are not defined are not there."""
    members = Members(*group_numbers(groups))
    measures = (measures_of_labels if multiple else measures_of_classes)(answers, truth, classes, members)
    statistics = {id(part): part for taken in measures for part, _ in taken.parts}
    draws = resampled(list(statistics.values()), members.count, samples, seed)
    values = [statistic.whole() for statistic in statistics.values()]
    starts = dict(zip(statistics, np.cumsum([0, *(len(value) for value in values)])[:-1], strict=True))
    whole = np.concatenate(values)
    found = {}
    for taken in measures:
        rows = [int(starts[id(part)]) + index for part, index in taken.parts]
        defined = np.isfinite(draws[rows])
        # A label of which a resample has no case takes no part in that resample's mean.
        count = defined.sum(axis=0)
        total = np.where(defined, draws[rows], 0.0).sum(axis=0)
        mean = np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)
        found[taken.info.key] = _Drawn(taken, float(whole[rows].mean()), mean)
    return found


def _score(system: str, drawn: _Drawn) -> Score:
    one = drawn.interval
    return Score(system, OVERALL, drawn.taken.info.key, one.n, one.groups, one.value, one.low, one.high)


def _comparison(system: str, model: _Drawn, other: _Drawn) -> Comparison:
    gap = model.against(other)
    return Comparison(system, OVERALL, model.taken.info.key, gap.n, gap.clusters, gap.value, gap.low, gap.high)


def _labels(
    model: Answers, truth: Matrix, classes: Sequence[str], groups: Sequence[str], found: Mapping[str, _Drawn]
) -> tuple[LabelResult, ...]:
    areas = [found.get(label_metric("auroc", name).key) for name in classes]
    p_values = [
        above(one.value - 0.5, one.draws - 0.5, one.taken.clusters, -0.5)
        if one is not None and one.taken.clusters >= FEWEST
        else float("nan")
        for one in areas
    ]
    members, labels = np.asarray(groups), []
    for number, (name, p_value, yes) in enumerate(zip(classes, p_values, holm(p_values), strict=True)):
        rows = ~np.isnan(truth[:, number])
        present = truth[:, number] == 1
        both = areas[number] is not None
        labels.append(
            LabelResult(
                name=name,
                positives=int(present.sum()),
                negatives=int((rows & ~present).sum()),
                unknown=int((~rows).sum()),
                patients=len(np.unique(members[present])),
                above_chance=None if np.isnan(p_value) else yes,
                roc=tuple(roc_points(model.order[rows, number], present[rows])) if both else (),
                reliability=_bins(model.probabilities[rows, number], present[rows]),
            )
        )
    return tuple(labels)


def _of_labels(labels: Sequence[LabelResult], groups: str) -> list[Verdict]:
    """Say of which labels the AUROC lies above .5."""
    decided = [one for one in labels if one.above_chance is not None]
    failed = [one.name for one in decided if not one.above_chance]
    rare = [one.name for one in labels if one.above_chance is None]
    said = []
    if decided:
        if failed:
            said.append(Verdict(f"The AUROC does not lie above .5 for {listed(failed)} (corrected by Holm).", True))
        else:
            whole = counted(len(decided), "label")
            words = f"The AUROC of {'each of ' if len(decided) > 1 else ''}{whole} lies above .5 (corrected by Holm)."
            said.append(Verdict(words, False))
    if rare:
        which = plural(len(rare), "show it", "show them")
        words = f"No verdict on {listed(rare)}: too few {groups} {which}, or too few do not (effective number under "
        said.append(Verdict(f"{words}{FEWEST}).", True))
    return said


def _bins(confidences: NDArray, right: NDArray) -> tuple[Bin, ...]:
    kinds = bin_numbers(confidences)
    counts = np.bincount(kinds, minlength=BINS)
    mass, hits = np.bincount(kinds, confidences, BINS), np.bincount(kinds, right, BINS)
    return tuple(Bin(float(mass[k] / n), float(hits[k] / n), int(n)) for k, n in enumerate(counts) if n)


def _reliability(model: Answers, truth: Matrix, multiple: bool) -> tuple[Bin, ...]:
    if multiple:
        known = ~np.isnan(truth)
        return _bins(model.probabilities[known], truth[known])
    right = model.probabilities.argmax(axis=1) == truth.argmax(axis=1)
    return _bins(model.probabilities.max(axis=1), right)


def _confusion(model: Answers, truth: Matrix) -> tuple[tuple[int, ...], ...]:
    count = truth.shape[1]
    cells = truth.argmax(axis=1) * count + model.probabilities.argmax(axis=1)
    return tuple(tuple(int(n) for n in row) for row in np.bincount(cells, minlength=count**2).reshape(count, count))


def _one_sided(truth: Matrix, classes: Sequence[str], multiple: bool) -> dict[str, str]:
    """Name the labels that no measure of ranking is defined for."""
    reasons = {}
    for number, name in enumerate(classes):
        stated = truth[~np.isnan(truth[:, number]), number]
        if not len(stated):
            reasons[f"AUROC and average precision of {name}"] = "no photograph states it"
        elif len(np.unique(stated)) == 1:
            state = "shows it" if stated[0] == 1 else "does not show it"
            reasons[f"AUROC and average precision of {name}"] = f"every photograph that states it {state}"
    return reasons


def _require(
    logits: Matrix, truth: Matrix, classes: Sequence[str], groups: Sequence[str], multiple: bool
) -> NDArray[np.bool_]:
    """Check the shapes and values; return which photographs are judged."""
    if logits.shape != truth.shape or logits.shape != (len(groups), len(classes)):
        raise ValueError(
            f"scores {logits.shape}, truth {truth.shape}, names ({len(classes)}), groups ({len(groups)}) do not fit"
        )
    if len(set(classes)) < len(classes):
        raise ValueError("Two classes have the same name.")
    if not np.all(np.isnan(truth) | (truth == 0) | (truth == 1)):
        raise ValueError("The truth is 1, 0 or NaN.")
    broken = int((~np.isfinite(logits)).any(axis=1).sum())
    if broken:
        raise UserError(
            f"the scores of {counted(broken, 'photograph')} are not finite numbers: the model has diverged; train it "
            "with a lower learning rate"
        )
    several = int(((truth == 1).sum(axis=1) > 1).sum())
    if several and not multiple:
        raise UserError(
            f"{counted(several, 'photograph')} {plural(several, 'has', 'have')} not one but several labels at once, "
            "and the model gives one class; evaluate a model of several labels"
        )
    known = np.asarray((~np.isnan(truth) if multiple else truth == 1).any(axis=1))
    if not known.any():
        raise UserError(f"none of {counted(len(truth), 'photograph')} has a known label among {', '.join(classes)}")
    return known


def _settings(multiple: bool, samples: int, seed: int, groups: str) -> dict[str, str]:
    kind = "of each label, then their mean" if multiple else "of the most likely class"
    return {
        "probabilities": "sigmoid of each logit" if multiple else "softmax of the logits",
        "macro AUROC, macro average precision": "mean over labels that some photographs show and others do not"
        + ("" if multiple else ", each class against the rest"),
        "calibration error": f"{BINS} bins of equal width of the probability {kind}; its interval is centred on the "
        "value, since resamples are biased upwards",
        "Brier score": "mean squared distance of probability and truth"
        + (", mean over labels; 0 to 1" if multiple else ", summed over classes; 0 to 2"),
        "verdicts": "on measures, each 95 % interval of the paired difference by itself; on many labels, Holm's "
        "correction of one-sided tests with the spread of the resamples",
        "intervals": f"95 % expanded percentile bootstrap over {groups}, {samples} resamples, seed {seed}; "
        f"for shares of right and wrong Korn and Graubard's; a label's AUROC has one where at least {FEWEST} effective "
        f"{groups} show it and as many do not",
    }
