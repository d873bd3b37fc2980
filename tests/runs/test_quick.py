from __future__ import annotations

import io
import re
import runpy
from pathlib import Path

import pytest
import torch
from PIL import Image

import clip_xai
from clip_xai.data.synthetic.scene import render, sample_scene
from clip_xai.errors import UserError
from clip_xai.xai.methods import GradEclip
from clip_xai.xai.target import ContrastTarget, SimilarityTarget

ROOT = Path(__file__).resolve().parents[2]
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


def test_the_python_of_the_readme_runs(photograph: Image.Image, tmp_path: Path, monkeypatch) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert blocks
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Image.Image, "show", lambda self: None)  # no viewer in a test
    photograph.save("photo.jpg")
    for number, block in enumerate(blocks):
        script = tmp_path / f"block{number}.py"
        script.write_text(block)
        runpy.run_path(str(script))
