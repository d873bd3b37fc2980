"""Models in transformers' format (CLIP, SigLIP), and MedCLIP, whose towers are transformers' Swin and BERT."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    BertConfig,
    CLIPConfig,
    CLIPModel,
    CLIPVisionModelWithProjection,
    SiglipConfig,
    SiglipModel,
    SiglipVisionModel,
    SwinConfig,
    SwinModel,
)

from clip_xai.models.backbones.bert import BertTower, MedClipText
from clip_xai.models.backbones.huggingface import (
    HuggingFaceClipTextTower,
    HuggingFaceClipTower,
    SiglipTextTower,
    SiglipTower,
)
from clip_xai.models.backbones.swin import MedClipVision, SwinTower
from clip_xai.models.backbones.tower import ImageTower
from clip_xai.models.backbones.transformer import TextTower

Towers = tuple[ImageTower, TextTower | None]

CLIP_B32: dict[str, Any] = {
    "projection_dim": 512,
    "vision_config": {"patch_size": 32},
    "text_config": {},
}
CLIP_L14: dict[str, Any] = {
    "projection_dim": 768,
    "vision_config": {
        "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
        "patch_size": 14,
    },
    "text_config": {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12},
}  # fmt: skip
_SO400M = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16}
SIGLIP_SO400M: dict[str, Any] = {
    "vision_config": {**_SO400M, "image_size": 448, "patch_size": 14},
    "text_config": {
        **_SO400M, "vocab_size": 32_000, "max_position_embeddings": 64, "projection_size": 1152,
        "bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 1,
    },
}  # fmt: skip
MEDCLIP: dict[str, Any] = {
    "projection_dim": 512,
    "vision_config": {},  # SwinConfig's defaults are Swin-Tiny
    "text_config": {"vocab_size": 28_996, "context_length": 77},
}


@dataclass(frozen=True)
class Kind:
    """One kind of model.

    Attributes:
        config: Its configuration where no ``config.json`` says otherwise.
        build: Makes it of a configuration at random weights, with or without the text tower.
        towers: The adapters of its towers, for an image size.
        tokenizer: ``"clip"``, ``"wordpiece"`` or ``"unigram"``.
        unused: Beginnings of the keys of the text side.
        family: Kinds of one family differ in their configuration alone.
        published_tokenizer: Where the tokenizer is published if not beside the weights.
        renamed: Brings the names of published weights to those of the installed library.
    """

    config: dict[str, Any]
    build: Callable[[dict[str, Any], bool], nn.Module]
    towers: Callable[[Any, int | None], Towers]
    tokenizer: str
    unused: tuple[str, ...]
    family: str
    published_tokenizer: str | None = None
    renamed: Callable[[dict[str, Tensor], nn.Module], dict[str, Tensor]] = lambda state, model: state


class MedClip(nn.Module):
    """MedCLIP's two towers and temperature under the names of the medclip package."""

    def __init__(self, config: dict[str, Any], text: bool) -> None:
        super().__init__()
        embed_dim = config["projection_dim"]
        self.vision_model = MedClipVision(SwinModel(SwinConfig(**config["vision_config"])), embed_dim)
        self.text_model: MedClipText | None = None
        if text:
            sizes = {key: value for key, value in config["text_config"].items() if key != "context_length"}
            self.text_model = MedClipText(BertConfig(**sizes), embed_dim)
        self.context_length = int(config["text_config"].get("context_length", 77))
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))


def _clip(config: dict[str, Any], text: bool) -> nn.Module:
    whole: Any = CLIPConfig.from_dict(copy.deepcopy(config))
    if text:
        return CLIPModel(whole)
    vision = whole.vision_config
    vision.projection_dim = whole.projection_dim
    model: Any = CLIPVisionModelWithProjection(vision)
    model.logit_scale = nn.Parameter(torch.tensor(float(whole.logit_scale_init_value)))
    return model


def _clip_towers(model: Any, image_size: int | None) -> Towers:
    text = HuggingFaceClipTextTower(model) if hasattr(model, "text_model") else None
    return HuggingFaceClipTower(model, image_size), text


def _siglip(config: dict[str, Any], text: bool) -> nn.Module:
    whole: Any = SiglipConfig.from_dict(copy.deepcopy(config))
    if text:
        return SiglipModel(whole)
    return SiglipImageSide(SiglipVisionModel(whole.vision_config))


class SiglipImageSide(nn.Module):
    """SigLIP's image tower and temperature under the names of the whole model."""

    def __init__(self, vision_model: SiglipVisionModel) -> None:
        super().__init__()
        # Older releases of the library hold the tower one level deeper.
        self.vision_model = getattr(vision_model, "vision_model", vision_model)
        self.logit_scale, self.logit_bias = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))


def _siglip_towers(model: Any, image_size: int | None) -> Towers:
    text = SiglipTextTower(model) if hasattr(model, "text_model") else None
    return SiglipTower(model, image_size), text


def _medclip_towers(model: Any, image_size: int | None) -> Towers:
    text = None if model.text_model is None else BertTower(model.text_model, model.context_length)
    return SwinTower(model.vision_model, image_size), text


SWIN_NAMES = (
    ("attention.self.query", "attention.q_proj"),
    ("attention.self.key", "attention.k_proj"),
    ("attention.self.value", "attention.v_proj"),
    ("attention.self.relative_position_bias_table", "attention.relative_position_bias.relative_position_bias_table"),
    ("attention.output.dense", "attention.o_proj"),
    ("intermediate.dense", "mlp.fc1"),
    ("output.dense", "mlp.fc2"),
)


def _medclip_renamed(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Bring Swin's older names to those of the installed library, where it has newer ones."""
    own, renamed = model.state_dict(), {}
    for key, value in state.items():
        if key.startswith("vision_model.") and key not in own:
            for old, new in SWIN_NAMES:
                key = key.replace(old, new)
        renamed[key] = value
    return renamed


_CLIP_TEXT, _MEDCLIP_TEXT = ("text_model.", "text_projection."), ("text_model.",)
HF_FAMILIES = {"clip": "hf-clip", "siglip": "hf-siglip"}  # by the model_type of a config.json
KINDS: dict[str, Kind] = {
    "hf-clip": Kind(CLIP_B32, _clip, _clip_towers, "clip", _CLIP_TEXT, "hf-clip"),
    "hf-siglip": Kind(SIGLIP_SO400M, _siglip, _siglip_towers, "unigram", _CLIP_TEXT, "hf-siglip"),
    "hf-clip-vit-base-patch32": Kind(CLIP_B32, _clip, _clip_towers, "clip", _CLIP_TEXT, "hf-clip"),
    "hf-clip-vit-large-patch14": Kind(CLIP_L14, _clip, _clip_towers, "clip", _CLIP_TEXT, "hf-clip"),
    "hf-siglip-so400m-patch14-448": Kind(SIGLIP_SO400M, _siglip, _siglip_towers, "unigram", _CLIP_TEXT, "hf-siglip"),
    "medclip-swin-tiny": Kind(
        MEDCLIP,
        MedClip,
        _medclip_towers,
        "wordpiece",
        _MEDCLIP_TEXT,
        "medclip",
        published_tokenizer="emilyalsentzer/Bio_ClinicalBERT",
        renamed=_medclip_renamed,
    ),
}
