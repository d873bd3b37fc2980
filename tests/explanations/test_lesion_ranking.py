"""Methods beside controls and random weights on planted regions, and many methods that know nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clip_xai.data.vocabulary import load_vocabulary
from clip_xai.explanations.lesion_maps import LesionMaps
from clip_xai.explanations.lesion_ranking import (
    COMPARED,
    TITLES,
    TUNED,
    USUAL,
    ranked_regions,
    ranking_table,
    rows_with_ranking,
)
from clip_xai.metrics.findings import tuned_iou, usual_places
from clip_xai.metrics.localisation import average_precision, lay_over
from clip_xai.metrics.regions import REGION_MEASURES, relevance_rank

SIZE, COUNT = 16, 24


def planted(noise: dict[str, float], seed: int = 0, count: int = COUNT) -> LesionMaps:
    """Maps that are the region plus noise; the region wanders round the middle."""
    rng = torch.Generator().manual_seed(0)
    found, own = LesionMaps(), torch.Generator().manual_seed(seed)
    for number in range(count):
        top, left = torch.randint(3, 8, (2,), generator=rng).tolist()
        mask = torch.zeros(SIZE, SIZE, dtype=torch.bool)
        mask[top : top + 5, left : left + 5] = True
        coarse = torch.nn.functional.avg_pool2d(mask[None, None].float(), 2)[0, 0]
        for (method, what), level in noise.items():
            heat = coarse * (level < 50) + level * torch.randn(8, 8, generator=own)
            pair = (method, what)
            found.maps.setdefault(pair, []).append(heat)
            found.masks.setdefault(pair, []).append(mask)
            found.groups.setdefault(pair, []).append(f"patient {number // 2}")
            found.numbers.setdefault(pair, []).append(number)
        found.photographs += 1
    return found


NOISE = {
    ("good", "similarity"): 0.3, ("blind", "similarity"): 100.0,
    ("control: random", "any"): 100.0, ("control: centre", "any"): 2.0, ("attention_rollout", "any"): 1.0,
}  # fmt: skip
AT_RANDOM = {("good", "similarity"): 100.0, ("blind", "similarity"): 100.0, ("attention_rollout", "any"): 100.0}


def test_every_measure_is_that_of_the_plain_function() -> None:
    trained = planted(NOISE)
    found = {(one.method, one.what): one for one in ranked_regions(trained, planted(AT_RANDOM, 1))}
    pair = ("good", "similarity")
    masks = torch.stack(trained.masks[pair])
    laid = lay_over(torch.stack(trained.maps[pair]), SIZE)
    intervals = found[pair].intervals
    assert set(intervals) == set(TITLES)
    assert intervals["rank"].value == pytest.approx(float(relevance_rank(laid, masks).mean()), abs=1e-6)
    assert intervals[TUNED].value == pytest.approx(float(tuned_iou(laid, masks, trained.groups[pair]).mean()), abs=1e-6)
    for name, measure in REGION_MEASURES.items():
        assert intervals[name].value == pytest.approx(float(measure.of(laid, masks).mean()), abs=1e-6)
    usual = usual_places(masks, trained.groups[pair])
    expected = float(average_precision(usual, masks).mean())
    assert found[USUAL, "any"].intervals[COMPARED].value == pytest.approx(expected, abs=1e-6)
    assert intervals[COMPARED].groups == 12


def test_a_method_that_finds_the_region_is_above_the_best_control_and_its_twin_for_sure() -> None:
    trained, random = planted(NOISE), planted(AT_RANDOM, 1)
    found = {(one.method, one.what): one for one in ranked_regions(trained, random)}
    good, blind = found["good", "similarity"], found["blind", "similarity"]
    assert good.above_control is not None and good.above_random is not None
    assert good.above_control.surely and good.above_random.surely
    masks = torch.stack(trained.masks["good", "similarity"])
    own, control, twin = (
        average_precision(lay_over(torch.stack(maps), SIZE), masks)
        for maps in (
            trained.maps["good", "similarity"],
            trained.maps[good.above_control.other, "any"] if good.above_control.other != USUAL
            else list(usual_places(masks, trained.groups["good", "similarity"])),
            random.maps["good", "similarity"],
        )
    )  # fmt: skip
    assert good.above_control.difference.value == pytest.approx(float((own - control).mean()), abs=1e-6)
    assert good.above_random.difference.value == pytest.approx(float((own - twin).mean()), abs=1e-6)
    means = {name: found[name, "any"].intervals[COMPARED].value for name in (
        "control: random", "control: centre", "attention_rollout", USUAL)}  # fmt: skip
    assert good.above_control.other == max(means, key=means.__getitem__)
    assert not blind.above_control.surely and not blind.above_random.surely
    rollout = found["attention_rollout", "any"]
    assert rollout.above_control.other != "attention_rollout"


def test_of_many_methods_that_know_nothing_hardly_one_is_above_its_twin() -> None:
    names = [f"m{number}" for number in range(12)]
    noise = {(name, "similarity"): 100.0 for name in names} | {("control: random", "any"): 100.0}
    wrong = 0
    for seed in range(8):
        found = ranked_regions(planted(noise, seed, 16), planted(noise, seed + 100, 16))
        wrong += sum(one.above_random is not None and one.above_random.surely for one in found)
    assert wrong <= 1  # of 96 comparisons


def test_rows_and_table_hold_what_was_found() -> None:
    trained = planted(NOISE)
    rows = rows_with_ranking(trained.measure(), ranked_regions(trained, planted(AT_RANDOM, 1)))
    by_name = {(row["method"], row["what"]): row for row in rows}
    good = by_name["good", "similarity"]
    assert good["above_control"]["surely"] and good["chance"] == pytest.approx(25 / 256)
    assert good["auprc"]["value"] == pytest.approx(
        next(row for row in trained.measure() if row["method"] == "good")["auprc"]["value"], abs=1e-6
    )
    table = ranking_table(rows, load_vocabulary())
    assert table is not None and len(table.head) == len(table.rows[0])
    first = next(row for row in table.rows if row[0] == "good")
    assert first[-2].startswith("+") and " *" in first[-2] and first[-1].endswith("*")
    usual = next(row for row in table.rows if row[0].startswith("Control: usual place"))
    assert usual[-1] == "–" and usual[-3] == "–"
    assert "drawn 3 times" in table.note and ranking_table([], load_vocabulary()) is None
    alone = ranked_regions(trained)
    assert all(one.above_random is None for one in alone) and not np.isnan(alone[0].intervals[COMPARED].value)
