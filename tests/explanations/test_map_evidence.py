"""Evidence on maps: against a slow loop, on a known mechanism, for fields that know nothing, from store to page."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor

from clip_xai.config.schemas import EVIDENCE, ExplainConfig
from clip_xai.errors import UserError
from clip_xai.explanations.blind_maps import NAMES, blind_maps, sobel_maps
from clip_xai.explanations.collection import collect
from clip_xai.explanations.evidence_calibration import (
    FEWEST_PHOTOGRAPHS,
    FIELDS,
    FILE,
    Calibration,
    calibration_beside,
    p_value,
    plain_settings,
    standardised,
)
from clip_xai.explanations.explanation_job import ExplanationJob
from clip_xai.explanations.map_evidence import (
    MEAN_MAP,
    EvidenceSettings,
    corrected,
    cost_in_words,
    measured_evidence,
)
from clip_xai.explanations.photographs import Photograph
from clip_xai.explanations.store import ResultStore
from clip_xai.jobs.explain import explain_photographs
from clip_xai.metrics.intervals import mean_interval
from clip_xai.report.assemble import Answer
from clip_xai.report.map_evidence import BLIND
from clip_xai.studies.evidence import FIELD, Gathered, validity
from clip_xai.xai.attribution import Attribution
from clip_xai.xai.examples import example
from clip_xai.xai.methods import AttentionRollout, GradEclip
from clip_xai.xai.perturbation_bank import PerturbationBank
from clip_xai.xai.random_fields import LENGTHS, gaussian_fields, nearest_length, smoothness_length
from clip_xai.xai.relevance_gain import relevance_gains, units_of
from clip_xai.xai.targets.question import Question
from tests.support.small_captioner import small_captioner
from tests.xai.test_insertion_deletion import SIDE, Weighed, planted

MODEL = {"tower": "abc"}


def answer_of(maps: dict[str, Tensor], scores: int = 1) -> Answer:
    attributions = [
        Attribution(values[None], name, {}, torch.zeros(1, scores), [f"text {row}" for row in range(scores)], True)
        for name, values in maps.items()
    ]
    return Answer("cosine", [None] * scores, attributions, [{} for _ in maps])


def test_every_number_is_that_of_a_loop_over_maps() -> None:
    backbone, pixels, target = example()
    maps = torch.randn(2, 2, *backbone.grid, generator=torch.Generator().manual_seed(0))
    answer = answer_of({"first": maps[0], "second": maps[1]}, scores=2)
    for number, image in enumerate(pixels):
        found = measured_evidence(
            answer, PerturbationBank(backbone, image[None]), target, EvidenceSettings(seed=5), number
        )
        assert [(one.method, one.item) for one in found] == list(itertools.product(("first", "second"), (0, 1)))
        for one in found:
            alone = PerturbationBank(backbone, image[None])
            own = maps[["first", "second"].index(one.method), one.item]
            assert one.length == nearest_length(float(smoothness_length(own[None])[0]))
            gain = float(relevance_gains(alone, target, own[None], seed=5 + number)[0, one.item])
            assert one.gain == pytest.approx(gain, abs=1e-5)
            blind = blind_maps(image[None], backbone.preprocess, units_of(alone))
            for name, control in zip(NAMES, blind, strict=True):
                value = relevance_gains(alone, target, control[None], seed=5 + number)[0, one.item]
                assert one.blind[name] == pytest.approx(float(value), abs=1e-5)
            if one is not found[0]:
                continue
            fields = gaussian_fields(FIELDS, units_of(alone), one.length, 5 + number)
            every = [one.gain]
            for field in fields:
                every.append(float(relevance_gains(alone, target, field[None], seed=5 + number)[0, one.item]))
            of_both_signs = np.array([*every, *(-value for value in every)])
            assert one.p_value == pytest.approx(np.mean(of_both_signs >= one.gain - 1e-9))


def test_a_p_value_by_rank_is_uniform_and_a_pooled_one_ranks_among_the_null() -> None:
    generator = np.random.default_rng(1)
    draws = generator.standard_t(2, (4000, 5))  # however heavy the tails
    chances = np.array([p_value(row[0], row[1:]) for row in draws])
    for level in (1, 2, 5, 9):
        assert np.mean(chances <= level / 10 + 1e-9) == pytest.approx(level / 10, abs=0.025)
    null = np.sort(np.abs(generator.normal(size=999)))
    scale = np.array([2.0, -2.0, 2.0])
    assert p_value(5.0, scale, null) == pytest.approx((1 + np.sum(null >= 2.5)) / 2000)
    assert p_value(-5.0, scale, null) > 0.9 and p_value(0.0, scale, null) == 1.0


def test_a_gain_is_standardised_by_the_others_of_its_row() -> None:
    gains = np.random.default_rng(0).normal(size=(3, 6))
    found = standardised(gains)
    for row, place in itertools.product(range(3), range(6)):
        assert found[row, place] == pytest.approx(
            gains[row, place] / np.sqrt(np.mean(np.delete(gains[row], place) ** 2))
        )


def known_mechanism(photographs: int) -> list[tuple[dict[str, bool], str]]:
    """One 4 x 4 region, anywhere and of no colour of its own, decides the score: which maps have evidence?"""
    generator = torch.Generator().manual_seed(3)
    judged = []
    for number in range(photographs):
        down, across = torch.randint(0, 4, (2,), generator=generator).tolist()
        region = torch.zeros(SIDE, SIDE)
        region[4 * down : 4 * down + 4, 4 * across : 4 * across + 4] = 1
        pixels = torch.randn(1, 3, SIDE, SIDE, generator=generator) * 0.3
        # The region's sign says whether its pixels add to the score, so that no colour tells where it is.
        weights = region * (pixels[0, 0] - pixels[0, 0].mean()).sign()
        truth = torch.nn.functional.avg_pool2d(region[None], 2)
        truth = truth + 0.01 * torch.rand(1, 8, 8, generator=generator)
        field = gaussian_fields(1, (8, 8), LENGTHS[0], 10_000 + number)
        answer = answer_of({"truth": truth, "field": field, "negated": -truth, "flat": torch.ones(1, 8, 8)})
        bank = PerturbationBank(planted(), pixels)
        found = measured_evidence(answer, bank, Weighed(weights[None]), EvidenceSettings(), number)
        # Each as if it were alone on its page: at most one hypothesis.
        alone = {one.method: corrected([[one]])[0][0] for one in found}
        judged.append(({name: one.holds for name, one in alone.items()}, alone["flat"].verdict))
    return judged


def test_the_map_of_a_known_mechanism_has_evidence_and_a_random_field_does_not() -> None:
    judged = known_mechanism(60)
    shares = {name: np.array([held[name] for held, _ in judged], dtype=float) for name in judged[0][0]}
    groups = [str(number // 2) for number in range(len(judged))]
    assert shares["truth"].mean() > 0.8
    assert mean_interval(shares["field"], groups, share=True, span=(0, 1)).low <= 0.05
    assert shares["negated"].max() == shares["flat"].max() == 0
    assert judged[0][1] == f"{BLIND.capitalize()}: the map is flat and ranks nothing."


def calibration(photographs: int) -> Calibration:
    fields = np.random.default_rng(2).normal(size=(photographs, FIELDS)).astype(np.float32)
    means = {("gradeclip", "similarity"): (torch.rand(4, 4), plain_settings({"layers": 1}))}
    return Calibration(MODEL, photographs, "rendered, split val", {("similarity", LENGTHS[0]): fields}, means)


def test_a_calibration_is_found_beside_its_own_model_alone(tmp_path, caplog) -> None:
    caplog.set_level("INFO")
    kept = calibration(FEWEST_PHOTOGRAPHS)
    assert kept.save(tmp_path) == tmp_path / FILE
    found = calibration_beside(tmp_path, MODEL)
    assert found is not None and found.digest == kept.digest and "200 photographs" in caplog.text
    null = found.null("similarity", LENGTHS[0])
    assert np.allclose(null, np.sort(np.abs(standardised(kept.fields["similarity", LENGTHS[0]])).ravel()))
    assert found.null("similarity", LENGTHS[1]) is None and found.null("contrast", LENGTHS[0]) is None
    assert found.mean_map("gradeclip", "similarity", {"layers": 1}) is not None
    assert found.mean_map("gradeclip", "similarity", {"layers": 2}) is None
    assert calibration_beside(tmp_path / "no.ckpt", MODEL) is not None  # beside a .ckpt file
    assert calibration_beside(tmp_path, {"tower": "other"}) is None and "another model" in caplog.text
    assert calibration_beside(None, MODEL) is None
    (tmp_path / FILE).write_bytes(b"broken")
    assert calibration_beside(tmp_path, MODEL) is None and "cannot be read" in caplog.text


def test_a_calibration_is_not_replaced_by_a_smaller_one_and_keeps_the_means_of_other_methods(caplog) -> None:
    def measured(photographs: int, methods: list[str], value: float) -> Calibration:
        means = {(method, "diagnosis"): (torch.full((2, 2), value), "{}") for method in methods}
        return Calibration(MODEL, photographs, "mine, split val", {}, means)

    known = measured(30, ["gradcam", "rise"], 1.0)
    with pytest.raises(UserError, match="samples=30 or more"):
        measured(20, ["rise"], 2.0).beside(known)
    both = measured(30, ["rise", "saliency"], 2.0).beside(known)
    kept = {method: float(mean[0, 0]) for (method, _), (mean, _) in both.means.items()}
    assert kept == {"gradcam": 1.0, "rise": 2.0, "saliency": 2.0}
    larger = measured(40, ["rise"], 2.0).beside(known)
    assert {method for method, _ in larger.means} == {"rise"} and "gradcam" in caplog.text
    assert measured(5, [], 0.0).beside(None).photographs == 5


def test_few_photographs_calibrate_no_p_value_but_give_their_mean_maps() -> None:
    few = calibration(FEWEST_PHOTOGRAPHS - 1)
    assert few.null("similarity", LENGTHS[0]) is None
    backbone, pixels, target = example()
    attribution = Attribution(
        torch.rand(1, 2, 4, 4), "gradeclip", {}, torch.zeros(1, 2), ["one", "two"], text_dependent=True
    )
    answer = Answer("cosine", [None, None], [attribution], [{"layers": 1}])
    bank = PerturbationBank(backbone, pixels[:1])
    [first, _] = measured_evidence(answer, bank, target, EvidenceSettings(calibration=few))
    mean = few.means["gradeclip", "similarity"][0]
    assert first.blind[MEAN_MAP] == pytest.approx(float(relevance_gains(bank, target, mean[None])[0, 0]), abs=1e-5)
    assert not first.calibrated and not first.left_out
    [other, _] = measured_evidence(replace(answer, settings=[{}]), bank, target, EvidenceSettings(calibration=few))
    assert MEAN_MAP not in other.blind and "not measured" in other.left_out


def test_edges_are_those_of_scikit_image() -> None:
    from skimage.filters import sobel_h, sobel_v

    image = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    grey = (image[0] * torch.tensor([0.2125, 0.7154, 0.0721])[:, None, None]).sum(dim=0).numpy()
    edges = np.hypot(sobel_h(grey), sobel_v(grey))
    expected = edges.reshape(4, 6, 4, 6).mean(axis=(1, 3))
    assert np.allclose(sobel_maps(image, (4, 4))[0].numpy(), expected, atol=1e-5)


def test_the_study_tells_fields_from_blind_maps_that_gain() -> None:
    generator = np.random.default_rng(4)
    gathered = Gathered(photographs=120)
    for number in range(120):
        scale = generator.uniform(0.5, 2)
        for length in LENGTHS:
            gathered.fields.setdefault(("similarity", length), []).append(scale * generator.normal(size=FIELDS))
            gathered.probes.setdefault(("similarity", length), []).append(scale * generator.normal(size=2))
        gathered.blind.setdefault("similarity", []).append(scale * np.array([5.0, 0.0, -5.0]))
        gathered.groups.setdefault("similarity", []).append(f"patient {number // 2}")
    rows = {row["map"]: row for row in validity(gathered) if row["length"] == LENGTHS[0]}
    assert rows[FIELD]["beats_random"]["low"] <= 0.05 <= rows[FIELD]["beats_random"]["high"]
    assert rows[FIELD]["evidence"]["value"] == 0  # none of them gains as much as the centre does here
    shares = [rows[f"control: {name}"]["beats_random"]["value"] for name in NAMES]
    assert shares == [1, 0, 0]


def test_the_settings_name_what_has_evidence_and_the_cost_is_said() -> None:
    assert EVIDENCE == ("wholes", "words", "none") and ExplainConfig(run_dir="run").evidence == "wholes"
    with pytest.raises(UserError, match="evidence=all"):
        ExplainConfig(run_dir="run", evidence="all")
    said = cost_in_words(EvidenceSettings(), 3)
    assert "258 forward passes for each of 3 photographs" in said and "evidence=none" in said


def test_evidence_goes_from_the_job_through_store_and_index_to_the_page(tmp_path) -> None:
    generator = np.random.default_rng(0)
    photographs = []
    for number in range(2):
        place = tmp_path / f"{number}.png"
        Image.fromarray(generator.integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(place)
        photographs.append(Photograph(place, place.name, group=f"patient {number}"))
    backbone = small_captioner().backbone
    question = Question(names=("similarity",), text=("melanoma", "a photo of a nevus"))
    methods = [GradEclip(), AttentionRollout()]
    job = ExplanationJob(backbone, None, methods, question, evidence=EvidenceSettings(seed=7))
    store = ResultStore(tmp_path / "run")
    explain_photographs(job, photographs, store)
    metrics = collect(store, backbone, "a run")
    maps = pd.read_parquet(store.run_dir / "attributions.parquet")
    assert len(maps) == 8 and maps["gain"].notna().all()
    raw = [one for _, result in store.results() for one in result.answers["similarity"].evidence]
    [whole] = corrected([raw])
    assert maps["gain_q"].tolist() == pytest.approx([one.q_value for one in whole])
    assert maps["evidence"].tolist() == [one.holds for one in whole]
    page = (store.run_dir / "index.html").read_text(encoding="utf-8")
    assert json.dumps(whole[0].verdict)[1:-1] in page or whole[0].verdict in page
    shares = {row["method"]: row["evidence"]["value"] for row in metrics["evidence"]}
    assert shares["gradeclip"] == maps[maps.method == "gradeclip"]["evidence"].mean()
