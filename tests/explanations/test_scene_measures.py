"""Measures of a drawn scene's maps, and their summary: planted methods, twins and controls."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
import torch

from clip_xai.data.synthetic.parts import sample_scene
from clip_xai.explanations.causes.maps import EFFECTS, FIELDS, controls, explained
from clip_xai.explanations.causes.one_scene import causes_of
from clip_xai.explanations.causes.scene_targets import Asker, SceneQuestion
from clip_xai.explanations.causes.scenes import DrawnScene, fresh_seeds
from clip_xai.explanations.causes.store import load_scene, save_scene
from clip_xai.explanations.causes.weights import BLIND, RANDOM, TRAINED
from clip_xai.explanations.measures.curve_rows import mean_curves
from clip_xai.explanations.measures.pictures import OTHERS, MapMeasures
from clip_xai.explanations.measures.scenes import asked_scene
from clip_xai.explanations.measures.summary import EVERY, summarised, summary_rows
from clip_xai.explanations.measures.table import measures_named
from clip_xai.explanations.measures.tables import measure_tables
from clip_xai.metrics.localisation import average_precision, lay_over
from clip_xai.metrics.method_means import MethodMeans
from clip_xai.xai.curve_protocols import PROTOCOLS
from clip_xai.xai.insertion_deletion import insertion_deletion
from clip_xai.xai.methods import GradEclip, Saliency
from clip_xai.xai.perturbation_bank import PerturbationBank
from tests.support.small_captioner import small_captioner

METHODS = [GradEclip(), Saliency()]


@pytest.fixture(scope="module")
def question() -> SceneQuestion:
    torch.manual_seed(0)
    asker = Asker(small_captioner().backbone)
    return SceneQuestion.of(asker, DrawnScene.of(sample_scene(fresh_seeds(1)[0]), asker.backbone.preprocess))


def measured_by(question: SceneQuestion, every: tuple[str, ...], again: tuple[str, ...] = ()):
    maps = {(name, TRAINED): own for name, own in explained(question, METHODS, question.asker.backbone).values.items()}
    nothing = np.zeros((len(question.drawn.players), len(question.asked)))
    maps |= {(name, BLIND): own for name, own in controls(question, nothing).items()}
    measures = MapMeasures(measures_named(every), measures_named(again), {one.name: one for one in METHODS})
    return maps, measures.of(asked_scene(question), maps)


def test_every_map_of_a_scene_is_measured_by_the_plain_functions(question: SceneQuestion) -> None:
    maps, found = measured_by(question, ("relevance_gain/mean", "auprc"))
    assert not found.left_out and {row["target"] for row in found.rows} == {"contrast"}
    by = {(row["measure"], row["method"], row["weights"]): row for row in found.rows}
    assert len(by) == len(found.rows) == 2 * len(maps)
    scene = question.drawn.scene
    one = by["auprc", "saliency", TRAINED]
    assert (one["group"], one["diagnosis"], one["size"], one["tone"]) == (
        str(scene.seed), scene.diagnosis, scene.size, str(scene.fitzpatrick),
    )  # fmt: skip
    size = question.asker.backbone.preprocess.image_size
    own = lay_over(maps["saliency", TRAINED][0][None].float(), size)
    assert one["value"] == pytest.approx(float(average_precision(own, question.drawn.lesion[None])), abs=1e-6)
    [(target, _)] = question.targets()
    bank = PerturbationBank(question.asker.backbone, question.drawn.pixels[None])
    alone = insertion_deletion(bank, target, maps["gradeclip", TRAINED][0][None], PROTOCOLS["mean"])
    expected = float(alone.relevance_gain()[0, 0])
    assert by["relevance_gain/mean", "gradeclip", TRAINED]["value"] == pytest.approx(expected, abs=1e-4)


def test_curves_are_kept_beside_what_is_read_off_them(question: SceneQuestion) -> None:
    maps, found = measured_by(question, ("relevance_gain/mean", "deletion/mean", "auprc"))
    table = pd.DataFrame(found.curves)
    assert set(table["removal"]) == {"mean"} and set(table["curve"]) == {"insertion", "deletion"}
    [(target, _)] = question.targets()
    bank = PerturbationBank(question.asker.backbone, question.drawn.pixels[None])
    alone = insertion_deletion(bank, target, maps["saliency", TRAINED][0][None], PROTOCOLS["mean"])
    own = table[(table["method"] == "saliency") & (table["curve"] == "deletion")]
    np.testing.assert_allclose(own["share"], alone.shares)
    np.testing.assert_allclose(own["value"], (alone.deletion - alone.deletion[:, :1])[0, :, 0], atol=1e-4)
    drawn = mean_curves([*found.curves, *found.curves], ["saliency", "gradeclip"], {}, (EFFECTS,))
    shares, insertion, deletion, things = drawn["mean"]
    assert things == 1 and [line.label for line in deletion] == ["saliency", "gradeclip", EFFECTS]
    assert deletion[-1].control and len(shares) == len(insertion[0].heights)
    np.testing.assert_allclose(deletion[0].heights, own["value"])


def test_methods_are_asked_again_and_controls_cannot_be(question: SceneQuestion) -> None:
    _, found = measured_by(question, (), ("randomised", "random_text", "run_to_run"))
    assert {(row["method"], row["weights"]) for row in found.rows} == {("gradeclip", TRAINED), ("saliency", TRAINED)}
    values = {(row["measure"], row["method"]): row["value"] for row in found.rows}
    assert values["run_to_run", "saliency"] == 1 and abs(values["random_text", "gradeclip"]) < 1
    assert OTHERS == 2


def test_a_measured_scene_is_stored_with_its_rows(question: SceneQuestion, tmp_path) -> None:
    measures = MapMeasures(measures_named(["auprc"]), (), {one.name: one for one in METHODS})
    scene = causes_of(question.asker, question.drawn, METHODS, seed=1, measures=measures)
    assert {row["method"] for row in scene.measured} >= {"gradeclip", EFFECTS, FIELDS[0]}
    save_scene(scene, tmp_path / "scene.npz")
    again = load_scene(tmp_path / "scene.npz")
    assert again is not None and again.measured == scene.measured and again.curves == scene.curves
    assert causes_of(question.asker, question.drawn, METHODS, seed=1).measured == ()


def rows(count: int = 24, seed: int = 0) -> list[dict[str, object]]:
    """One method that is good where its twin is not, one that knows nothing, a weak control, and the truth."""
    rng, found = np.random.default_rng(seed), []
    level = {("good", TRAINED): 0.8, ("good", RANDOM): 0.3, ("idle", TRAINED): 0.3, ("idle", RANDOM): 0.3,
             ("control: blind", BLIND): 0.4, (EFFECTS, BLIND): 0.95}  # fmt: skip
    for scene in range(count):
        for target in ("diagnosis", "contrast"):
            for (method, weights), mean in level.items():
                value = float(np.clip(mean + 0.1 * rng.normal(), 0, 1))
                about = {"picture": str(scene), "group": str(scene), "target": target, "label": "a", "measure": "auprc"}
                found.append(about | {"method": method, "weights": weights, "value": value})
    return found


def test_summaries_are_means_over_scenes_with_ranks_and_leads() -> None:
    table = rows()
    found = {one.method: one for one in summarised(table, measures_named(["auprc"])) if one.target == EVERY}
    good, idle = found["good", TRAINED], found["idle", TRAINED]
    values = [row["value"] for row in table if row["method"] == "good" and row["weights"] == TRAINED]
    assert good.mean.value == pytest.approx(np.mean(values)) and (good.mean.n, good.mean.groups) == (48, 24)
    assert (good.rank, good.ranks) == (1, (1, 1)) and (idle.rank, idle.ranks) == (2, (2, 2))
    assert found["good", RANDOM].rank is None and found[EFFECTS, BLIND].rank is None
    assert good.above_random[1] and good.above_control[1] and not idle.above_random[1] and not idle.above_control[1]
    assert good.control == "control: blind"  # and not the one that is made of what is looked for
    metric = MethodMeans(["a", "b"], span=(0.0, 1.0))
    pairs = {(row["group"], row["target"], row["weights"]): row["value"] for row in table if row["method"] == "good"}
    for scene in range(24):
        for target in ("contrast", "diagnosis"):
            both = [pairs[str(scene), target, weights] for weights in (TRAINED, RANDOM)]
            metric.update(torch.tensor([both], dtype=torch.float64), [str(scene)])
    expected = metric.differences([("a", "b")])["a", "b"][0]
    assert good.above_random[0].value == pytest.approx(expected.value)
    assert (good.above_random[0].low, good.above_random[0].high) == pytest.approx((expected.low, expected.high))
    by_target = [one for one in summarised(table, measures_named(["auprc"])) if one.method == ("good", TRAINED)]
    assert {one.target for one in by_target} == {EVERY, "diagnosis", "contrast"}


@pytest.mark.parametrize("count", [9, 10])
def test_only_from_ten_scenes_on_there_are_intervals_ranges_of_ranks_and_stars(count: int) -> None:
    measures = measures_named(["auprc"])
    [table] = measure_tables(summarised(rows(count), measures), measures, "scenes")
    cells = dict(table.rows)
    if count < 10:
        assert cells["good"].endswith(" (1)") and not any(mark in cell for cell in cells.values() for mark in "[*;")
        assert table.note.endswith("Fewer than 10: no range of ranks, and none is better for sure.")
    else:
        assert re.fullmatch(r"0\.\d+ \[0\.\d+, 0\.\d+\] \* \(1; 1–1\)", cells["good"]) and "Fewer" not in table.note


def test_what_is_shown_and_not_ranked_by_has_no_rank() -> None:
    table = [row | {"measure": "sensitivity_max"} for row in rows(4)]
    assert all(one.rank is None and one.above_random is None
               for one in summarised(table, measures_named(["sensitivity_max"])))  # fmt: skip
    assert summarised([], measures_named(["auprc"])) == []


def test_plain_rows_hold_none_for_what_there_is_not() -> None:
    plain = summary_rows(summarised(rows(4), measures_named(["auprc"])))
    good = next(
        row for row in plain if row["method"] == "good" and row["weights"] == TRAINED and row["target"] == EVERY
    )
    assert good["low"] is None or good["low"] <= good["value"]
    assert good["control"] == "control: blind" and good["rank"] == 1
    twin = next(row for row in plain if row["weights"] == RANDOM)
    assert twin["rank"] is None and twin["above_control_value"] is None
