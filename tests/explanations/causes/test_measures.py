"""Measures on scenes whose effects are planted: the map of the effects at the top, its negative at the bottom."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from clip_xai.explanations.causes.games import Coalitions
from clip_xai.explanations.causes.maps import effect_map, masses
from clip_xai.explanations.causes.measures import (
    AGREEMENT,
    COMPLETENESS,
    CONTRASTIVITY,
    PLACE,
    SPEARMAN,
    agreement,
    contrastivity,
    measure,
    protocols,
    sufficient_sets,
    unweighted,
)
from clip_xai.explanations.causes.one_scene import BLIND, RANDOM, TRAINED, SceneCauses, Verdicts
from clip_xai.explanations.causes.ranking import ranked, rows_of
from clip_xai.explanations.causes.tables import ALL, EVERY
from clip_xai.tasks.explanations import page
from clip_xai.xai.random_fields import gaussian_fields

SIDE = 24


def planted(seed: int) -> SceneCauses:
    """A scene of five parts in a grid of places; the first decides one word, the second and third together another."""
    generator = np.random.default_rng(seed)
    parts = 5
    masks = torch.zeros(parts, SIDE, SIDE, dtype=torch.bool)
    for part, place in enumerate(generator.permutation(9)[:parts]):
        row, column = divmod(int(place), 3)
        masks[part, 8 * row : 8 * row + 6, 8 * column : 8 * column + 6] = True
    coalitions = Coalitions.of(parts)
    there = coalitions.present
    noise = generator.normal(0, 0.02, (parts, 2))
    values = np.stack([4.0 * there[:, 0], 2.0 * there[:, 1] + 2.0 * there[:, 2]], axis=1) - [2.0, 3.0]
    values = values + there @ noise
    effects = coalitions.shapley(values)
    truth = [effect_map(masks, effects[:, word]) for word in (0, 1)]
    fields = gaussian_fields(4, (SIDE, SIDE), 0.2, seed)
    maps = {
        ("exact", TRAINED): truth,
        ("exact", RANDOM): list(fields[2:]),
        ("negated", TRAINED): [-one for one in truth],
        ("reversed", BLIND): [effect_map(masks, 9 - np.abs(effects[:, word])) for word in (0, 1)],
        ("field", BLIND): list(fields[:2]),
        ("flat", BLIND): [torch.ones(SIDE, SIDE)] * 2,
    }
    return SceneCauses(
        seed=seed, caption="", parts=tuple("abcde"), kinds=("structure",) * 3 + ("mark",) * 2, hidden=(),
        names=("diagnosis", "structure"), labels=("x", "y"), verdicts=(Verdicts(True, seed % 2 == 0, True),) * 2,
        coalitions=coalitions, values=values, anew=values * 0.5,
        masses={name: masses(dict(enumerate(two)), masks, 2) for name, two in maps.items()},
        seconds={}, left_out={}, refused=(),
    )  # fmt: skip


@pytest.fixture(scope="module")
def scenes() -> list[SceneCauses]:
    return [planted(seed) for seed in range(60)]


def test_the_map_of_the_effects_has_their_mass_in_every_part_also_where_parts_overlap() -> None:
    masks = torch.rand(4, 30, 30, generator=torch.Generator().manual_seed(0)) > 0.6
    effects = np.array([2.0, -1.0, 0.0, 0.5])
    found = masses({0: effect_map(masks, effects)}, masks, 2)
    np.testing.assert_allclose(found[0, :, 0], effects, atol=1e-4)
    assert np.isnan(found[1]).all()


def test_the_effects_are_at_the_top_their_negative_at_the_bottom_and_random_fields_at_chance(
    scenes: list[SceneCauses],
) -> None:
    measured = measure(scenes)
    for criterion in (AGREEMENT, SPEARMAN, COMPLETENESS, CONTRASTIVITY):
        places = [
            place for place in ranked(measured, criterion, rows_of(measured.rows)) if place.method[0] != "reversed"
        ]
        best, worst = places[0], places[-1]
        assert best.method == ("exact", TRAINED) and worst.method == ("negated", TRAINED)
        assert (best.rank, best.ranks) == (1, (1, 1)) and worst.rank == 2
        assert best.leads and best.lead is not None and best.lead.low > 0 and not worst.leads
        if criterion != COMPLETENESS:
            assert best.score.value == pytest.approx(1) and worst.score.value == pytest.approx(0)
            [field] = [place.score for place in places if place.method == ("field", BLIND)]
            assert field.low < 0.5 < field.high
    sizes = ranked(measured, PLACE, rows_of(measured.rows))
    assert {place.method[0] for place in sizes if place.score.value == pytest.approx(1)} == {"exact", "negated"}
    assert sizes[-1].method == ("reversed", BLIND) and sizes[-1].score.value == pytest.approx(0)
    half = ranked(measured, AGREEMENT, rows_of(measured.rows, "diagnosis", passing=True))
    assert half[0].score.n == 30 and half[0].score.groups == 30


@pytest.mark.parametrize("count", [3, 9, 10])
def test_fewer_than_ten_scenes_are_ranked_without_a_range_and_without_a_verdict(
    scenes: list[SceneCauses], count: int
) -> None:
    measured = measure(scenes[:count])
    places = ranked(measured, AGREEMENT, rows_of(measured.rows))
    best = places[0]
    assert (best.method, best.rank, best.few) == (("exact", TRAINED), 1, count < 10)
    said = page.verdicts({(AGREEMENT, EVERY, ALL): places})
    if count < 10:
        assert all(one.ranks is None and not one.leads for one in places) and not best.decided
        assert [one for one, _ in said] == [
            page.FEW, f"All targets: exact comes first on {count} scenes, {page.cell(best.score)}: too few to rank."
        ]  # fmt: skip
        assert all(warning for _, warning in said)
        [shown] = page.forests({(AGREEMENT, EVERY, ALL): places})
        assert [dot.rank for dot in shown.dots if dot.rank] == ["1", "2"]
    else:
        assert best.ranks == (1, 1) and best.rank_text == "1 [1–1]" and best.leads
        assert "Above their twins at random weights: exact" in said[0][0] and not said[0][1]


def test_agreement_is_that_of_a_loop_over_pairs_and_unweighted_it_is_spearmans() -> None:
    generator = np.random.default_rng(0)
    for _ in range(20):
        importances, effects = generator.integers(0, 4, 6).astype(float), generator.normal(size=6)
        assert unweighted(importances, effects) == pytest.approx((spearmanr(importances, effects)[0] + 1) / 2)
        right, total = 0.0, 0.0
        for i in range(6):
            for j in range(i):
                apart = abs(effects[i] - effects[j])
                order = (importances[i] - importances[j]) * (effects[i] - effects[j])
                right, total = right + apart * (1.0 if order > 0 else 0.5 if order == 0 else 0.0), total + apart
        assert agreement(importances, effects) == pytest.approx(right / total)
    assert unweighted(np.ones(4), np.arange(4.0)) == agreement(np.ones(4), np.arange(4.0)) == 0.5
    assert np.isnan(unweighted(np.arange(2.0), np.arange(2.0))) and np.isnan(agreement(np.arange(2.0), np.ones(2)))


def test_protocols_are_those_of_a_loop_over_sets() -> None:
    """The first part is enough, and so are the second and third together; the fourth is of no meaning."""
    coalitions = Coalitions.of(4)
    there = coalitions.present
    holds = there[:, 0] | (there[:, 1] & there[:, 2])
    assert {tuple(np.flatnonzero(row)) for row in sufficient_sets(there, holds)} == {(0,), (1, 2)}
    effects = coalitions.shapley(holds[:, None].astype(float))[:, 0]
    sufficient, preserved, deleted, undistracted = protocols(np.array([0.0, 5.0, 0.3, 0.1]), effects, coalitions, holds)
    # Shares are 0, .93, .06, .02: called important are b, c and d at .02, b and c at .04, b from .06 on.
    assert sufficient[0] == 1 and sufficient[1] == 1 and sufficient[10] == 0.5
    assert preserved[0] == 1 and preserved[10] == 0
    assert deleted[0] == 0 and deleted[10] == 0  # the first part alone is enough
    assert undistracted[0] == 1 and undistracted[10] == 1
    every = protocols(np.array([1.0, 1.0, 1.0, 1.0]), effects, coalitions, holds)[:, 0]
    assert every.tolist() == [1, 1, 1, 0]


def test_contrastivity_asks_each_map_to_lean_to_its_own_part() -> None:
    effects = np.array([[3.0, 0.0, 0.1], [0.0, 2.0, 0.1]])
    assert contrastivity(effects, effects) == 1 and contrastivity(effects[::-1], effects) == 0
    assert contrastivity(np.ones((2, 3)), effects) == 0.5
    assert np.isnan(contrastivity(effects, np.ones((2, 3))))
