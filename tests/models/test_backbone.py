from __future__ import annotations

from pathlib import Path

import open_clip
import pytest
import torch
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import save_file

from clip_xai.errors import UserError
from clip_xai.models.backbones.backbone_builder import build_backbone
from clip_xai.models.backbones.open_clip_vit import OpenClipBackbone


@torch.no_grad()
def test_features_are_the_towers_own(backbone: OpenClipBackbone) -> None:
    pixels = torch.randn(2, 3, 24, 24)
    backbone.visual.output_tokens = True
    pooled, tokens = backbone.visual(pixels)
    backbone.visual.output_tokens = False
    features = backbone.features(pixels)
    torch.testing.assert_close(features.pooled, pooled)
    torch.testing.assert_close(features.patches, tokens)
    assert features.patches.shape == (2, 9, 32)
    assert backbone.grid == (3, 3)


def test_the_fingerprint_follows_the_weights(backbone: OpenClipBackbone) -> None:
    before = backbone.fingerprint
    del backbone.__dict__["fingerprint"]
    assert backbone.fingerprint == before
    del backbone.__dict__["fingerprint"]
    with torch.no_grad():
        backbone.visual.proj[0, 0] += 1e-3
    assert backbone.fingerprint != before


@torch.no_grad()
def test_an_open_clip_name_at_random_weights_encodes_as_open_clip(tmp_path: Path) -> None:
    backbone = build_backbone("small", "ViT-S-32-alt", None)
    pixels = torch.randn(1, 3, 224, 224)
    torch.testing.assert_close(backbone.encode_image(pixels), backbone.model.encode_image(pixels))
    tokens = SimpleTokenizer()(["a photo of melanoma"])
    torch.testing.assert_close(backbone.encode_text(["a photo of melanoma"]), backbone.model.encode_text(tokens))
    save_file(backbone.model.state_dict(), tmp_path / "weights.safetensors")
    loaded = build_backbone("small", "ViT-S-32-alt", str(tmp_path / "weights.safetensors"))
    assert loaded.fingerprint == backbone.fingerprint
    assert loaded.source == str(tmp_path / "weights.safetensors")


def test_missing_weights_are_named_in_one_line() -> None:
    with pytest.raises(UserError) as error:
        build_backbone("dermlip", "ViT-B-16", "no/such/folder")
    assert "no/such/folder" in str(error.value)
    assert "backbone.pretrained=null" in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_architecture_is_refused() -> None:
    with pytest.raises(UserError, match="no architecture called 'ViT-Z'"):
        build_backbone("mine", "ViT-Z", None)
    assert "ViT-Z" not in open_clip.list_models()
