"""A captioner of a few thousand weights and photographs that fit it, for tests of a second."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import GPT2Config, GPT2LMHeadModel

from clip_xai.data.record import Record
from clip_xai.models.backbones.backbone_builder import BackboneSource, tiny_backbone
from clip_xai.models.captioner import Captioner
from clip_xai.models.mappers import build_mapper
from clip_xai.models.tokenizer import CaptionTokenizer
from clip_xai.models.weights import CaptionerSettings

CLIP = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 24, "patch_size": 8, "width": 32, "layers": 2, "head_width": 8},
    "text_cfg": {"context_length": 24, "vocab_size": 0, "width": 16, "heads": 2, "layers": 2},
}
COLOURS = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200), "black": (5, 5, 5)}
SETTINGS = CaptionerSettings(
    backbone=BackboneSource("small", "tiny", None), mapper="resampler", language_model_pretrained=None
)


def small_captioner(reads: str = "tokens", seed: int = 0) -> Captioner:
    """Real architectures at random weights; dropout in the language model, so that its seeding matters."""
    torch.manual_seed(seed)
    tokenizer = CaptionTokenizer.train([f"a {name} spot, a spot of {name}" for name in COLOURS] * 3, 280)
    text = {**CLIP["text_cfg"], "vocab_size": tokenizer.vocabulary_size}  # type: ignore[dict-item]
    backbone = tiny_backbone({**CLIP, "text_cfg": text}, tokenizer).eval()
    config = GPT2Config(
        vocab_size=tokenizer.vocabulary_size, n_positions=64, n_embd=32, n_layer=3, n_head=2,
        bos_token_id=tokenizer.eos_id, eos_token_id=tokenizer.eos_id, pad_token_id=tokenizer.eos_id,
    )  # fmt: skip
    settings = {"prefix_length": 4, "head_width": 16} if reads == "tokens" else {"prefix_length": 4, "hidden": 16}
    name = "resampler" if reads == "tokens" else "bottleneck_mlp"
    mapper = build_mapper(name, embed_dim=16, width=32, embedding_dim=32, dropout=0.1, **settings)
    return Captioner(backbone, mapper, GPT2LMHeadModel(config), tokenizer).eval()


def captioner_of_phrases() -> Captioner:
    """Random weights, far from uniform, behind a tokenizer in whose tokens phrases share beginnings."""
    torch.manual_seed(0)
    caption = "A small red lesion in the centre left with streaks. This is most likely melanoma."
    tokenizer = CaptionTokenizer.train([caption, "centre centre left red reddish scale scaly ring melanoma"] * 4, 290)
    config = GPT2Config(
        vocab_size=tokenizer.vocabulary_size, n_positions=128, n_embd=32, n_layer=2, n_head=2,
        bos_token_id=tokenizer.eos_id, eos_token_id=tokenizer.eos_id, pad_token_id=tokenizer.eos_id,
    )  # fmt: skip
    mapper = build_mapper("resampler", embed_dim=16, width=32, embedding_dim=32, prefix_length=4, head_width=16)
    model = GPT2LMHeadModel(config)
    for parameter in model.parameters():
        parameter.data *= 2
    return Captioner(small_captioner().backbone, mapper, model, tokenizer).eval()


@pytest.fixture
def records(tmp_path: Path) -> list[Record]:
    """Twelve photographs of two sources, each with two references."""
    made = []
    for index in range(12):
        name, colour = list(COLOURS.items())[index % 4]
        noise = np.random.default_rng(index).integers(0, 40, (30, 40, 3))
        image = tmp_path / f"{index}.png"
        Image.fromarray((np.array(colour) + noise).clip(0, 255).astype(np.uint8)).save(image)
        references = (f"a {name} spot", f"a spot of {name}")
        source = "skincap" if index < 6 else "ham10000"
        made.append(Record(image, source, image.name, str(index), None, None, references[0], references))
    return made
