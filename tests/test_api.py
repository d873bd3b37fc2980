from __future__ import annotations

import io
import re
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import clip_xai
from clip_xai.data.synthetic.scene import render, sample_scene
from clip_xai.errors import UserError
from clip_xai.explanations.collection import collect
from clip_xai.explanations.explanation_job import ExplanationJob
from clip_xai.explanations.photographs import Photograph
from clip_xai.explanations.store import ResultStore
from clip_xai.jobs.explain import explain_photographs
from clip_xai.models.backbones.backbone_builder import EMBEDDED, BackboneSource
from clip_xai.models.settings import Decoding
from clip_xai.models.weights import CaptionerSettings, build_captioner
from clip_xai.xai.attribution import Attribution
from clip_xai.xai.methods import GradCam, GradEclip
from clip_xai.xai.target import ContrastTarget, SimilarityTarget
from clip_xai.xai.targets.question import Question

ROOT = Path(__file__).resolve().parents[1]
TEXTS = ["a photo of melanoma", "a photo of psoriasis"]


@pytest.fixture(scope="module")
def photograph() -> Image.Image:
    return Image.fromarray(render(sample_scene(3, diagnosis="melanoma"), 96, 128).image)


def test_the_short_way_gives_what_the_long_way_gives(photograph: Image.Image) -> None:
    backbone = clip_xai.load_backbone("tiny")
    found = clip_xai.explain(backbone, photograph, TEXTS, ["gradcam", GradEclip()], contrast=True)
    target = ContrastTarget.from_texts(backbone, TEXTS)
    alone = GradEclip().explain(backbone, backbone.preprocess(photograph)[None], target)
    assert torch.allclose(found.attributions[1].values, alone.values)
    assert torch.allclose(found.attributions[1].scores, alone.scores)
    assert [one.method for one in found.attributions] == ["gradcam", "gradeclip"]
    assert found.attributions[0].geometry == [backbone.preprocess.geometry(128, 96)]


def test_random_weights_are_asked_for_by_none(photograph: Image.Image) -> None:
    torch.manual_seed(0)
    random = clip_xai.load_backbone("tiny", pretrained=None)
    assert random.source is None and clip_xai.load_backbone("tiny").source is not None
    scores = [
        SimilarityTarget.from_texts(tower, TEXTS).score(tower.encode_image(tower.preprocess(photograph)[None]))
        for tower in (random, clip_xai.load_backbone("tiny"))
    ]
    assert not torch.allclose(*scores)


def test_a_card_is_a_picture_that_can_be_kept(photograph: Image.Image, tmp_path: Path) -> None:
    found = clip_xai.explain(clip_xai.load_backbone("tiny"), photograph, TEXTS)
    found.save(tmp_path / "card.png")
    card = Image.open(tmp_path / "card.png")
    assert card.size == Image.open(io.BytesIO(found._repr_png_())).size and card.width > 1000


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: clip_xai.load_backbone("dermclip"), "no backbone 'dermclip'"),
        (lambda: clip_xai.explain(clip_xai.load_backbone(), "nowhere.jpg", TEXTS), "nowhere.jpg"),
        (lambda: clip_xai.explain(clip_xai.load_backbone(), "nowhere.jpg", TEXTS, ["gradkam"]), "no explainer"),
    ],
)
def test_mistakes_are_named(call, message) -> None:
    with pytest.raises(UserError, match=message):
        call()


@pytest.mark.parametrize("page", ["README.md", "docs/python.md", "docs/classification.md"])
def test_the_python_of_a_page_runs(page: str, photograph: Image.Image, tmp_path: Path, monkeypatch) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    assert blocks
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Image.Image, "show", lambda self: None)  # no viewer in a test
    photograph.save("photo.jpg")
    for number, block in enumerate(blocks):
        script = tmp_path / f"block{number}.py"
        script.write_text(block)
        runpy.run_path(str(script))


def shapes(*given, **settings) -> list[tuple[str, tuple[int, ...]]]:
    found = clip_xai.explain(clip_xai.load_backbone(), *given, **settings).attributions
    return [(one.method, tuple(one.values.shape)) for one in found]


def test_one_text_one_method_and_an_array_are_what_they_are(photograph: Image.Image) -> None:
    expected = shapes(photograph, [TEXTS[0]], ["gradcam"])
    assert expected == [("gradcam", (1, 1, 12, 12))]
    assert shapes(photograph, TEXTS[0], "gradcam") == shapes(photograph, tuple(TEXTS[:1]), GradCam()) == expected
    values = np.asarray(photograph)
    for array in (
        values,
        values / 255.0,
        values[..., 0],
        np.dstack([values, np.full(values.shape[:2], 255, np.uint8)]),
    ):
        assert shapes(array, TEXTS[0], "gradcam") == expected
    same = clip_xai.explain(clip_xai.load_backbone(), values / 255.0, TEXTS, "gradcam").attributions[0].values
    assert torch.equal(
        same, clip_xai.explain(clip_xai.load_backbone(), photograph, TEXTS, "gradcam").attributions[0].values
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("", ["gradcam"]), "none of them blank"),
        (([], ["gradcam"]), "none of them blank"),
        ((["a", 3], ["gradcam"]), "none of them blank"),
        ((None, ["gradcam"]), "needs a text"),
        ((["a"], []), "at least one method"),
        ((["a"], "gradkam"), "no explainer 'gradkam'"),
    ],
)
def test_what_cannot_be_meant_is_one_line(given, message, photograph: Image.Image) -> None:
    with pytest.raises(UserError, match=message):
        shapes(photograph, *given)


@pytest.mark.parametrize(
    "array", [np.zeros((5, 5, 3), np.int32), np.full((4, 4), 7.0), np.zeros((3, 8, 8), np.uint8), np.zeros(0)]
)
def test_an_array_that_is_no_photograph_is_refused(array) -> None:
    with pytest.raises(UserError, match="is not a photograph"):
        shapes(array, "a", "gradcam")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_photograph_is_the_same_by_path_and_as_a_picture(orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.effect_noise((120, 80), 90).convert("RGB").save(tmp_path / "turned.png", exif=exif)
    backbone = clip_xai.load_backbone()
    found = [
        clip_xai.explain(backbone, one, "melanoma", "saliency").attributions[0]
        for one in (tmp_path / "turned.png", Image.open(tmp_path / "turned.png"))
    ]
    assert torch.equal(found[0].values, found[1].values) and found[0].geometry == found[1].geometry
    assert found[0].geometry is not None and found[0].geometry[0].height == (120 if orientation > 4 else 80)


def test_a_captioner_explains_its_caption_and_a_run_is_read_back(photograph: Image.Image, tmp_path: Path) -> None:
    torch.manual_seed(0)
    captioner = build_captioner(CaptionerSettings(BackboneSource("tiny", "tiny", EMBEDDED), "linear_patch")).eval()
    found = clip_xai.explain(
        captioner, photograph, methods=["gradcam", "token_gradxinput"], decoding=Decoding(max_new_tokens=6)
    )
    caption = captioner.generate(
        captioner.read(captioner.backbone.preprocess(photograph)[None]), Decoding(max_new_tokens=6)
    )
    assert found.shown.caption == caption[0].text
    assert [one.method for one in found.attributions] == ["gradcam", "token_gradxinput"]
    assert found.attributions[0].labels[-1] == "whole caption"

    photograph.save(tmp_path / "one.png")
    job = ExplanationJob(captioner.backbone, captioner, [GradCam()], Question(("similarity",), text="a nevus"))
    store = ResultStore(tmp_path / "run")
    explain_photographs(job, [Photograph(tmp_path / "one.png", "one.png")], store)
    collect(store, captioner.backbone, "")
    run = clip_xai.read_run(tmp_path / "run")
    alone = clip_xai.explain(captioner, photograph, "a nevus", "gradcam").attributions[0]
    assert torch.allclose(run.maps[0].values, alone.values, atol=1e-6)
    assert run.scores.label.tolist() == ["a nevus"] and run.scores.score[0] == pytest.approx(
        float(alone.scores), rel=1e-4
    )
    assert list(run.table.method) == ["gradcam"] and run.results[0].photograph.name == "one.png"
    [file] = (tmp_path / "run" / "results").glob("*.safetensors")
    with pytest.raises(UserError, match="read_run"):
        Attribution.load(file)
    with pytest.raises(UserError, match="no finished run"):
        clip_xai.read_run(tmp_path)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"texts": 5}, "texts=5"),
        ({"texts": {"text": "a"}}, "texts="),
        ({"texts": "half \ud800"}, "texts="),
        ({"texts": "a", "methods": None}, "there is no explainer None"),
        ({"texts": "a", "kind": "cos"}, "kind='cos': choose one of cosine"),
        ({"texts": "a", "photograph": Image.new("RGB", (1, 5000))}, "one side is more than 100 times"),
        ({"texts": "a", "photograph": np.zeros((1, 5000, 3), np.uint8)}, "one side is more than 100 times"),
    ],
)
def test_what_no_one_can_mean_is_one_line(given: dict, said: str, photograph: Image.Image) -> None:
    asked = {"photograph": photograph, "methods": "gradcam", **given}
    with pytest.raises(UserError, match=said):
        clip_xai.explain(clip_xai.load_backbone("tiny"), **asked)


def test_a_card_without_a_place_is_refused(photograph: Image.Image, tmp_path: Path) -> None:
    found = clip_xai.explain(clip_xai.load_backbone("tiny"), photograph, "a photo of melanoma", GradCam)
    for name, said in (("card", "give its file such an ending"), ("no/card.png", "make it first")):
        with pytest.raises(UserError, match=said):
            found.save(tmp_path / name)
