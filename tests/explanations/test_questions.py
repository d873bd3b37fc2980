"""What is asked without what it needs is told what is missing; what can only mean one thing is taken so."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from clip_xai.config.schemas import BackboneConfig, ExplainConfig, TargetConfig
from clip_xai.errors import UserError
from clip_xai.explanations.questions import ask, question_of
from clip_xai.jobs.explain import choose
from clip_xai.models.backbones.backbone_builder import EMBEDDED, build_backbone
from clip_xai.xai.targets.question import Question
from clip_xai.xai.targets.target_builder import targets_of


@pytest.mark.parametrize(
    ("names", "text", "line"),
    [
        (None, None, "a CLIP by itself is asked about a text: add text="),
        (["similarity"], None, 'target=similarity needs a text: add text="a photo of melanoma"'),
        (["contrast"], None, 'target=contrast needs a text: add text="a photo of melanoma"'),
        (["caption_word"], "nevus", "target=caption_word explains a caption, and a CLIP by itself writes none"),
        (["similarity", "caption"], "nevus", "target=caption explains a caption"),
        (["class"], "nevus", "text= is for target=similarity and contrast, and target=class is asked"),
    ],
)
def test_a_clip_by_itself_says_what_is_missing(names: list[str] | None, text: str | None, line: str) -> None:
    settings = TargetConfig() if names is None else TargetConfig(names=names)
    with pytest.raises(UserError) as raised:
        question_of(settings, text, captioner=False)
    assert str(raised.value).startswith(line)


def test_the_only_possible_target_is_taken(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        question = question_of(TargetConfig(), "nevus", captioner=False)
    assert (question.names, question.text) == (("similarity",), "nevus")
    assert "target=similarity is explained" in caplog.text
    assert question_of(TargetConfig(), "nevus").names == tuple(TargetConfig().names)  # a captioner answers them all


def test_a_text_that_nothing_asks_for_is_refused_for_a_captioner_too() -> None:
    with pytest.raises(UserError, match="text= is for target=similarity and contrast"):
        question_of(TargetConfig(names=["caption"]), "nevus")


@pytest.mark.parametrize("text", ["", "  ", "\n", [], ["nevus", " "]])
def test_a_blank_text_is_refused(text: object) -> None:
    with pytest.raises(UserError, match="text= is blank: give a text"):
        ExplainConfig(text=text)
    with pytest.raises(UserError, match="is blank"):
        targets_of(Question(("similarity",), text=" "), build_backbone("tiny", "tiny", EMBEDDED))


@pytest.mark.parametrize("name", ["against", "classes", "templates"])
def test_blank_texts_of_a_target_are_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"target.{name} has a blank text"):
        TargetConfig(**{name: ["nevus", ""]})  # type: ignore[arg-type]


@pytest.mark.parametrize("text", [5, {"a": 1}, ["nevus", 3]])
def test_what_is_no_text_is_refused(text: object) -> None:
    with pytest.raises(UserError, match="no text and no list of texts"):
        ExplainConfig(text=text)


def test_several_texts_are_asked_each() -> None:
    backbone, texts = build_backbone("tiny", "tiny", EMBEDDED), ["a red lesion", "a brown lesion, left"]
    image = torch.randn(1, backbone.embed_dim)
    asked = ask(
        question_of(TargetConfig(names=["similarity", "contrast"]), texts, captioner=False), backbone, None, None
    )
    assert asked["similarity"].target.labels == texts
    each = torch.nn.functional.cosine_similarity(image, backbone.encode_text(texts))
    torch.testing.assert_close(asked["similarity"].target.score(image)[0], each)
    torch.testing.assert_close(asked["contrast"].target.score(image)[0], each - each.flip(0))


def test_a_text_without_any_captioner_is_led_to_a_clip(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    config = ExplainConfig(image=str(tmp_path / "a.png"), text="nevus", runs_root=str(tmp_path))
    with pytest.raises(UserError, match=r"python train.py stage=1; or explain the text by a CLIP alone: add backbone="):
        choose(config)
    alone = ExplainConfig(backbone=BackboneConfig("tiny", "tiny"), image=config.image, text="nevus")
    assert choose(alone).place is None
