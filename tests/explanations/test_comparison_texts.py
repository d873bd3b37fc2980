"""The scale of a similarity: its rank among other texts."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from clip_xai.data.vocabulary import load_vocabulary
from clip_xai.explanations.comparison_texts import ComparisonTexts
from clip_xai.models.backbones.backbone_builder import build_backbone
from clip_xai.xai.targets.similarity import SimilarityTarget


@pytest.mark.parametrize("kind", ["cosine", "logit"])
def test_the_rank_is_that_of_sorting_all_scores(kind: str) -> None:
    backbone = build_backbone("tiny", "tiny", "embedded:tiny").eval()
    known = ["melanoma", "psoriasis", "eczema", "melanocytic nevus"]
    skin = load_vocabulary("skin")
    few = replace(skin, diagnoses={name: skin.diagnoses[name] for name in known})
    texts = ComparisonTexts(backbone, few)
    torch.manual_seed(0)
    image = torch.randn(1, backbone.embed_dim)
    asked = ["a photo of eczema", "a fog over the sea"]
    said = texts.contexts(image, SimilarityTarget.from_texts(backbone, asked, kind))
    with torch.no_grad():
        every = [f"a photo of {name}" for name in known]
        cosines = {text: float(F.cosine_similarity(image, backbone.encode_text([text]))) for text in {*every, *asked}}
    scale = float(backbone.logit_scale) if kind == "logit" else 1.0
    for text, sentence in zip(asked, said, strict=True):
        among = sorted({*every, text}, key=lambda one: -cosines[one])
        assert sentence.startswith(f"Rank {among.index(text) + 1} of {len(among)} ")
        low, high = (f"{scale * pick(cosines[one] for one in every):.3g}".replace("-", "−") for pick in (min, max))
        assert sentence.endswith(f"whose {kind} spans {low} to {high}.")
