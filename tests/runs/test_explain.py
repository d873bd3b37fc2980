from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file
from transformers import GPT2LMHeadModel

from clip_xai.errors import UserError
from clip_xai.models.backbones.build import tiny_backbone
from clip_xai.models.captioner import Captioner
from clip_xai.models.language_model import tiny_config
from clip_xai.models.mappers import build_mapper
from clip_xai.models.tokenizer import CaptionTokenizer
from clip_xai.report.explained import CLASS_AGNOSTIC_NOTE, POOLED_NOTE
from clip_xai.runs.config import ExplainConfig
from clip_xai.runs.explain import (
    Photograph,
    Question,
    caption_target,
    chosen_photographs,
    explain_photographs,
    write_explained,
)
from clip_xai.xai.methods import AttentionRollout, GradCam, GradEclip, Occlusion, TokenGradXInput
from clip_xai.xai.target import SimilarityTarget

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
    read = captioner.read(torch.zeros(1, 3, 24, 24)).detach()
    tokens = torch.tensor([[*ids, captioner.tokenizer.eos_id]])
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


def test_a_run_writes_everything_and_names_what_it_could_not_read(captioner, photographs, tmp_path):
    run = tmp_path / "run"
    found = explain_photographs(captioner.backbone, captioner, photographs, METHODS, Question(), run)
    metrics = write_explained(found, run, "a run")
    assert [image.name for image in found.images] == ["wide.jpg", "tall.png"]
    assert metrics["explained"] == 2 and len(metrics["problems"]) == 1 and "broken.jpg" in metrics["problems"][0]
    assert json.dumps(metrics, allow_nan=False)
    assert sorted(path.name for path in (run / "cards").iterdir()) == ["0001_wide.png", "0003_tall.png"]
    assert "broken.jpg" in (run / "index.html").read_text()
    assert found.images[0].caption == CAPTION
    labels = [item.label for item in found.images[0].items]
    assert labels[-3:] == ["diagnosis: basal cell carcinoma", "whole caption", CAPTION]


def test_raw_attributions_are_read_with_numpy_alone(captioner, photographs, tmp_path):
    found = explain_photographs(captioner.backbone, captioner, photographs[:1], METHODS, Question(), tmp_path)
    write_explained(found, tmp_path, "")
    index = pd.read_parquet(tmp_path / "attributions.parquet")
    image = found.images[0]
    assert len(index) == len(METHODS) * len(image.items)
    for _, row in index[index.kind == "image"].iterrows():
        values = load_file(tmp_path / row.file)["values"][0, row.row]
        shown = next(part for part in image.explanations if part.method == row.method)
        offset = 0 if row.score_name == "log-probability" else len(image.items) - 1
        assert np.array_equal(values, shown.row(offset + row.row)) and list(values.shape) == list(row["shape"])
        assert (row.left, row.right, row.width) == (5.0, 35.0, 40)
        if np.isfinite(row.start):
            assert CAPTION[int(row.start) : int(row.end)] == row.label


def test_scores_are_those_of_the_captioner(captioner, photographs, tmp_path):
    found = explain_photographs(captioner.backbone, captioner, photographs[:1], METHODS[:1], Question(), tmp_path)
    items = found.images[0].items
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
    found = explain_photographs(captioner.backbone, None, photographs[:1], METHODS, question, tmp_path)
    (image,) = found.images
    assert image.caption is None and [item.label for item in image.items] == ["a photo of melanoma"]
    with pytest.raises(UserError, match="captioner"):
        explain_photographs(captioner.backbone, None, photographs[:1], METHODS, Question(), tmp_path)


def test_the_reader_is_told_where_maps_are_no_evidence_for_a_word(tokenizer, photographs, tmp_path):
    captioner = build(tokenizer, "bottleneck_mlp")
    methods = [GradEclip(), AttentionRollout()]
    found = explain_photographs(captioner.backbone, captioner, photographs[:1], methods, Question(), tmp_path)
    heat, rollout = found.images[0].explanations
    assert heat.all_notes == (POOLED_NOTE,)
    assert rollout.all_notes == (CLASS_AGNOSTIC_NOTE, POOLED_NOTE)


def test_heat_is_held_against_the_lesion_beside_controls(captioner, photographs, tmp_path):
    found = explain_photographs(captioner.backbone, captioner, photographs, METHODS, Question(), tmp_path)
    measured = found.lesions.measure()
    pairs = [(row["method"], row["what"]) for row in measured]
    assert ("gradeclip", "diagnosis") in pairs and ("occlusion", "similarity") in pairs
    assert pairs[-3:] == [("control: random", "any"), ("control: centre", "any"), ("control: colour contrast", "any")]
    assert not any(method == "token_gradxinput" for method, _ in pairs)
    # By hand: 10 x 10 pixels of the 30 x 30 that the model saw of each.
    assert all(row["chance"] == pytest.approx(1 / 9, abs=0.03) for row in measured)


def test_a_run_in_which_nothing_can_be_read_is_an_error(captioner, photographs, tmp_path):
    with pytest.raises(UserError, match=r"none of 1 photographs could be explained; broken\.jpg"):
        explain_photographs(captioner.backbone, captioner, photographs[1:2], METHODS, Question(), tmp_path)


def test_image_names_a_file_a_folder_or_a_pattern(photographs, tmp_path):
    folder = tmp_path / "photographs"

    def names(image: str) -> list[str]:
        return [photograph.name for photograph in chosen_photographs(ExplainConfig(image=image, run_dir=""))]

    assert names(str(folder / "wide.jpg")) == ["wide.jpg"]
    assert names(str(folder)) == ["broken.jpg", "tall.png", "tall.png.mask.png", "wide.jpg", "wide.jpg.mask.png"]
    assert names(str(folder / "*.jpg")) == ["broken.jpg", "wide.jpg"]
    with pytest.raises(UserError, match="no photograph there"):
        names(str(tmp_path / "nowhere"))


def test_the_whole_path_is_that_of_the_explainer_alone(captioner, photographs, tmp_path):
    question = Question(("similarity",), "cosine", "a photo of melanoma")
    found = explain_photographs(captioner.backbone, None, photographs[:1], [GradEclip()], question, tmp_path)
    backbone = captioner.backbone
    pixels = backbone.preprocess(Image.open(photographs[0].path).convert("RGB"))[None]
    alone = GradEclip().explain(backbone, pixels, SimilarityTarget.from_texts(backbone, ["a photo of melanoma"]))
    assert np.allclose(found.images[0].explanations[0].values, alone.values[0].numpy(), atol=1e-6)
