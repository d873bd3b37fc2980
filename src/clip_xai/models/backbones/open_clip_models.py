"""Models in open_clip's format: its own architectures, BiomedCLIP, and DermLIP with PanDerm."""

from __future__ import annotations

import copy
import math
from typing import Any

import open_clip
import torch
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from torch import nn
from transformers import BertConfig

from clip_xai.errors import UserError
from clip_xai.models.backbones.bert import BertText, BertTower
from clip_xai.models.backbones.network_towers import timm_tower
from clip_xai.models.backbones.open_clip_vit import OpenClipTextTower, OpenClipVisionTower
from clip_xai.models.backbones.panderm import PanDermTower, PanDermVisionTransformer
from clip_xai.models.backbones.resnet import ResNetTower
from clip_xai.models.backbones.tower import ImageTower
from clip_xai.models.backbones.transformer import TextTower
from clip_xai.private_api import open_clip_text_tower, open_clip_vision_tower

_PUBMEDBERT = {
    "hf_model_name": "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract",
    "hf_tokenizer_name": "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract",
    "hf_proj_type": "mlp",
    "hf_pooler_type": "cls_last_hidden_state_pooler",
    "context_length": 256,
}
OWN_CONFIGS: dict[str, dict[str, Any]] = {
    "BiomedCLIP": {
        "embed_dim": 512,
        "vision_cfg": {"timm_model_name": "vit_base_patch16_224", "timm_pool": "", "timm_proj": "linear"},
        "text_cfg": _PUBMEDBERT,
    },
    "PanDerm-base-w-PubMed-256": {
        "embed_dim": 512,
        "vision_cfg": {"pretrain_path": None, "image_size": 224, "layers": 12, "width": 768, "patch_size": 16},
        "text_cfg": {
            "hf_model_name": "neuml/pubmedbert-base-embeddings",
            "hf_tokenizer_name": "neuml/pubmedbert-base-embeddings",
            "hf_pooler_type": "mean_pooler",
            "context_length": 256,
        },
    },
}
# BERT's sizes are BertConfig's defaults; of these encoders only the vocabulary needs naming.
BERT_VOCABULARIES = {"pubmedbert": 30_522, "biomedbert": 30_522, "bio_clinicalbert": 28_996}
POOLERS = {"mean_pooler": "mean", "cls_last_hidden_state_pooler": "class"}
# Of the text side: keys of an open_clip.CLIP, of a model with a text tower of its own, and BERT's unused pooling layer.
TEXT_KEYS = (
    *("transformer.", "token_embedding.", "positional_embedding", "ln_final.", "text_projection"),
    *("text.", "text_decoder.", "logit_bias"),
)
UNUSED_KEYS = ("text.transformer.pooler.", "text_decoder.")


class DualEncoder(nn.Module):
    """An image tower, a text tower if it was asked for, and the temperature, under open_clip's names."""

    def __init__(self, visual: nn.Module, text: nn.Module | None, logit_scale: float = math.log(1 / 0.07)) -> None:
        super().__init__()
        self.visual = visual
        self.text = text
        self.logit_scale = nn.Parameter(torch.tensor(logit_scale))


def config_of(architecture: str, name: str) -> dict[str, Any]:
    """Return an architecture's configuration in open_clip's format.

    Raises:
        UserError: Nobody knows it.
    """
    if architecture in OWN_CONFIGS:
        return copy.deepcopy(OWN_CONFIGS[architecture])
    if architecture not in open_clip.list_models():
        raise UserError(
            f"backbone {name}: open_clip has no architecture called {architecture!r}; one of your own needs a folder "
            "with its open_clip_config.json (model_cfg, preprocess_cfg) beside the weights: set "
            "backbone.pretrained=FOLDER"
        )
    config: dict[str, Any] | None = open_clip.get_model_config(architecture)
    if config is None:
        raise UserError(f"backbone {name}: open_clip has no architecture called {architecture!r}")
    return config


def build_model(config: dict[str, Any], text: bool, name: str) -> nn.Module:
    """Build a model at random weights.

    Args:
        config: ``embed_dim``, ``vision_cfg``, ``text_cfg`` and, if need be, ``quick_gelu`` and the like.
        text: Whether to build the text tower.
        name: The backbone's name, for errors.

    Raises:
        UserError: The text tower is of a kind that is not known here.
    """
    text_cfg, quick_gelu = config["text_cfg"], bool(config.get("quick_gelu", False))
    custom = config.get("custom_text", False) or "pretrain_path" in config["vision_cfg"]
    plain = not custom and "hf_model_name" not in text_cfg and "multimodal_cfg" not in config
    if plain and text:
        known = {key: config[key] for key in ("init_logit_scale", "init_logit_bias") if key in config}
        return open_clip.CLIP(config["embed_dim"], config["vision_cfg"], text_cfg, quick_gelu, **known)
    tower = _text(config, quick_gelu, name) if text else None
    model = DualEncoder(_vision(config, quick_gelu), tower, config.get("init_logit_scale", math.log(1 / 0.07)))
    if text and config.get("init_logit_bias") is not None:
        model.logit_bias = nn.Parameter(torch.tensor(float(config["init_logit_bias"])))
    return model


def towers_of(model: Any, image_size: int | None) -> tuple[ImageTower, TextTower | None]:
    """Return the adapters of a model's towers.

    Raises:
        UserError: The image tower is of a kind that is not known here.
    """
    return _image_tower(model.visual, image_size), _text_tower(model)


def _vision(config: dict[str, Any], quick_gelu: bool) -> nn.Module:
    vision, embed_dim = config["vision_cfg"], config["embed_dim"]
    if "pretrain_path" not in vision:
        return open_clip_vision_tower(embed_dim, vision, quick_gelu)
    sizes = {key: vision[key] for key in ("image_size", "patch_size", "width", "layers") if key in vision}
    return PanDermVisionTransformer(**sizes, heads=vision["width"] // vision.get("head_width", 64), embed_dim=embed_dim)


def _text(config: dict[str, Any], quick_gelu: bool, name: str) -> nn.Module:
    text, embed_dim = config["text_cfg"], config["embed_dim"]
    if "hf_model_name" not in text:
        return open_clip_text_tower(embed_dim, text, quick_gelu)
    encoder, pooler = str(text["hf_model_name"]), text.get("hf_pooler_type", "mean_pooler")
    sizes = text.get("hf_model_cfg")
    if sizes is None:
        size = next((n for key, n in BERT_VOCABULARIES.items() if key in encoder.lower()), None)
        sizes = None if size is None else {"vocab_size": size}
    if sizes is None or pooler not in POOLERS:
        raise UserError(
            f"backbone {name}: the text encoder {encoder} is not supported: leave it out with backbone.text=false"
        )
    projection, context_length = text.get("hf_proj_type", "mlp"), int(text.get("context_length", 77))
    return BertText(BertConfig(**sizes), embed_dim, POOLERS[pooler], projection, context_length)


def _image_tower(visual: nn.Module, image_size: int | None) -> ImageTower:
    if isinstance(visual, VisionTransformer):
        return OpenClipVisionTower(visual, image_size)
    if isinstance(visual, ModifiedResNet):
        return ResNetTower(visual, image_size)
    if isinstance(visual, PanDermVisionTransformer):
        return PanDermTower(visual, image_size)
    if isinstance(visual, TimmModel):
        return timm_tower(visual, image_size)
    raise UserError(f"an image tower of type {type(visual).__name__} is not supported: choose another architecture")


def _text_tower(model: Any) -> TextTower | None:
    if isinstance(model, open_clip.CLIP):
        return OpenClipTextTower(model)
    text = model.text
    if text is None:
        return None
    return BertTower(text, text.context_length) if isinstance(text, BertText) else OpenClipTextTower(text)
