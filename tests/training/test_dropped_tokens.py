"""A tower that was tuned to patches left out is nearer to the embeddings of whole pictures; the original stays."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from clip_xai.data.preprocess import Preprocess
from clip_xai.errors import UserError
from clip_xai.models.backbones.base import VisionBackbone
from clip_xai.training.dropped_tokens import tuned_to_dropped_tokens
from clip_xai.xai.examples import example
from clip_xai.xai.f_fidelity import f_fidelity
from clip_xai.xai.perturbation_bank import PerturbationBank
from tests.support.tower_families import build_resnet
from tests.support.towers import shaken


def test_embeddings_of_parts_come_nearer_to_those_of_whole_pictures() -> None:
    backbone, _, target = example()
    shaken(backbone.model)
    with torch.no_grad():
        for value in backbone.parameters():  # so that patches matter to it
            value.mul_(2.0)
    before = [value.clone() for value in backbone.state_dict().values()]
    pictures = list(torch.randn(6, 3, 24, 24, generator=torch.Generator().manual_seed(0))) * 2
    # Noise has nothing in common to be learned, so that those held out are the very ones that it learns by heart.
    settings = {"share": 0.3, "steps": 100, "batch_size": 16, "learning_rate": 3e-3, "held_out": 6}
    found = tuned_to_dropped_tokens(backbone, pictures, **settings)
    assert found.after < 0.3 * found.before
    assert all(torch.equal(one, other) for one, other in zip(before, backbone.state_dict().values(), strict=True))
    assert all(not value.requires_grad for value in found.backbone.parameters())
    assert found.backbone.fingerprint != backbone.fingerprint and not found.backbone.training
    again = tuned_to_dropped_tokens(backbone, pictures, **settings)
    assert again.backbone.fingerprint == found.backbone.fingerprint
    bank = PerturbationBank(found.backbone, pictures[0][None])
    assert torch.isfinite(f_fidelity(bank, target, torch.rand(2, 4, 4), draws=3, sizes=4).gain()).all()


def test_what_cannot_be_tuned_says_so() -> None:
    tower, _ = build_resnet()
    backbone = VisionBackbone(nn.Identity(), tower, Preprocess(image_size=tower.image_size), "resnet")
    with pytest.raises(UserError, match="resnet is not a ViT that is read at a class token"):
        tuned_to_dropped_tokens(backbone, [])
    with pytest.raises(UserError, match="no picture to fine-tune on"):
        tuned_to_dropped_tokens(example()[0], [torch.zeros(3, 24, 24)], held_out=1)
