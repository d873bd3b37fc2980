"""Curves of a run: drawn while explaining, kept in the store, measured beside random maps, drawn on the page."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from clip_xai.config.schemas import CURVES, ExplainConfig
from clip_xai.data.images import number_of
from clip_xai.data.vocabulary import load_vocabulary
from clip_xai.errors import UserError
from clip_xai.explanations.collection import collect
from clip_xai.explanations.curves import CurveSettings, RunCurves, measured_curves
from clip_xai.explanations.explanation_job import ExplanationJob
from clip_xai.explanations.photographs import Photograph
from clip_xai.explanations.store import ResultStore
from clip_xai.jobs.explain import explain_photographs
from clip_xai.report.assemble import Answer
from clip_xai.report.curves import Line, picture
from clip_xai.report.measured_curves import HEAT, RANDOM, REVERSED, MeasuredCurves
from clip_xai.xai.attribution import Attribution
from clip_xai.xai.curve_protocols import PROTOCOLS
from clip_xai.xai.insertion_deletion import insertion_deletion, random_smooth_maps
from clip_xai.xai.methods import AttentionRollout, GradEclip
from clip_xai.xai.perturbation_bank import PerturbationBank
from clip_xai.xai.target import SimilarityTarget
from clip_xai.xai.targets.question import Question
from tests.support.small_captioner import small_captioner

TEXTS = ("melanoma", "a photo of a nevus")


def test_the_settings_name_every_protocol() -> None:
    assert tuple(PROTOCOLS) == CURVES
    assert ExplainConfig(run_dir="run").curves is None
    with pytest.raises(UserError, match="curves=area"):
        ExplainConfig(run_dir="run", curves="area")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("photographs")
    generator = np.random.default_rng(0)
    photographs = []
    for number in range(3):
        place = folder / f"{number}.png"
        Image.fromarray(generator.integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(place)
        photographs.append(Photograph(place, place.name, group=f"patient {number}"))
    backbone = small_captioner().backbone
    settings = CurveSettings("default", 4, 7)
    question = Question(names=("similarity",), text=TEXTS)
    job = ExplanationJob(backbone, None, [GradEclip(), AttentionRollout()], question, curves=settings)
    store = ResultStore(folder / "run")
    explain_photographs(job, photographs, store)
    return backbone, photographs, store, collect(store, backbone, "a run")


def test_the_stored_curves_are_those_of_the_stored_maps(run) -> None:
    backbone, photographs, store, _ = run
    for photograph, (_, result) in zip(photographs, store.results(), strict=True):
        answer = result.answers["similarity"]
        curves, bank = answer.curves, PerturbationBank(backbone, backbone.preprocess.read(photograph.path)[None])
        target = SimilarityTarget.from_texts(backbone, TEXTS)
        for attribution in answer.attributions:
            found = insertion_deletion(bank, target, attribution.values[0], seed=7)
            for item in range(2):
                [row] = curves.chosen(item, HEAT, attribution.method)
                expected = found.insertion[item, :, item].numpy()
                assert np.allclose(curves.insertion[row], expected, atol=1e-5)
                [row] = curves.chosen(item, REVERSED, attribution.method)
                assert np.allclose(curves.deletion[row], found.reversed_deletion[item, :, item], atol=1e-5)
                assert curves.areas[row, 1] == pytest.approx(curves.deletion[row] @ _weights(curves.shares), abs=1e-5)
        random = random_smooth_maps(4, backbone.grid, (7 + number_of(photograph.path)) % 2**31)
        found = insertion_deletion(bank, target, random, seed=7)
        rows = curves.chosen(1, RANDOM)
        assert len(rows) == 4 and np.allclose(curves.insertion[rows], found.insertion[:, :, 1], atol=1e-5)


def _weights(shares: np.ndarray) -> np.ndarray:
    return np.array([np.trapezoid(unit, shares) for unit in np.eye(len(shares))])


def test_the_table_pairs_each_map_with_random_maps_on_its_own_photograph(run) -> None:
    _, _, store, metrics = run
    all_curves = [result.answers["similarity"].curves for _, result in store.results()]
    for row in metrics["curves"]:
        if row["method"].startswith("control"):
            continue
        above = [
            curves.areas[curves.chosen(item, HEAT, row["method"])[0], 0]
            - curves.areas[curves.chosen(item, RANDOM), 0].mean()
            for curves in all_curves
            for item in range(2)
        ]
        assert row["above_random"]["value"] == pytest.approx(np.mean(above), abs=1e-6)
        assert (row["above_random"]["n"], row["above_random"]["groups"], row["score"]) == (6, 3, "cosine")
    page = (store.run_dir / "index.html").read_text(encoding="utf-8")
    assert "protocol default" in page and "insertion above random" in page
    assert (store.run_dir / "curves" / "similarity.svg").read_text().startswith("<svg")


def test_single_words_have_no_curves_beside_their_caption_and_text_maps_none_at_all() -> None:
    captioner = small_captioner()
    backbone = captioner.backbone
    bank = PerturbationBank(backbone, torch.randn(1, 3, *[backbone.preprocess.image_size] * 2))
    target = SimilarityTarget.from_texts(backbone, ["a", "b", "c"])
    values = torch.rand(1, 3, *backbone.grid)
    maps = Attribution(values, "gradeclip", {}, torch.zeros(1, 3), ["red", "plaque", "whole caption"], True)
    answer = Answer("log-probability", [(0, 3), (4, 10), None], [maps], [{}])
    curves = measured_curves(answer, bank, target, CurveSettings(random_maps=2))
    assert {row.item for row in curves.rows} == {2}
    words = Answer("log-probability", [(0, 3), (4, 10), (0, 3)], [maps], [{}])
    assert {row.item for row in measured_curves(words, bank, target, CurveSettings(random_maps=2)).rows} == {0, 1, 2}
    text = Attribution(torch.rand(1, 3, 4), "words", {}, torch.zeros(1, 3), ["a", "b", "c"], True, "text", None,
                       [["w"] * 4] * 3)  # fmt: skip
    assert measured_curves(Answer("cosine", [None] * 3, [text], [{}]), bank, target, CurveSettings()) is None


def test_bands_need_enough_patients() -> None:
    shares = np.linspace(0, 1, 5)
    runs = {}
    for patients in (4, 30):
        run_curves = RunCurves()
        generator = np.random.default_rng(0)
        for number in range(patients):
            run_curves.heights.setdefault(("gradcam", "class", HEAT), []).append(generator.random((2, 5)))
            run_curves.groups.setdefault(("gradcam", "class", HEAT), []).append(str(number))
        run_curves.said["class"] = _said(shares)
        runs[patients] = run_curves.pictures()["class"]
    assert "polygon" not in runs[4] and runs[30].count("<polygon") == 2


def test_the_note_speaks_of_the_field() -> None:
    row = {
        "method": "gradcam",
        "what": "class",
        "score": "logit",
        "insertion": {"value": 0.5, "low": None, "high": None, "n": 2},
    }
    notes = {}
    for field in ("skin", "chest"):
        curves = RunCurves(said={"class": _said(np.linspace(0, 1, 5))}, vocabulary=load_vocabulary(field))
        notes[field] = curves.table([row]).note
    assert "over patients or lesions]" in notes["skin"] and notes["skin"].count("lesion") == 2
    assert "over patients]" in notes["chest"] and "lesion" not in notes["chest"]


def _said(shares: np.ndarray) -> MeasuredCurves:
    nothing = np.zeros((0, len(shares)))
    return MeasuredCurves("default", "", "logit", (), shares, nothing, nothing, np.zeros((0, 2)))


def test_a_label_cannot_leave_its_picture() -> None:
    line = [Line("<script>alert(1)</script>", np.array([0.0, 1.0]))]
    assert "<script" not in picture(np.array([0.0, 1.0]), line, line, "<b>")
