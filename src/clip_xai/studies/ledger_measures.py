"""What the ledger's study measures: areas under curves, medians and calibration, each with its interval over scenes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from scipy.optimize import minimize_scalar
from scipy.stats import rankdata

from clip_xai.data.vocabulary import Vocabulary, load_vocabulary
from clip_xai.explanations.other_patients import Stated
from clip_xai.metrics.intervals import Interval, bounds, mean_interval
from clip_xai.metrics.ranking import Members, Statistic, calibration, ranking, resampled
from clip_xai.studies.ledger_captioners import Pictures
from clip_xai.studies.ledger_judged import Judged
from clip_xai.xai.slots import DIAGNOSIS, STRUCTURES

RATES = (0.0, 0.1, 0.2, 0.3, 0.45, 0.6, 1.0)  # base rates that count as equal lie between two of these
_DEALS = 1000
NOTHING = Interval(float("nan"), float("nan"), float("nan"), 0, 0, 0.0)  # of no words, shown as a dash
KINDS = (*load_vocabulary().attributes, DIAGNOSIS)


def area(scores: NDArray[np.float64], hits: NDArray[np.bool_], scenes: ArrayLike, seed: int) -> Interval:
    """Return the area under the ROC curve with an interval over scenes, ``NOTHING`` of words of one kind alone."""
    if len(set(hits)) < 2:
        return NOTHING
    return _with_interval(lambda members: ranking(scores, hits, members), scenes, seed)


def area_of_shuffled(scores: NDArray[np.float64], hits: NDArray[np.bool_], scenes: ArrayLike, seed: int) -> Interval:
    """Return the mean area of the scores dealt anew among all words, and between what 95 % of the deals lie.

    ``NOTHING`` of words of one kind alone.
    """
    if len(set(hits)) < 2:
        return NOTHING
    lot = np.random.default_rng(seed)
    ranks, pairs = rankdata(scores), float(hits.sum() * (~hits).sum())
    least = hits.sum() * (hits.sum() + 1) / 2
    areas = np.array([(lot.permutation(ranks)[hits].sum() - least) / pairs for _ in range(_DEALS)])
    low, high = np.quantile(areas, (0.025, 0.975))
    groups = len(np.unique(np.asarray(scenes)))
    return Interval(float(areas.mean()), float(low), float(high), len(scores), groups, float(groups))


def area_at_equal_rates(
    words: pd.DataFrame, scores: NDArray[np.float64], hits: NDArray[np.bool_], seed: int
) -> tuple[Interval, int]:
    """Return the area among words of equal base rate, and how many words have one of the other kind beside them.

    Pairs of a word that is drawn and one that is not count where both have a base rate between the same two of
    ``RATES``; the area is the share of these pairs that stand in the right order, ``NOTHING`` where there are none.
    """
    bins, scenes = np.digitize(words["base"].to_numpy(), RATES[1:-1]), words["scene"].to_numpy()
    chosen = [rows for one in np.unique(bins) if len(set(hits[rows := bins == one])) == 2]
    if not chosen:
        return NOTHING, 0
    pairs = np.array([float(hits[rows].sum() * (~hits[rows]).sum()) for rows in chosen])

    def together(members: Members) -> Statistic:
        parts = [ranking(scores[rows], hits[rows], members.at(np.flatnonzero(rows))) for rows in chosen]
        ends = np.cumsum([part.sums.shape[0] for part in parts])

        def value(sums: NDArray[np.float64]) -> NDArray[np.float64]:
            own = np.split(sums, ends[:-1])
            areas = np.stack([part.value(one)[0] for part, one in zip(parts, own, strict=True)])
            return (pairs / pairs.sum() @ areas)[None]

        return Statistic(sparse.vstack([part.sums for part in parts], format="csr"), value)

    return _with_interval(together, scenes, seed), int(np.any(chosen, axis=0).sum())


def _with_interval(statistic: Callable[[Members], Statistic], scenes: ArrayLike, seed: int) -> Interval:
    of_rows = np.asarray(scenes).astype(str)
    names, member = np.unique(of_rows, return_inverse=True)
    made = statistic(Members(member, len(names)))
    draws = resampled([made], len(names), 1000, seed)[0]
    value = float(made.whole()[0])
    return bounds(value, draws[np.isfinite(draws)], of_rows.tolist(), span=(0.0, 1.0))


def median_interval(values: NDArray[np.float64], seed: int) -> Interval:
    """Return the median of one value a scene with its interval, ``NOTHING`` of no scene."""
    if not len(values):
        return NOTHING
    generator = np.random.default_rng(seed)
    draws = np.median(values[generator.integers(len(values), size=(1000, len(values)))], axis=1)
    return bounds(float(np.median(values)), draws, [str(row) for row in range(len(values))])


def shares_of(stated: Stated, samples: int, kind: str, vocabulary: Vocabulary) -> dict[str, float]:
    """Return P(slot = value | image) of a kind's values from drawn captions, half a caption more of each."""
    values = list(vocabulary.diagnoses) if kind == DIAGNOSIS else list(vocabulary.attributes[kind])
    named = [value for value in values if stated[kind, value]]
    hits = {value: stated[kind, value] + 0.5 for value in named} | {
        "": samples - sum(stated[kind, v] for v in named) + 0.5
    }
    together = sum(hits.values())
    return {value: hit / together for value, hit in hits.items()}


def tempered(shares: dict[str, float], temperature: float) -> dict[str, float]:
    """Return shares to the power of one over a temperature, scaled to sum to 1."""
    powers = {value: share ** (1 / temperature) for value, share in shares.items()}
    together = sum(powers.values())
    return {value: power / together for value, power in powers.items()}


def fitted_temperature(stated: Sequence[Stated], tested: Pictures, samples: int, vocabulary: Vocabulary) -> float:
    """Return the one temperature under which the shares of all attributes are likeliest on some scenes."""
    known = [(shares_of(one, samples, kind, vocabulary), kind, row) for row, one in enumerate(stated) for kind in KINDS]

    def loss(log_temperature: float) -> float:
        chances = []
        for shares, kind, row in known:
            found = tempered(shares, float(np.exp(log_temperature)))
            chances.append(sum(p for value, p in found.items() if value and tested.right(row, kind, value, vocabulary)))
        return -float(np.mean(np.log(np.maximum(chances, 0.5 / samples))))

    return float(np.exp(minimize_scalar(loss, bounds=(-2.0, 2.0), method="bounded").x))


def calibrated(
    stated: Sequence[Stated], tested: Pictures, samples: int, vocabulary: Vocabulary, temperature: float, seed: int
) -> dict[str, Interval]:
    """Return the expected calibration error of the likeliest value by attribute, at a temperature."""
    found = {}
    scenes = list(range(len(stated)))
    for kind in KINDS:
        shares = [tempered(shares_of(one, samples, kind, vocabulary), temperature) for one in stated]
        stating = [max((value for value in one if value), key=lambda value: one[value], default="") for one in shares]
        sure = np.array([one.get(value, 0.0) for one, value in zip(shares, stating, strict=True)])
        right = np.array([tested.right(row, kind, value, vocabulary) for row, value in enumerate(stating)])
        found[kind] = _with_interval(partial(_calibration, sure, right), scenes, seed)
    return found


def _calibration(sure: NDArray[np.float64], right: NDArray[np.bool_], members: Members) -> Statistic:
    return calibration(sure, right, members, 10)


def measured_of(judged: Judged, seed: int) -> dict[str, Any]:
    """Return what is known of one captioner: areas, and how much of its diagnoses is carried."""
    words = judged.words
    known = words[words["right"] | ~words["drawn"]]
    scores = known[["D", "C"]].max(axis=1).to_numpy()
    hits, scenes = known["drawn"].to_numpy(), known["scene"].to_numpy()
    equal, beside = area_at_equal_rates(known, scores, hits, seed)
    diagnosis = words[words["kind"] == DIAGNOSIS]
    # What C is by its formula, also where no content word stands before.
    carried = (np.log(diagnosis["p"] / diagnosis["share"]) + diagnosis["T"] - diagnosis["D"]).to_numpy()
    drawn = words[words["drawn"]]
    wrong = ~drawn["right"].to_numpy()
    told_by = {
        "max(D, C)": -drawn[["D", "C"]].max(axis=1),
        "D": -drawn["D"],
        "entropy": drawn["entropy"],
        "p": -drawn["p"],
        "P(slot = w | image)": -drawn["share"],
    }
    by_lot = scenes[~hits].astype(str).tolist()
    of_lot = mean_interval(scores[~hits], by_lot, seed=seed) if by_lot else NOTHING
    return {
        "accuracy of the diagnosis": judged.accuracy,
        "words": {
            "known": len(known),
            "of the lot": int((~hits).sum()),
            "drawn": len(drawn),
            "wrong": int(wrong.sum()),
        },
        "area": asdict(area(scores, hits, scenes, seed)),
        "area at equal base rates": asdict(equal) | {"words": beside},
        "area, ledger shuffled": asdict(area_of_shuffled(scores, hits, scenes, seed)),
        "max(D, C) of age and sex": asdict(of_lot),
        "D of the diagnosis": asdict(median_interval(diagnosis["D"].to_numpy(), seed)),
        "C of the diagnosis": asdict(median_interval(carried, seed)),
        "T of the diagnosis": asdict(median_interval(diagnosis["T"].to_numpy(), seed)),
        "C / T of the diagnosis": asdict(median_interval(carried / diagnosis["T"].to_numpy(), seed)),
        "|C| / T of the diagnosis": asdict(median_interval(np.abs(carried) / diagnosis["T"].to_numpy(), seed)),
        "wrong words told by": {
            name: asdict(area(score.to_numpy(dtype=float), wrong, drawn["scene"].to_numpy(), seed))
            for name, score in told_by.items()
        },
    }


def measured_swaps(swaps: pd.DataFrame, seed: int) -> dict[str, Any]:
    """Return how far other values move the diagnosis, in the place of the credited word and of others; NaN of none."""
    found: dict[str, Any] = {}
    for name, rows in (("credited", swaps[swaps["credited"]]), ("others", swaps[~swaps["credited"]])):
        scenes = rows["scene"].astype(str).tolist()
        if not scenes:
            none = dict.fromkeys(("value", "low", "high"), float("nan"))
            found[name] = {"n": 0, "structures": float("nan"), "change": none, "lost": none}
            continue
        found[name] = {
            "n": len(rows),
            "structures": float((rows["kind"] == STRUCTURES).mean()),
            "change": asdict(mean_interval(rows["change"].to_numpy(), scenes, seed=seed)),
            "lost": asdict(mean_interval(rows["lost"].to_numpy(), scenes, seed=seed, span=(0.0, 1.0))),
        }
    return found
