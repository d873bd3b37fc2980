"""One small model of every family of text towers, its tokenizer, and its library's own way from ids to embeddings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from open_clip.model import CLIP
from torch import Tensor, nn
from transformers import BertConfig, CLIPConfig, CLIPModel, SiglipConfig, SiglipModel

from clip_xai.data.preprocess import Preprocess
from clip_xai.models.backbones.bert import BertText, BertTower, MedClipText
from clip_xai.models.backbones.clip import CLIPBackbone
from clip_xai.models.backbones.huggingface import HuggingFaceClipTextTower, SiglipTextTower
from clip_xai.models.backbones.open_clip_vit import OpenClipTextTower, OpenClipVisionTower
from clip_xai.models.backbones.stand_ins import stand_in_unigram, stand_in_wordpiece
from clip_xai.models.backbones.text_tokenizers import ByteLevelClipTokenizer, PublishedTokenizer, TextTokenizer
from clip_xai.models.backbones.transformer import TextTower
from clip_xai.models.tokenizer import CaptionTokenizer
from tests.support.tower_families import CLIP_CONFIG, embedding_of
from tests.support.towers import shaken

WORDS, LENGTH = 400, 16
VISION = {"image_size": 24, "patch_size": 6, "width": 32, "layers": 2, "head_width": 8}
MARKED_CLIP = {
    **CLIP_CONFIG,
    "text_config": {
        **CLIP_CONFIG["text_config"],  # type: ignore[dict-item]
        "vocab_size": WORDS, "max_position_embeddings": LENGTH, "bos_token_id": 2, "eos_token_id": 3,
    },
}  # fmt: skip


@dataclass
class TextFamily:
    """A backbone whose texts are of one family.

    Attributes:
        backbone: What explainers get.
        words: The library's layer of token embeddings.
        embed: The library's own forward pass, ids to embeddings.
    """

    backbone: CLIPBackbone
    words: nn.Module
    embed: Callable[[Tensor], Tensor]


def wordpieces() -> TextTokenizer:
    return PublishedTokenizer(stand_in_wordpiece(WORDS), LENGTH, 0, 1, "stand-in")


def bert_config() -> BertConfig:
    return BertConfig(
        vocab_size=WORDS, hidden_size=24, num_hidden_layers=3, num_attention_heads=2, intermediate_size=48,
        max_position_embeddings=LENGTH,
    )  # fmt: skip


def open_clip_family() -> TextFamily:
    texts = ["a pink papule", "melanoma of the arm", "brown scale"]
    tokenizer = CaptionTokenizer.train(texts * 3, 290)
    tokens, model = ByteLevelClipTokenizer(tokenizer, LENGTH), _open_clip(tokenizer.vocabulary_size)
    return _family(model, OpenClipTextTower(model), tokens, model.token_embedding, model.encode_text)


def bert_family(pooling: str) -> TextFamily:
    text = shaken(BertText(bert_config(), 16, pooling, "mlp" if pooling == "class" else "linear"))
    return _family(text, BertTower(text, LENGTH), wordpieces(), text.transformer.embeddings.word_embeddings)


def medclip_family() -> TextFamily:
    text = shaken(MedClipText(bert_config(), 16))
    return _family(text, BertTower(text, LENGTH), wordpieces(), text.model.embeddings.word_embeddings)


def clip_family() -> TextFamily:
    model = shaken(CLIPModel(CLIPConfig(**MARKED_CLIP)))
    embedding = model.text_model.embeddings.token_embedding
    embed = lambda ids: embedding_of(model.get_text_features(ids))  # noqa: E731
    return _family(model, HuggingFaceClipTextTower(model), wordpieces(), embedding, embed)


def siglip_family() -> TextFamily:
    """No marker stands in front of a text: its first token is at 0."""
    text = {
        **CLIP_CONFIG["text_config"],  # type: ignore[dict-item]
        "vocab_size": WORDS, "max_position_embeddings": LENGTH, "projection_size": 16, "eos_token_id": 1,
    }  # fmt: skip
    model = shaken(SiglipModel(SiglipConfig(vision_config=CLIP_CONFIG["vision_config"], text_config=text)))
    tokens = PublishedTokenizer(stand_in_unigram(WORDS), LENGTH, 1, 0, "stand-in")
    embedding = model.text_model.embeddings.token_embedding
    embed = lambda ids: embedding_of(model.get_text_features(ids))  # noqa: E731
    return _family(model, SiglipTextTower(model), tokens, embedding, embed)


TEXT_FAMILIES: dict[str, Callable[[], TextFamily]] = {
    "open_clip": open_clip_family,
    "bert-class": lambda: bert_family("class"),
    "bert-mean": lambda: bert_family("mean"),
    "medclip": medclip_family,
    "clip": clip_family,
    "siglip": siglip_family,
}


class Both(nn.Module):
    """An image tower and a text tower of any libraries."""

    def __init__(self, visual: nn.Module, text: nn.Module) -> None:
        super().__init__()
        self.visual, self.text = visual, text
        self.logit_scale = nn.Parameter(torch.tensor(1.0))


def _family(
    module: nn.Module, tower: TextTower, tokens: TextTokenizer, words: nn.Module, embed: Callable | None = None
) -> TextFamily:
    visual = _open_clip(16).visual
    model: Any = Both(visual, module)
    image = OpenClipVisionTower(visual)
    backbone = CLIPBackbone(model, image, tower, tokens, Preprocess(image_size=24), "family").eval()
    return TextFamily(backbone.requires_grad_(False), words, tower.encode if embed is None else embed)


def _open_clip(vocabulary: int) -> Any:
    text = {"context_length": LENGTH, "vocab_size": vocabulary, "width": 16, "heads": 2, "layers": 3}
    return shaken(CLIP(embed_dim=16, vision_cfg=VISION, text_cfg=text))
