"""Joint terms: the factorised ones against four scores, captions against four scores, and their symmetry."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from clip_xai.errors import UserError
from clip_xai.xai.coalitions import ids_without
from clip_xai.xai.curve_protocols import REMOVALS
from clip_xai.xai.insertion_deletion import ranked
from clip_xai.xai.joint_terms import joint_gain
from clip_xai.xai.perturbation_bank import PerturbationBank
from clip_xai.xai.target import CaptionTarget, ContrastTarget, EmbeddingDimensionTarget, SimilarityTarget
from clip_xai.xai.words import words_of
from tests.xai.conftest import CAPTION

TEXT = "a brown lesion, upper left"
SHARES = (0.25, 0.6)


def picture(pixels: Tensor, places: Tensor) -> Tensor:
    mask = torch.nn.functional.interpolate(places.view(1, 1, 8, 8).float(), size=24, mode="nearest-exact")
    return torch.where(mask > 0.5, pixels, pixels.mean(dim=(2, 3), keepdim=True))


@pytest.mark.parametrize("kind", ["cosine", "dot", "logit"])
def test_four_scores_of_pictures_and_texts_without_parts_give_the_same(backbone, pixels, kind: str) -> None:
    spelled = words_of(TEXT, backbone.token_spans(TEXT))
    generator = torch.Generator().manual_seed(0)
    maps, evidence = torch.randn(2, 8, 8, generator=generator), torch.randn(2, 6, generator=generator)
    for family in (SimilarityTarget, ContrastTarget):
        target = family.from_texts(backbone, ["melanoma", TEXT], kind)
        bank = PerturbationBank(backbone, pixels[:1])
        found = joint_gain(bank, target, 1, maps, list(evidence), shares=SHARES)

        def score(places: Tensor, there: Tensor, target=target) -> float:
            ids = ids_without(backbone, TEXT, spelled, there[None], "delete")
            with torch.no_grad():
                texts = torch.stack([target.text_embeddings[0], backbone.encode_tokens(ids)[0]])
                return float(target.score_of(backbone.encode_image(picture(pixels[:1], places)), texts)[0, 1])

        for number in range(2):
            order, named = ranked(maps, 0)[number].flatten(), ranked(evidence[number].view(1, 1, 6), 0).flatten()
            gain = 0.0
            for share in SHARES:
                several, few = round(64 * share), round(6 * share)
                for sign, places, there in (
                    (1, order < several, named < few), (-1, order >= 64 - several, named >= 6 - few),
                ):  # fmt: skip
                    no_place, no_word = torch.zeros_like(places), torch.zeros_like(there)
                    joint = score(places, there) - score(places, no_word) - score(no_place, there)
                    gain += sign * (joint + score(no_place, no_word)) / len(SHARES)
            assert float(found[number]) == pytest.approx(gain, rel=2e-3, abs=2e-5)


def test_a_captions_words_and_places_against_four_scores(captioner, pixels) -> None:
    target = CaptionTarget.span(captioner, captioner.tokenizer.encode(CAPTION))
    count = len(target.caption_words())
    generator = torch.Generator().manual_seed(1)
    maps, evidence = torch.randn(2, 4, 4, generator=generator), torch.randn(2, count, generator=generator)
    bank = PerturbationBank(captioner.backbone, pixels[:1])
    found = joint_gain(bank, target, 0, maps, list(evidence), shares=(0.5,))
    blank = captioner.language_model.transformer.wte.weight.mean(dim=0)
    units = (8, 8)  # cells of a grid of four are cut in two
    laid = torch.nn.functional.interpolate(maps[:, None].double(), size=(24, 24), mode="bilinear")[:, 0]
    cells = laid.unflatten(1, (8, 3)).unflatten(3, (8, 3)).mean(dim=(2, 4)).float()

    def score(places: Tensor, there: Tensor) -> float:
        read = captioner.read(picture(pixels[:1], places))
        embeddings = target.embeddings(1).clone()
        for word, kept in zip(target.caption_words(), there, strict=True):
            if not kept:
                embeddings[:, list(word.tokens)] = blank
        return float(target.score_of(captioner.prefix(read), embeddings)[0, 0])

    with torch.no_grad():
        for number in range(2):
            order, named = ranked(cells, 0)[number].flatten(), ranked(evidence[number].view(1, 1, -1), 0).flatten()
            assert len(order) == units[0] * units[1]
            half, few = 32, round(count / 2)
            gain = 0.0
            for sign, places, there in ((1, order < half, named < few), (-1, order >= half, named >= count - few)):
                no_place, no_word = torch.zeros_like(places), torch.zeros_like(there)
                joint = score(places, there) - score(places, no_word) - score(no_place, there)
                gain += sign * (joint + score(no_place, no_word))
            assert float(found[number]) == pytest.approx(gain, rel=1e-2, abs=1e-4)


def test_rankings_read_backwards_have_the_negative_gain(backbone, pixels) -> None:
    target = SimilarityTarget.from_texts(backbone, [TEXT])
    maps, words = torch.randn(2, 8, 8), torch.randn(2, 6)
    bank = PerturbationBank(backbone, pixels[:1])
    found = joint_gain(bank, target, 0, torch.cat([maps, -maps]), [*words, *-words], removal=REMOVALS["road"])
    assert torch.allclose(found[:2], -found[2:], atol=1e-6) and (found != 0).all()


def test_what_has_no_words_is_refused(backbone, pixels) -> None:
    bank = PerturbationBank(backbone, pixels[:1])
    with pytest.raises(UserError, match="target=embedding_dimension has no words"):
        joint_gain(bank, EmbeddingDimensionTarget([0]), 0, torch.rand(1, 4, 4), [torch.rand(3)])
    with pytest.raises(UserError, match="a picture without any place"):
        texts = SimilarityTarget.from_texts(backbone, [TEXT])
        joint_gain(bank, texts, 0, torch.rand(1, 4, 4), [torch.rand(6)], removal=REMOVALS["token_drop"])
    with pytest.raises(ValueError, match="evidence of 3 words of a text of 6"):
        joint_gain(bank, SimilarityTarget.from_texts(backbone, [TEXT]), 0, torch.rand(1, 4, 4), [torch.rand(3)])
