"""Targets beyond similarity and words: classes, dimensions, spans and contrasts of captions."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip_xai.config.schemas import TARGETS
from clip_xai.data.vocabulary import load_vocabulary
from clip_xai.errors import UserError
from clip_xai.models.backbones.open_clip_vit import OpenClipBackbone
from clip_xai.models.captioner import Captioner
from clip_xai.xai.target import (
    CaptionContrastTarget,
    CaptionTarget,
    CaptionTotalTarget,
    ClassifierTarget,
    ClassTarget,
    ContrastTarget,
    EmbeddingDimensionTarget,
    SimilarityTarget,
    Target,
)
from clip_xai.xai.targets.base import targets
from clip_xai.xai.targets.caption import diagnosis_words
from clip_xai.xai.targets.question import Question
from clip_xai.xai.targets.target_builder import caption_parts, needs_captioner, targets_of
from clip_xai.xai.words import words_of
from tests.support.captions import log_prob
from tests.xai.conftest import CAPTION, TEXTS, assert_close

SKIN = load_vocabulary("skin")


def cotangents_by_loop(target: Target, read: Tensor) -> Tensor:
    """One backward pass for each score."""
    rows = []
    for score in range(len(target.labels)):
        leaf = read.detach().clone().requires_grad_()
        target.score(leaf)[:, score].sum().backward()
        rows.append(leaf.grad)
    return torch.stack(rows, dim=1)


def test_classes_are_the_mean_of_their_prompts(backbone: OpenClipBackbone, pixels: Tensor) -> None:
    templates = ["a {} here", "lesion: {}"]
    read = backbone.encode_image(pixels)
    for kind in ("cosine", "dot", "logit", "log_probability"):
        target = ClassTarget.from_classes(backbone, ["nevus", "melanoma"], templates, kind)
        columns = []
        for name in ("nevus", "melanoma"):
            total = torch.zeros(16)
            for template in templates:
                (text,) = backbone.encode_text([template.format(name)])
                total += text / text.norm()
            columns.append(total / total.norm())
        dots = read @ torch.stack(columns).T
        cosines = dots / read.norm(dim=1, keepdim=True)
        logits = cosines * backbone.logit_scale
        expected = {
            "cosine": cosines, "dot": dots, "logit": logits,
            "log_probability": (logits.exp() / logits.exp().sum(1, True)).log(),
        }[kind]  # fmt: skip
        assert_close(target.score(read), expected)
        assert_close(target.cotangent(read), cotangents_by_loop(target, read))
        assert target.labels == ["nevus", "melanoma"] and target.settings["kind"] == kind


@pytest.mark.parametrize("templates", [["a photo"], ["{} and {}"], []])
def test_templates_without_one_place_are_refused(backbone: OpenClipBackbone, templates: list[str]) -> None:
    with pytest.raises(UserError, match="template"):
        ClassTarget.from_classes(backbone, ["nevus"], templates)


def test_a_classifier_is_asked_in_evaluation_mode(pixels: Tensor) -> None:
    torch.manual_seed(0)
    head = nn.Sequential(nn.Dropout(0.9), nn.Linear(16, 3)).train()
    target = ClassifierTarget(head, ["a", "b", "c"], classes=[2, 0])
    read = torch.randn(2, 16)
    assert_close(target.score(read), F.linear(read, head[1].weight, head[1].bias)[:, [2, 0]].detach())
    assert head[0].training and target.labels == ["c", "a"]
    assert_close(target.cotangent(read), head[1].weight[[2, 0]].detach().expand(2, -1, -1))
    with pytest.raises(ValueError, match="classes"):
        ClassifierTarget(head, ["a"], classes=[1])


@pytest.mark.parametrize("unit", [True, False])
def test_dimensions_add_up_to_the_similarity(backbone: OpenClipBackbone, pixels: Tensor, unit: bool) -> None:
    read = backbone.encode_image(pixels)
    target = EmbeddingDimensionTarget(range(16), unit, embed_dim=16)
    similarity = SimilarityTarget.from_texts(backbone, TEXTS, "cosine" if unit else "dot")
    texts = F.normalize(backbone.encode_text(TEXTS), dim=-1)
    assert_close(target.score(read) @ texts.T, similarity.score(read))
    assert_close(torch.einsum("td,bdk->btk", texts, target.cotangent(read)), similarity.cotangent(read))
    assert_close(target.cotangent(read), cotangents_by_loop(target, read))
    with pytest.raises(UserError, match="from 0 to 15"):
        EmbeddingDimensionTarget([16], embed_dim=16)


def test_a_span_is_the_sum_of_its_words(captioner: Captioner, pixels: Tensor) -> None:
    ids = captioner.tokenizer.encode(CAPTION)
    read = captioner.read(pixels)
    words = CaptionTarget.words(captioner, ids)
    scores = dict(zip(words.labels, words.score(read).T, strict=True))
    for asked, expected in {
        "most likely": ["most", "likely"],
        "Brown LESION": ["brown", "lesion"],
        "melanoma.": ["melanoma", "."],
    }.items():
        target = CaptionTarget.span(captioner, ids, asked)
        assert target.labels == [CAPTION[CAPTION.lower().index(asked.lower()) :][: len(asked)]]
        assert_close(target.score(read)[:, 0], sum(scores[word] for word in expected))
    diagnosis = CaptionTarget.span(captioner, ids)
    assert diagnosis.labels == ["diagnosis: melanoma"]
    assert_close(diagnosis.score(read)[:, 0], scores["melanoma"])
    assert_close(CaptionTarget.word(captioner, ids, "Melanoma").score(read)[:, 0], scores["melanoma"])
    assert_close(
        CaptionTarget.whole(captioner, ids).score(read)[:, 0], log_prob(captioner, read, torch.tensor([ids] * 2))
    )


def test_what_a_caption_does_not_say_is_refused(captioner: Captioner) -> None:
    ids = captioner.tokenizer.encode("a brown spot")
    with pytest.raises(UserError, match="states no diagnosis"):
        CaptionTarget.span(captioner, ids)
    with pytest.raises(UserError, match="not in the caption"):
        CaptionTarget.span(captioner, ids, "nevus")
    with pytest.raises(UserError, match="not a word of the caption"):
        CaptionTarget.word(captioner, ids, "spo")
    with pytest.raises(UserError, match=r"target\.against"):
        CaptionContrastTarget(captioner, ids, ["Brown"], "brown")
    with pytest.raises(UserError, match=r"target\.against"):
        CaptionContrastTarget(captioner, ids, [], "brown")


@pytest.mark.parametrize(
    ("caption", "phrase"),
    [
        ("scar-like spot, most likely melanocytic nevus.", "melanocytic nevus"),
        ("no sign of melanoma; a nevus sebaceous of Jadassohn is seen", "nevus sebaceous of Jadassohn"),
        ("melanoma was excluded. It is squamous-cell carcinoma in situ", "squamous-cell carcinoma in situ"),
    ],
)
def test_the_diagnosis_is_the_phrase_that_the_lexicon_matched(captioner: Captioner, caption: str, phrase: str) -> None:
    ids = captioner.tokenizer.encode(caption)
    assert CaptionTarget.span(captioner, ids).labels == [f"diagnosis: {phrase}"]
    contrast = CaptionContrastTarget(captioner, ids, ["psoriasis"])
    assert contrast.labels == [f"{phrase}, not psoriasis"]
    assert contrast.alternatives == [caption.replace(phrase, "psoriasis")]


def test_every_phrase_of_the_lexicon_stays_whole() -> None:
    phrases = [phrase for entry in SKIN.diagnoses.values() for phrase in (entry.name, *entry.synonyms)]
    assert len(phrases) >= 273
    for phrase in phrases:
        text = f"a scar-like red spot, most likely {phrase}."
        words = words_of(text, [(place, place + 1) for place in range(len(text))])
        run = diagnosis_words(text, words)
        assert text[run[0].start : run[-1].end] == phrase


def test_a_span_is_found_as_whole_words(captioner: Captioner) -> None:
    ids = captioner.tokenizer.encode("scarred, surrounding red-brown skin is red and round.")
    for asked, place in {
        "red": "red",
        "round": "round",
        "red and round.": "red and round.",
        "RED-brown": "red-brown",
    }.items():
        assert CaptionTarget.span(captioner, ids, asked).labels == [place]
    text = captioner.tokenizer.decode(ids)
    [word] = [one for one in CaptionTarget.words(captioner, ids).caption_words() if one.text == "red"]
    assert word.start == text.index("red and") and CaptionTarget.span(captioner, ids, "red").parts == [word.tokens]
    for part in ("arred", "surround", "brown", "red an"):
        with pytest.raises(UserError, match="whole words"):
            CaptionTarget.span(captioner, ids, part)


def test_an_undecided_caption_has_no_diagnosis_to_explain(captioner: Captioner) -> None:
    ids = captioner.tokenizer.encode("melanoma or nevus")
    with pytest.raises(UserError, match="or several without a conclusion"):
        CaptionTarget.span(captioner, ids)


def test_a_caption_contrast_is_the_difference_of_two_captions(captioner: Captioner, pixels: Tensor) -> None:
    ids = captioner.tokenizer.encode(CAPTION)
    target = CaptionContrastTarget(captioner, ids, ["nevus", "basal cell carcinoma"])
    assert target.labels == ["melanoma, not nevus", "melanoma, not basal cell carcinoma"]
    assert target.alternatives == [
        "a brown lesion with scale, most likely nevus.",
        "a brown lesion with scale, most likely basal cell carcinoma.",
    ]
    read = captioner.read(pixels)
    before = captioner.tokenizer.encode("a brown lesion with scale, most likely")
    assert ids[: len(before)] == before
    said = log_prob(captioner, read, torch.tensor([ids] * 2))
    for row, other in enumerate(("nevus", "basal cell carcinoma")):
        swapped = [*before, *captioner.tokenizer.encode(f" {other}.")]
        expected = said - log_prob(captioner, read, torch.tensor([swapped] * 2))
        assert_close(target.score(read)[:, row], expected)
    assert_close(target.cotangent(read), cotangents_by_loop(target, read))


def test_a_contrast_in_the_middle_counts_what_follows(captioner: Captioner, pixels: Tensor) -> None:
    ids = captioner.tokenizer.encode(CAPTION)
    target = CaptionContrastTarget(captioner, ids, ["red"], "brown")
    assert target.alternatives == ["a red lesion with scale, most likely melanoma."]
    read = captioner.read(pixels)
    swapped = [ids[0], *captioner.tokenizer.encode(" red lesion with scale, most likely melanoma.")]
    expected = log_prob(captioner, read, torch.tensor([ids] * 2)) - log_prob(
        captioner, read, torch.tensor([swapped] * 2)
    )
    assert_close(target.score(read)[:, 0], expected)


def test_a_question_names_its_targets(backbone: OpenClipBackbone, captioner: Captioner) -> None:
    ids = captioner.tokenizer.encode(CAPTION)
    of_a_clip = tuple(name for name in targets if name != "logit")  # which needs a classifier
    question = Question(
        of_a_clip, text="a nevus", against=("a blue lesion",), classes=("nevus", "melanoma"), dimensions=(3, 5)
    )
    asked = {one.name: one for one in targets_of(question, captioner.backbone, captioner, ids)}
    names = ("caption", "caption_contrast", "caption_total", "similarity", "contrast", "class", "embedding_dimension")
    assert tuple(asked) == names
    kinds = (
        CaptionTarget,
        CaptionContrastTarget,
        CaptionTotalTarget,
        SimilarityTarget,
        ContrastTarget,
        ClassTarget,
        EmbeddingDimensionTarget,
    )
    for one, kind in zip(asked.values(), kinds, strict=True):
        assert type(one.target) is kind
        assert len(one.spans) == len(one.target.labels)
    assert asked["caption"].target.labels[-2:] == ["diagnosis: melanoma", "whole caption"]
    assert asked["caption"].spans[-3:] == [(47, 48), None, None]
    assert asked["contrast"].target.labels == ["a nevus", "a blue lesion"]
    assert tuple(targets) == TARGETS


def test_one_word_of_a_caption_knows_its_place(captioner: Captioner) -> None:
    ids = captioner.tokenizer.encode(CAPTION)
    target, spans = caption_parts(captioner, ids, ["caption_word"], word="lesion")
    assert (target.labels, spans) == (["lesion"], [(8, 14)])


def test_without_a_captioner_only_texts_can_be_asked(backbone: OpenClipBackbone) -> None:
    assert needs_captioner(Question(("similarity",))) and not needs_captioner(Question(("class",)))
    with pytest.raises(UserError, match="needs a captioner"):
        targets_of(Question(("caption",)), backbone)
    with pytest.raises(UserError, match="text="):
        targets_of(Question(("similarity",)), backbone)
    with pytest.raises(UserError, match=r"^target\.names=smile: there is no target 'smile'; choose one of caption_"):
        targets_of(Question(("smile",)), backbone)


def test_cotangents_of_words_are_those_of_plain_log_probabilities(captioner: Captioner, pixels: Tensor) -> None:
    """One backward pass a word through the whole vocabulary; the target takes that derivative once."""
    token_ids = captioner.tokenizer.encode(CAPTION)
    target = CaptionTarget.words(captioner, token_ids, whole=True)
    read = captioner.read(pixels).detach()
    scores, cotangents = target.score_and_cotangent(read)
    leaf = read.clone().requires_grad_()
    embeddings = captioner.language_model.transformer.wte(torch.tensor(token_ids)).expand(2, -1, -1)
    log_probs = captioner.caption_logits(captioner.prefix(leaf), embeddings).log_softmax(dim=-1)
    for row, part in enumerate(target.parts):
        expected = sum(log_probs[:, place, token_ids[place]] for place in part)
        (slope,) = torch.autograd.grad(expected.sum(), leaf, retain_graph=True)
        assert_close(scores[:, row], expected.detach())
        assert_close(cotangents[:, row], slope)
