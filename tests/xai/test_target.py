from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from clip_xai.errors import UserError
from clip_xai.models.backbones.open_clip_vit import OpenClipBackbone
from clip_xai.models.captioner import Captioner
from clip_xai.xai.target import CaptionTarget, ContrastTarget, SimilarityTarget
from tests.support.captions import log_prob
from tests.xai.conftest import CAPTION, TEXTS, assert_close


def test_cosine_and_its_cotangent_match_the_closed_form(backbone: OpenClipBackbone, pixels: Tensor) -> None:
    target = SimilarityTarget.from_texts(backbone, TEXTS)
    read = backbone.encode_image(pixels)
    texts = F.normalize(backbone.encode_text(TEXTS), dim=-1)
    unit, length = F.normalize(read, dim=-1), read.norm(dim=-1)
    scores, cotangents = target.score_and_cotangent(read)
    assert_close(scores, unit @ texts.T)
    expected = (texts[None] - scores[..., None] * unit[:, None]) / length[:, None, None]
    assert_close(cotangents, expected)


def test_dot_and_logit_scale_the_cosine(backbone: OpenClipBackbone, pixels: Tensor) -> None:
    read = backbone.encode_image(pixels)
    cosine = SimilarityTarget.from_texts(backbone, TEXTS).score(read)
    dot = SimilarityTarget.from_texts(backbone, TEXTS, kind="dot")
    logit = SimilarityTarget.from_texts(backbone, TEXTS, kind="logit")
    assert_close(dot.score(read), cosine * read.norm(dim=-1, keepdim=True))
    assert_close(dot.cotangent(read)[0], F.normalize(backbone.encode_text(TEXTS), dim=-1))
    assert_close(logit.score(read), cosine * backbone.logit_scale)
    assert logit.settings == {"target": "similarity", "kind": "logit", "logit_scale": float(backbone.logit_scale)}


def test_contrast_is_a_text_against_the_mean_of_the_others(backbone: OpenClipBackbone, pixels: Tensor) -> None:
    read = backbone.encode_image(pixels)
    target = ContrastTarget.from_texts(backbone, TEXTS)
    cosine = SimilarityTarget.from_texts(backbone, TEXTS).score(read)
    expected = torch.stack([cosine[:, t] - cosine[:, [u for u in range(3) if u != t]].mean(1) for t in range(3)], dim=1)
    assert_close(target.score(read), expected)
    with pytest.raises(UserError, match="at least two texts"):
        ContrastTarget.from_texts(backbone, TEXTS[:1])


def test_bad_similarities_are_refused(backbone: OpenClipBackbone) -> None:
    embeddings = backbone.encode_text(TEXTS)
    with pytest.raises(ValueError, match="labels"):
        SimilarityTarget(embeddings, TEXTS[:2])
    with pytest.raises(ValueError, match="kind"):
        SimilarityTarget(embeddings, TEXTS, kind="euclid")
    with pytest.raises(ValueError, match="logit_scale"):
        SimilarityTarget(embeddings, TEXTS, kind="logit")


def test_word_scores_and_cotangents_match_a_loop_over_words(captioner: Captioner, pixels: Tensor) -> None:
    ids = captioner.tokenizer.encode(CAPTION)
    target = CaptionTarget.words(captioner, ids, whole=True)
    words = target.caption_words()
    assert target.labels == [
        "a",
        "brown",
        "lesion",
        "with",
        "scale",
        ",",
        "most",
        "likely",
        "melanoma",
        ".",
        "whole caption",
    ]
    read = captioner.read(pixels).detach()
    scores, cotangents = target.score_and_cotangent(read)
    for row, word in enumerate(words):
        leaf = read.clone().requires_grad_()
        log_probs = captioner.token_log_probs(leaf, torch.tensor([ids, ids]))
        chosen = sum(log_probs[:, token] for token in word.tokens)
        chosen.sum().backward()
        assert_close(scores[:, row], chosen.detach())
        assert_close(cotangents[:, row], leaf.grad)


def test_words_add_up_to_the_captions_log_likelihood(captioner: Captioner, pixels: Tensor) -> None:
    ids = captioner.tokenizer.encode(CAPTION)
    target = CaptionTarget.words(captioner, ids, whole=True)
    read = captioner.read(pixels).detach().requires_grad_()
    whole = log_prob(captioner, read, torch.tensor([ids, ids]))
    whole.sum().backward()
    scores, cotangents = target.score_and_cotangent(read)
    assert_close(scores[:, :-1].sum(1), whole.detach())
    assert_close(scores[:, -1], whole.detach())
    assert_close(cotangents[:, :-1].sum(1), read.grad)
    assert_close(cotangents[:, -1], read.grad)


def test_a_caption_is_asked_in_evaluation_mode(captioner: Captioner, pixels: Tensor) -> None:
    target = CaptionTarget.words(captioner, captioner.tokenizer.encode(CAPTION))
    read = captioner.read(pixels).detach()
    expected = target.score(read)
    captioner.train()
    captioner.mapper.eval()
    modes = [part.training for part in captioner.modules()]
    assert torch.equal(target.score(read), expected)  # GPT-2 has dropout of 0.1 in training mode
    assert [part.training for part in captioner.modules()] == modes


def test_an_empty_caption_and_bad_parts_are_refused(captioner: Captioner) -> None:
    with pytest.raises(UserError, match="no words"):
        CaptionTarget.words(captioner, captioner.tokenizer.encode("  "))
    with pytest.raises(ValueError, match="positions"):
        CaptionTarget(captioner, [1, 2], [[2]], ["x"])
