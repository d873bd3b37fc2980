"""Every backbone at full size and random weights: it encodes, traces and is trained against for two steps."""

from __future__ import annotations

import gc

import pytest
import torch

from clip_xai.models.backbones.backbone_builder import build_backbone
from clip_xai.models.backbones.catalogue import CATALOGUE
from clip_xai.models.captioner import Captioner
from clip_xai.models.language_model import build_language_model
from clip_xai.models.mappers import build_mapper
from tests.support.towers import assert_close, pixels_for

PARAMETERS = {  # published counts, in millions
    "dermlip": 149.6, "biomedclip": 195.9, "pubmedclip": 151.3, "monet": 427.6, "openai_b32": 151.3,
    "openai_l14": 427.6, "openai_rn50": 102.0, "openai_rn50x4": 178.3,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [name for name in CATALOGUE if name != "open_clip" and CATALOGUE[name].library is None]
)
def test_a_full_size_backbone_does_all_that_is_asked_of_one(name: str) -> None:
    torch.manual_seed(0)
    backbone = build_backbone(name, CATALOGUE[name].architecture, None)
    if name in PARAMETERS:
        assert sum(p.numel() for p in backbone.parameters()) / 1e6 == pytest.approx(PARAMETERS[name], abs=0.05)
    pixels = pixels_for(backbone, images=1)
    with torch.no_grad():
        features = backbone.features(pixels)
        assert backbone.encode_text(["a photo of melanoma"]).shape == (1, backbone.embed_dim)
    assert features.patches.shape == (1, backbone.grid[0] * backbone.grid[1], backbone.width)
    trace = backbone.trace(pixels, record=(0,), watch=[(-1, "output")])
    assert_close(trace.read.detach(), features.pooled)
    assert trace.gradients(torch.ones(1, 1, backbone.embed_dim), [(-1, "output")])[-1, "output"].abs().max() > 0
    text = backbone.trace_text(backbone.tokenize(["a photo of melanoma"]), record=(-1,))
    assert text.block(-1).output.shape[1] == backbone.tokenize(["a"]).shape[1]

    language_model, tokenizer = build_language_model("tiny", None)
    width = language_model.config.n_embd
    mapper = build_mapper(
        "resampler", embed_dim=backbone.embed_dim, width=backbone.width, embedding_dim=width, prefix_length=4
    )
    captioner = Captioner(backbone, mapper, language_model, tokenizer)
    optimizer = torch.optim.Adam(mapper.parameters(), lr=1e-3)
    ids = captioner.encode_captions(["a brown lesion"])
    losses = []
    for _ in range(3):  # the loss after two steps is seen in a third pass
        loss = captioner.loss(features.patches, ids)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[2] < losses[0]
    assert len(captioner.eval().generate(features.patches)) == 1
    del backbone, captioner
    gc.collect()


@pytest.mark.slow
@pytest.mark.parametrize("size", [384, 448, 512])
def test_dermlip_takes_larger_photographs(size: int) -> None:
    backbone = build_backbone("dermlip", "ViT-B-16", None, image_size=size, text=False)
    with torch.no_grad():
        assert backbone.features(pixels_for(backbone, images=1)).patches.shape == (1, (size // 16) ** 2, 768)
    assert backbone.model.visual.positional_embedding.shape == (197, 768)
