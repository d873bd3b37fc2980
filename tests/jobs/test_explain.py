from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file
from transformers import GPT2LMHeadModel

from clip_xai.config.cli import compose_job
from clip_xai.data.images import read_image
from clip_xai.data.record import Record
from clip_xai.errors import UserError
from clip_xai.explanations.collection import collect, shown
from clip_xai.explanations.explanation_job import ExplanationJob
from clip_xai.explanations.lesion_maps import LesionMaps
from clip_xai.explanations.photographs import Photograph, photographs_at
from clip_xai.explanations.questions import caption_target
from clip_xai.explanations.store import ResultStore, index_rows
from clip_xai.jobs.explain import explain_photographs
from clip_xai.models.backbones.backbone_builder import tiny_backbone
from clip_xai.models.captioner import Captioner
from clip_xai.models.language_model import tiny_config
from clip_xai.models.mappers import build_mapper
from clip_xai.models.settings import REPORTED, Decoding
from clip_xai.models.tokenizer import CaptionTokenizer
from clip_xai.report.explained import CLASS_AGNOSTIC_NOTE, POOLED_NOTE
from clip_xai.runs.instantiate import decoding as decoding_of
from clip_xai.tasks.captions.written import generate_captions
from clip_xai.training.features import FeatureCache
from clip_xai.xai.methods import (
    AttentionRollout,
    GradCam,
    GradEclip,
    IntegratedGradients,
    Occlusion,
    TokenGradXInput,
)
from clip_xai.xai.target import SimilarityTarget
from clip_xai.xai.targets.question import Question

CAPTION = "a red basal cell carcinoma, upper left."
METHODS = [GradEclip(), GradCam(), AttentionRollout(), Occlusion(window=1), TokenGradXInput()]


@pytest.fixture(scope="module")
def tokenizer() -> CaptionTokenizer:
    return CaptionTokenizer.train([CAPTION] * 3, vocabulary_size=290)


@pytest.fixture()
def captioner(tokenizer: CaptionTokenizer) -> Captioner:
    return build(tokenizer, "resampler")


def build(tokenizer: CaptionTokenizer, mapper: str) -> Captioner:
    torch.manual_seed(0)
    config = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 24, "patch_size": 6, "width": 32, "layers": 2, "head_width": 8},
        "text_cfg": {
            "context_length": 40, "vocab_size": tokenizer.vocabulary_size, "width": 16, "heads": 2, "layers": 2,
        },
    }  # fmt: skip
    backbone = tiny_backbone(config, tokenizer).eval().requires_grad_(False)
    language_model = GPT2LMHeadModel(tiny_config(tokenizer.vocabulary_size, tokenizer.eos_id)).eval()
    made = build_mapper(mapper, embed_dim=16, width=32, embedding_dim=128, prefix_length=3)
    captioner = Captioner(backbone, made, language_model, tokenizer).eval()
    learn(captioner, tokenizer.encode(CAPTION))
    return captioner


def learn(captioner: Captioner, ids: list[int]) -> None:
    """A few steps until greedy search says the one caption, so that there is a caption to explain."""
    pixels = torch.randn(8, 3, 24, 24, generator=torch.Generator().manual_seed(1))
    read = captioner.read(pixels).detach()
    tokens = torch.tensor([[*ids, captioner.tokenizer.eos_id]]).expand(len(read), -1)
    optimiser = torch.optim.AdamW(captioner.language_model.parameters(), lr=5e-3)
    for _ in range(60):
        loss = captioner.loss(read, tokens)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    captioner.requires_grad_(False)


@pytest.fixture()
def photographs(tmp_path: Path) -> list[Photograph]:
    folder = tmp_path / "photographs"
    folder.mkdir()
    rng = np.random.default_rng(0)
    made = []
    for name, size in {"wide.jpg": (40, 30), "tall.png": (30, 50)}.items():
        Image.fromarray(rng.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)).save(folder / name)
        mask = np.zeros((size[1], size[0]), np.uint8)
        mask[10:20, 10:20] = 255
        Image.fromarray(mask).save(folder / f"{name}.mask.png")
        made.append(Photograph(folder / name, name, folder / f"{name}.mask.png", name, ("A reference.",)))
    (folder / "broken.jpg").write_bytes(b"not a photograph")
    return [made[0], Photograph(folder / "broken.jpg", "broken.jpg"), made[1]]


def explained(captioner, photographs, methods, question, run, backbone=None):
    """What is shown of each photograph that could be explained."""
    tower = backbone or captioner.backbone
    store = ResultStore(run)
    explain_photographs(ExplanationJob(tower, captioner, methods, question), photographs, store)
    return [shown(result, tower) for _, result in store.results()]


def test_a_run_writes_everything_and_names_what_it_could_not_read(captioner, photographs, tmp_path):
    run = tmp_path / "run"
    images = explained(captioner, photographs, METHODS, Question(), run)
    metrics = collect(ResultStore(run), captioner.backbone, "a run")
    assert [image.name for image in images] == ["wide.jpg", "tall.png"]
    assert metrics["explained"] == 2 and len(metrics["problems"]) == 1 and "broken.jpg" in metrics["problems"][0]
    assert json.dumps(metrics, allow_nan=False)
    assert sorted(path.name for path in (run / "cards").iterdir()) == ["0001_wide.png", "0003_tall.png"]
    assert "broken.jpg" in (run / "index.html").read_text()
    assert images[0].caption == CAPTION
    labels = [item.label for item in images[0].items]
    assert labels[-3:] == ["diagnosis: basal cell carcinoma", "whole caption", CAPTION]


def test_raw_attributions_are_read_with_numpy_alone(captioner, photographs, tmp_path):
    (image,) = explained(captioner, photographs[:1], METHODS, Question(), tmp_path / "run")
    collect(ResultStore(tmp_path / "run"), captioner.backbone, "")
    index = pd.read_parquet(tmp_path / "run" / "attributions.parquet")
    assert len(index) == len(METHODS) * len(image.items)
    for _, row in index[index.kind == "image"].iterrows():
        values = load_file(tmp_path / "run" / row.file)[row.tensor][row.row]
        shown = next(part for part in image.explanations if part.method == row.method)
        offset = 0 if row.score_name == "log-probability" else len(image.items) - 1
        assert np.array_equal(values, shown.row(offset + row.row)) and list(values.shape) == list(row["shape"])
        assert (row.left, row.right, row.width) == (5.0, 35.0, 40)
        if np.isfinite(row.start):
            assert CAPTION[int(row.start) : int(row.end)] == row.label


def test_scores_are_those_of_the_captioner(captioner, photographs, tmp_path):
    items = explained(captioner, photographs[:1], METHODS[:1], Question(), tmp_path / "run")[0].items
    pixels = captioner.backbone.preprocess(Image.open(photographs[0].path).convert("RGB"))[None]
    ids = torch.tensor([captioner.tokenizer.encode(CAPTION)])
    with torch.no_grad():
        log_probs = captioner.token_log_probs(captioner.read(pixels), ids)[0]
        cosine = torch.cosine_similarity(
            captioner.backbone.encode_image(pixels), captioner.backbone.encode_text([CAPTION])
        )
    words = sum(item.score for item in items if item.span)
    assert words == pytest.approx(float(log_probs.sum()), rel=1e-4, abs=1e-4)
    assert items[-2].score == pytest.approx(words, rel=1e-4, abs=1e-4)
    assert items[-1].score == pytest.approx(float(cosine), abs=1e-5)


def test_the_diagnosis_is_the_sum_of_its_words(captioner):
    ids = captioner.tokenizer.encode(CAPTION)
    target, spans = caption_target(captioner, ids)
    where = target.labels.index("diagnosis: basal cell carcinoma")
    words = [target.labels.index(word) for word in ("basal", "cell", "carcinoma")]
    with torch.no_grad():
        scores = target.score(captioner.read(torch.randn(1, 3, 24, 24)))[0]
    assert scores[where] == pytest.approx(float(scores[words].sum()), abs=1e-4)
    assert spans[where] is None and spans[words[0]] == (6, 11)


def test_a_given_text_needs_no_captioner(captioner, photographs, tmp_path):
    question = Question(("similarity",), "cosine", "a photo of melanoma")
    (image,) = explained(None, photographs[:1], METHODS, question, tmp_path / "run", captioner.backbone)
    assert image.caption is None and [item.label for item in image.items] == ["a photo of melanoma"]
    with pytest.raises(UserError, match="captioner"):
        ExplanationJob(captioner.backbone, None, METHODS, Question())


def test_the_reader_is_told_where_maps_are_no_evidence_for_a_word(tokenizer, photographs, tmp_path):
    captioner = build(tokenizer, "bottleneck_mlp")
    methods = [GradEclip(), AttentionRollout()]
    heat, rollout = explained(captioner, photographs[:1], methods, Question(), tmp_path / "run")[0].explanations
    assert heat.all_notes == (POOLED_NOTE,)
    assert rollout.all_notes == (CLASS_AGNOSTIC_NOTE, POOLED_NOTE)


def test_heat_is_held_against_the_lesion_beside_controls(captioner, photographs, tmp_path):
    explained(captioner, photographs, METHODS, Question(), tmp_path / "run")
    lesions = LesionMaps()
    for _, result in ResultStore(tmp_path / "run").results():
        shown(result, captioner.backbone, lesions)
    measured = lesions.measure()
    pairs = [(row["method"], row["what"]) for row in measured]
    assert ("gradeclip", "diagnosis") in pairs and ("occlusion", "similarity") in pairs
    known = {method.removeprefix("control: ") for method, _ in pairs if method.startswith("control: ")}
    assert {"random", "centre", "colour contrast", "Sobel edges"} <= known
    assert all(what == "any" for method, what in pairs if method.startswith("control: "))
    assert not any(method == "token_gradxinput" for method, _ in pairs)
    # By hand: 10 x 10 pixels of the 30 x 30 that the model saw of each.
    assert all(row["chance"] == pytest.approx(1 / 9, abs=0.03) for row in measured)


def test_a_run_in_which_nothing_can_be_read_is_an_error(captioner, photographs, tmp_path):
    with pytest.raises(UserError, match=r"none of 1 photograph could be explained; broken\.jpg"):
        explained(captioner, photographs[1:2], METHODS, Question(), tmp_path / "run")


def test_image_names_a_file_a_folder_or_a_pattern(photographs, tmp_path):
    folder = tmp_path / "photographs"

    def names(image: str) -> list[str]:
        return [photograph.name for photograph in photographs_at(image)]

    assert names(str(folder / "wide.jpg")) == ["wide.jpg"]
    assert names(str(folder)) == ["broken.jpg", "tall.png", "tall.png.mask.png", "wide.jpg", "wide.jpg.mask.png"]
    assert names(str(folder / "*.jpg")) == ["broken.jpg", "wide.jpg"]
    with pytest.raises(UserError, match="no photograph there"):
        names(str(tmp_path / "nowhere"))


def test_the_whole_path_is_that_of_the_explainer_alone(captioner, photographs, tmp_path):
    question = Question(("similarity",), "cosine", "a photo of melanoma")
    backbone = captioner.backbone
    (image,) = explained(None, photographs[:1], [GradEclip()], question, tmp_path / "run", backbone)
    pixels = backbone.preprocess(Image.open(photographs[0].path).convert("RGB"))[None]
    alone = GradEclip().explain(backbone, pixels, SimilarityTarget.from_texts(backbone, ["a photo of melanoma"]))
    assert np.allclose(image.explanations[0].values, alone.values[0].numpy(), atol=1e-6)


def contents_of(place: Path) -> tuple[dict[str, str], dict[str, bytes]]:
    """A result's header and its arrays."""
    with safe_open(place, framework="np") as file:
        return dict(file.metadata()), {name: file.get_tensor(name).tobytes() for name in file.keys()}  # noqa: SIM118


def test_a_stopped_run_goes_on_where_it_stopped(captioner, photographs, tmp_path):
    job = ExplanationJob(captioner.backbone, captioner, METHODS[:1], Question())
    whole, broken_off = ResultStore(tmp_path / "whole"), ResultStore(tmp_path / "broken off")
    explain_photographs(job, photographs, whole)
    explain_photographs(job, photographs, broken_off)
    first, second = sorted(broken_off.folder.glob("*.safetensors"))
    second.unlink()
    before = first.stat().st_mtime_ns
    explain_photographs(job, photographs, broken_off)
    assert first.stat().st_mtime_ns == before, "a finished photograph was explained again"
    # The format keeps no order of what stands in a header.
    assert contents_of(second) == contents_of(whole.folder / second.name)
    assert broken_off.problems() == whole.problems() != []


def test_a_photograph_that_was_mended_is_tried_again(captioner, photographs, tmp_path):
    store = ResultStore(tmp_path / "run")
    job = ExplanationJob(captioner.backbone, captioner, METHODS[:1], Question())
    explain_photographs(job, photographs, store)
    photographs[1].path.write_bytes(photographs[0].path.read_bytes())
    explain_photographs(job, photographs, store)
    assert store.problems() == [] and len(list(store.results())) == 3


def test_a_run_directory_answers_one_question_only(captioner, photographs, tmp_path):
    store = ResultStore(tmp_path / "run")
    job = ExplanationJob(captioner.backbone, captioner, METHODS[:1], Question())
    explain_photographs(job, photographs[:1], store, asked={"text": None, "split": "test"})
    with pytest.raises(UserError, match=r"text=null, and now text=a nevus"):
        explain_photographs(job, photographs[:1], store, asked={"text": "a nevus", "split": "test"})


def test_what_is_read_back_is_what_was_found(captioner, photographs, tmp_path):
    store = ResultStore(tmp_path / "run")
    result = ExplanationJob(captioner.backbone, captioner, METHODS, Question()).result(photographs[2])
    store.expect([photographs[2]])
    store.write_list()
    store.write(1, result)
    ((_, again),) = store.results()
    assert again.photograph == result.photograph and again.caption == result.caption
    for name, answer in result.answers.items():
        assert again.answers[name].items == answer.items
        for one, other in zip(answer.attributions, again.answers[name].attributions, strict=True):
            assert torch.equal(one.values.nan_to_num(9), other.values.nan_to_num(9))
            assert one.metadata() == other.metadata()


def test_methods_of_dozens_of_passes_explain_the_diagnosis_and_the_whole_unless_words_are_asked_for(
    captioner, photographs, tmp_path
):
    costly = IntegratedGradients(steps=2, resolution="patches")
    store = ResultStore(tmp_path / "run")
    job = ExplanationJob(captioner.backbone, captioner, [costly, GradCam()], Question())
    explain_photographs(job, photographs[:1], store)
    [(place, result)] = store.results()
    [image] = [shown(result, captioner.backbone)]
    by_method = {explanation.method: explanation for explanation in image.explanations}
    words = len(by_method["gradcam"].items) - 3
    assert by_method["integrated_gradients"].items == (words, words + 1, words + 2)  # diagnosis, whole, similarity
    assert any(reason.startswith("integrated_gradients") for reason in image.left_out)

    picture = read_image(photographs[0].path)
    pixels = captioner.backbone.preprocess(picture)[None]
    target, _ = caption_target(captioner, captioner.tokenizer.encode(CAPTION))
    every = costly.explain(captioner.backbone, pixels, target)
    rows = by_method["integrated_gradients"].values[:2]
    np.testing.assert_allclose(rows, every.values[0, -2:].numpy(), rtol=1e-4, atol=1e-7)
    index = pd.DataFrame(index_rows(place, store.run_dir, result))
    mine = index[(index.method == "integrated_gradients") & (index.question == "caption")]
    assert list(mine.label) == target.labels[-2:] and list(mine.row) == [0, 1]
    np.testing.assert_allclose(mine.score, every.scores[0, -2:].numpy(), rtol=1e-4)

    for names, count in ((("caption_word", "caption"), 1), (("caption_word",), words)):
        alone = ResultStore(tmp_path / names[-1])
        explain_photographs(
            ExplanationJob(captioner.backbone, captioner, [costly], Question(names)), photographs[:1], alone
        )
        [(_, result)] = alone.results()
        assert len(shown(result, captioner.backbone).items) == count


@pytest.mark.parametrize("decoding", [REPORTED, Decoding(sample=True, temperature=2.0, max_new_tokens=12, seed=5)])
def test_the_caption_that_is_explained_is_the_one_that_is_scored(captioner, decoding, tmp_path) -> None:
    """Large files, which are read at reduced size, in another selection and order than they are judged in."""
    rng = np.random.default_rng(1)
    paths = [tmp_path / f"{number}.jpg" for number in range(4)]
    for path in paths:
        Image.fromarray(rng.integers(0, 255, (480, 640, 3), dtype=np.uint8)).save(path)
    with torch.no_grad():
        captioner.language_model.transformer.ln_f.weight.mul_(0.3)  # less sure of its one caption
    records = [Record(path, "s", path.name, path.name, None, None, "a.", ("a.",)) for path in paths]
    table = FeatureCache(tmp_path / "cache", captioner.backbone).table(paths, captioner.reads)
    scored = [one.text for one in generate_captions(captioner, records, table, decoding, batch_size=3)]
    assert len(set(scored)) > 1 or decoding == REPORTED
    question = Question(("similarity",), text="a nevus")
    job = ExplanationJob(captioner.backbone, captioner, [GradCam()], question, decoding)
    for path, caption in list(zip(paths, scored, strict=True))[::-2]:
        result = job.result(Photograph(path, path.name))
        assert result.caption == caption
        named = {key: value for key, value in result.photograph.facts.items() if key.startswith("caption as evaluated")}
        assert bool(named) == (decoding != REPORTED)
        if named:
            [(key, text)] = named.items()
            assert "beams 4" in key and "sample True" in result.photograph.facts["decoding"]
            with torch.no_grad():
                pixels = captioner.backbone.preprocess.read(path)[None]
                assert text == captioner.generate(captioner.read(pixels), REPORTED)[0].text


def test_one_decoding_is_the_default_of_evaluation_and_explanation(tmp_path) -> None:
    for job in ("evaluate", "explain"):
        assert decoding_of(compose_job(job, [], tmp_path).generation) == REPORTED
