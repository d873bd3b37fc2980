"""Measures through their seam: each by hand from the function behind it, streams run once, what is not defined said."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from clip_xai.errors import UserError
from clip_xai.explanations.measures.base import MapMetric, PhotographMaps
from clip_xai.explanations.measures.faithfulness import FFidelityGain, RelevanceGain
from clip_xai.explanations.measures.table import MEASURES, measures_named
from clip_xai.metrics.localisation import average_precision, lay_over
from clip_xai.metrics.regions import relevance_mass
from clip_xai.xai.cost import cost_of, counted_passes
from clip_xai.xai.curve_protocols import PROTOCOLS
from clip_xai.xai.examples import example
from clip_xai.xai.f_fidelity import f_fidelity
from clip_xai.xai.insertion_deletion import insertion_deletion, on_units
from clip_xai.xai.methods import (
    AttentionRollout,
    GradEclip,
    InputXGradient,
    IntegratedGradients,
    Occlusion,
    Rise,
    Saliency,
)
from clip_xai.xai.perturbation_bank import PerturbationBank
from clip_xai.xai.relevance_gain import relevance_gains
from clip_xai.xai.sanity import randomisation
from clip_xai.xai.stability import sensitivity_max
from clip_xai.xai.subset_game import infidelity, sensitivity_n, subset_game
from clip_xai.xai.target import SimilarityTarget

METHODS = {
    "gradeclip": GradEclip(), "saliency": Saliency(), "attention_rollout": AttentionRollout(), "rise": Rise(masks=40),
}  # fmt: skip


def asked(row: int = 1, image: int = 0, methods=METHODS) -> PhotographMaps:
    backbone, pixels, target = example()
    pixels = pixels[image : image + 1]
    maps = {name: one.explain(backbone, pixels, target).values[0, row] for name, one in methods.items()}
    maps["control"] = torch.rand(7, 5, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(24, 24, dtype=torch.bool)
    mask[3:12, 5:14] = True
    others = SimilarityTarget.from_texts(backbone, ["a scaly plaque", "pink", "upper left"])
    bank = PerturbationBank(backbone, pixels)
    return PhotographMaps(
        bank, target, row, maps, f"patient {image}", mask, methods, [(others, number) for number in range(3)]
    )


def test_curves_are_read_by_every_measure_from_one_stream() -> None:
    one = asked()
    gain, normalised, inserted, deleted = (
        MEASURES[key].of(one)
        for key in ("relevance_gain/mean", "relevance_gain/mean, normalised", "insertion/mean", "deletion/mean")
    )
    forwards = one.bank.forwards
    found = insertion_deletion(one.bank, one.target, one.stacked((8, 8)), PROTOCOLS["mean"])
    assert one.bank.forwards == 2 * forwards
    for number, name in enumerate(one.maps):
        area = found.area(found.reversed_deletion) - found.area(found.deletion)
        assert gain[name] == pytest.approx(float(area[number, 1]))
        assert normalised[name] == pytest.approx(float(area[number, 1]) / abs(float(found.span()[1])), rel=1e-4)
        assert inserted[name] == pytest.approx(float(found.area(found.insertion)[number, 1]))
        assert deleted[name] == pytest.approx(float(found.area(found.deletion)[number, 1]))
    few = replace(one, marks=(0.1, 0.3, 0.7), streams={}, bank=PerturbationBank(one.bank.backbone, one.bank.pixels))
    quick = RelevanceGain("mean").of(few)
    assert few.bank.forwards == 2 + 2 * 4 * len(one.maps)  # insertion asks for .1, deletion backwards for .9
    expected = relevance_gains(few.bank, one.target, one.stacked((8, 8)))[:, 1]  # that of evidence on maps
    assert list(quick.values()) == pytest.approx(expected.tolist(), abs=1e-5)


def test_sets_are_taken_away_once_for_both_measures_and_all_scores_of_a_target() -> None:
    one = asked()
    foreseen, missed = MEASURES["sensitivity_n/mean"].of(one), MEASURES["infidelity/mean"].of(one)
    forwards = one.bank.forwards
    other = replace(one, row=0)
    assert MEASURES["sensitivity_n/mean"].of(other) != foreseen and one.bank.forwards == forwards
    game = subset_game(PerturbationBank(one.bank.backbone, one.bank.pixels), one.target)
    maps = one.stacked((8, 8))
    for number, name in enumerate(one.maps):
        assert foreseen[name] == pytest.approx(float(sensitivity_n(game, maps)[number, 1]), abs=1e-6)
        assert missed[name] == pytest.approx(float(infidelity(game, maps)[number, 1]), abs=1e-6)


def test_f_fidelity_asks_the_tuned_tower() -> None:
    one = asked()
    tuned = asked().bank.backbone
    with torch.no_grad():
        tuned.visual.proj.mul_(-1)  # another tower
    found = FFidelityGain(tuned, draws=3).of(one)
    expected = f_fidelity(PerturbationBank(tuned, one.bank.pixels), one.target, one.stacked((4, 4)), draws=3).gain()
    own = f_fidelity(one.bank, one.target, one.stacked((4, 4)), draws=3).gain()
    assert list(found.values()) == pytest.approx(expected[:, 1].tolist())
    assert expected[:, 1].tolist() != pytest.approx(own[:, 1].tolist())


def test_sanity_measures_read_what_randomisation_finds() -> None:
    one = asked(methods={"saliency": Saliency(), "attention_rollout": AttentionRollout()})
    values = {key: MEASURES[key].of(one) for key in ("randomised", "emprt", "bottom_up", "random_text")}
    backbone, pixels = one.bank.backbone, one.bank.pixels
    at_once = randomisation(Saliency(), backbone, pixels, one.target, steps=False)
    upwards = randomisation(Saliency(), backbone, pixels, one.target)
    assert values["randomised"]["saliency"] == pytest.approx(abs(float(at_once.correlations[-1, 1])))
    assert values["emprt"]["saliency"] == pytest.approx(float(at_once.entropy_rise[1]))
    assert values["bottom_up"]["saliency"] == pytest.approx(float(upwards.similarities[:, 1].mean()))
    assert values["random_text"]["attention_rollout"] == pytest.approx(1)  # it hears no text
    assert values["random_text"]["saliency"] < 1
    assert all("control" not in found for found in values.values())  # a map without a method cannot be asked again


def test_regions() -> None:
    one = asked()
    laid = {name: lay_over(values[None], 24) for name, values in one.maps.items()}
    precision, mass = MEASURES["auprc"].of(one), MEASURES["mass"].of(one)
    for name, own in laid.items():
        assert precision[name] == pytest.approx(float(average_precision(own, one.mask[None])))
        assert mass[name] == pytest.approx(float(relevance_mass(own, one.mask[None])))
    for nothing in (replace(one, mask=None), replace(one, mask=torch.zeros(24, 24, dtype=torch.bool))):
        assert "no region is known" in MEASURES["auprc"].refusal(nothing)


def test_what_draws_at_random_disagrees_with_itself_and_what_does_not_agrees() -> None:
    found = MEASURES["run_to_run"].of(asked())
    assert found["saliency"] == found["gradeclip"] == found["attention_rollout"] == 1
    assert -1 < found["rise"] < 0.99 and "control" not in found


def test_integrated_gradients_add_up_and_what_claims_nothing_has_no_gap() -> None:
    methods = {"ig": IntegratedGradients(steps=48), "ixg": InputXGradient(), "saliency": Saliency()}
    found = MEASURES["completeness"].of(asked(methods=methods))
    assert found["ig"] < 1e-2 < found["ixg"] and set(found) == {"ig", "ixg"}


def test_costs_count_images_in_both_directions() -> None:
    backbone, pixels, target = example()
    pixels = pixels[:1]
    for method, forwards, backwards in (
        (AttentionRollout(), 1, 0), (Saliency(), 1, 1), (IntegratedGradients(steps=10, chunk_size=4), 12, 10),
        (Occlusion(), None, 0), (Rise(masks=30), None, 0),
    ):  # fmt: skip
        cost = cost_of(method, backbone, pixels, target)
        # A last norm that is read twice, as a pooled embedding and as tokens, counts twice: it is small.
        assert cost.seconds > 0 and cost.backwards == pytest.approx(backwards, rel=0.02)
        bank = PerturbationBank(backbone, pixels)
        if forwards is None:
            method._attribution_of(bank, target, None)
            forwards = bank.forwards
        assert cost.forwards == pytest.approx(forwards, rel=0.02)
    with counted_passes(backbone) as passes, torch.no_grad():
        backbone.encode_image(pixels.expand(5, -1, -1, -1))
    assert (passes.forwards, passes.backwards) == (pytest.approx(5, rel=0.02), 0)
    assert all(not part._forward_hooks for part in backbone.modules())
    one = asked(methods={"saliency": Saliency()})
    assert MEASURES["forwards"].of(one)["saliency"] == pytest.approx(1.0, rel=0.02)
    assert MEASURES["memory"].of(one)["saliency"] >= 0


def test_sensitivity_is_shown_and_not_ranked_by() -> None:
    one = asked(methods={"saliency": Saliency()})
    found = MEASURES["sensitivity_max"].of(one)
    expected = sensitivity_max(Saliency(), one.bank.backbone, one.bank.pixels, one.target)
    assert found == pytest.approx({"saliency": float(expected[0, 1])}) and not MEASURES["sensitivity_max"].ranked


def test_the_metric_has_each_methods_mean_over_patients_and_nothing_where_nothing_is_defined() -> None:
    names = [*METHODS, "control", "elsewhere"]
    metric, refused = MapMetric(names, MEASURES["relevance_gain/blur"]), MapMetric(names, MEASURES["auprc"])
    each = []
    for image in (0, 1):
        one = asked(image=image)
        metric.update(one)
        refused.update(replace(one, mask=None))
        each.append(MEASURES["relevance_gain/blur"].of(one))
    found = metric.compute()
    for name in names[:-1]:
        assert float(found[name][0]) == pytest.approx(np.mean([values[name] for values in each]), abs=1e-6)
    assert math.isnan(float(found["elsewhere"][0])) and torch.isnan(refused.compute()["saliency"]).all()
    assert not metric.falling and MapMetric(names, MEASURES["deletion/mean"]).falling


def test_patches_are_left_out_only_where_they_can_be() -> None:
    one = asked()
    assert MEASURES["relevance_gain/token_drop"].refusal(one) is None
    one.target.reads = "patches"
    assert "needs every patch" in MEASURES["relevance_gain/token_drop"].refusal(one)
    assert MEASURES["relevance_gain/road"].refusal(one) is None


def test_maps_of_any_grid_are_laid_over_the_picture() -> None:
    one = asked()
    assert torch.equal(one.stacked((8, 8))[-1], on_units(one.maps["control"][None], (8, 8), 24)[0])


def test_keys_name_measures_and_what_comes_near() -> None:
    assert [one.key for one in measures_named(["auprc", "deletion/road"])] == ["auprc", "deletion/road"]
    with pytest.raises(UserError, match="'relevance_gain/drop' is not a measure of maps: choose one of rel"):
        measures_named(["relevance_gain/drop"])
    assert len({one.title for one in MEASURES.values()}) > 15
