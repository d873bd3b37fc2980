"""One small tower of every family, image and text, beside its own library's forward pass."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from open_clip.timm_model import TimmModel
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from transformers import (
    BertConfig,
    CLIPConfig,
    CLIPModel,
    SiglipConfig,
    SiglipModel,
    SwinConfig,
    SwinModel,
)

from clip_xai.models.backbones.bert import BertText, BertTower, MedClipText
from clip_xai.models.backbones.huggingface import (
    HuggingFaceClipTextTower,
    HuggingFaceClipTower,
    SiglipTextTower,
    SiglipTower,
)
from clip_xai.models.backbones.panderm import PanDermTower, PanDermVisionTransformer
from clip_xai.models.backbones.resnet import ResNetTower
from clip_xai.models.backbones.swin import MedClipVision, SwinTower
from clip_xai.models.backbones.timm_vit import TimmVisionTower
from clip_xai.models.backbones.tower import ImageTower
from clip_xai.models.backbones.transformer import TextTower
from tests.support.towers import shaken

Oracle = Callable[[Tensor], Tensor]


def timm_tower(**settings: object) -> TimmModel:
    visual = TimmModel("vit_tiny_patch16_224", embed_dim=16, image_size=24, pool="", proj="linear")
    sizes = {"img_size": 24, "patch_size": 6, "embed_dim": 32, "depth": 3, "num_heads": 4, "num_classes": 0}
    visual.trunk = VisionTransformer(**{**sizes, **settings})  # type: ignore[arg-type]
    visual.head = nn.Sequential()
    visual.head.add_module("proj", nn.Linear(32, 16, bias=False))
    return visual


def build_timm() -> tuple[ImageTower, Oracle]:
    visual = shaken(timm_tower(init_values=0.5))
    return TimmVisionTower(visual), visual


def build_timm_mean() -> tuple[ImageTower, Oracle]:
    visual = shaken(timm_tower(global_pool="avg", reg_tokens=2, no_embed_class=True))
    return TimmVisionTower(visual), visual


def build_timm_attention_pool() -> tuple[ImageTower, Oracle]:
    visual = shaken(timm_tower(global_pool="map", class_token=False, qk_norm=True))
    return TimmVisionTower(visual), visual


CLIP_CONFIG = {
    "projection_dim": 16,
    "vision_config": {
        "image_size": 24, "patch_size": 6, "hidden_size": 32, "intermediate_size": 64,
        "num_hidden_layers": 3, "num_attention_heads": 4,
    },
    "text_config": {
        "vocab_size": 40, "max_position_embeddings": 12, "hidden_size": 24, "intermediate_size": 48,
        "num_hidden_layers": 3, "num_attention_heads": 2, "eos_token_id": 39, "bos_token_id": 38, "pad_token_id": 0,
    },
}  # fmt: skip


def clip() -> CLIPModel:
    return shaken(CLIPModel(CLIPConfig(**CLIP_CONFIG)))


def siglip() -> SiglipModel:
    text = {**CLIP_CONFIG["text_config"], "projection_size": 32}  # type: ignore[dict-item]
    vision = {**CLIP_CONFIG["vision_config"], "vision_use_head": True}  # type: ignore[dict-item]
    return shaken(SiglipModel(SiglipConfig(vision_config=vision, text_config=text)))


def embedding_of(output: object) -> Tensor:
    return getattr(output, "pooler_output", output)  # type: ignore[return-value]


def build_clip() -> tuple[ImageTower, Oracle]:
    model = clip()
    return HuggingFaceClipTower(model), lambda pixels: embedding_of(model.get_image_features(pixels))


def build_siglip() -> tuple[ImageTower, Oracle]:
    model = siglip()
    return SiglipTower(model), lambda pixels: embedding_of(model.get_image_features(pixels))


def build_panderm() -> tuple[ImageTower, Oracle]:
    visual = shaken(PanDermVisionTransformer(24, 6, width=32, layers=3, heads=4, embed_dim=16))
    return PanDermTower(visual), lambda pixels: panderm_by_hand(visual.state_dict(), pixels, heads=4)


def build_resnet() -> tuple[ImageTower, Oracle]:
    vision = {"image_size": 64, "layers": [2, 1, 1, 1], "width": 8, "head_width": 32}
    text = {"context_length": 8, "vocab_size": 16, "width": 16, "heads": 2, "layers": 1}
    model = shaken(CLIP(embed_dim=16, vision_cfg=vision, text_cfg=text))
    return ResNetTower(model.visual), model.visual


def build_swin() -> tuple[ImageTower, Oracle]:
    config = SwinConfig(image_size=64, patch_size=4, embed_dim=16, depths=[2, 2, 2], num_heads=[2, 2, 4], window_size=4)
    module = shaken(MedClipVision(SwinModel(config), 16))
    return SwinTower(module), lambda pixels: module.projection_head(module.model(pixels).pooler_output)


TRANSFORMERS = [build_timm, build_timm_mean, build_timm_attention_pool, build_clip, build_siglip, build_panderm]


STAGED = [build_resnet, build_swin]


def panderm_by_hand(weights: dict[str, Tensor], pixels: Tensor, heads: int) -> Tensor:
    """The tower once more, from its description alone: one image, one head, one query at a time."""

    def norm(x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    kernel = weights["patch_embed.proj.weight"]
    side = kernel.shape[-1]
    embeddings = []
    for image in pixels:
        cells = [
            (kernel * image[:, top : top + side, left : left + side]).sum((1, 2, 3)) + weights["patch_embed.proj.bias"]
            for top in range(0, image.shape[1], side)
            for left in range(0, image.shape[2], side)
        ]
        tokens = torch.stack([weights["cls_token"][0, 0], *cells]) + weights["pos_embed"][0]
        for block in range(3):
            name = f"blocks.{block}"
            normed = norm(tokens, f"{name}.norm1")
            qkv = normed @ weights[f"{name}.attn.qkv.weight"].T
            query, key, value = qkv.chunk(3, dim=-1)
            query, value = query + weights[f"{name}.attn.q_bias"], value + weights[f"{name}.attn.v_bias"]
            width = query.shape[-1] // heads
            rows = []
            for row in range(len(tokens)):
                parts = []
                for head in range(heads):
                    own = slice(head * width, (head + 1) * width)
                    scores = torch.stack([query[row, own] @ other for other in key[:, own]]) / width**0.5
                    parts.append(scores.softmax(0) @ value[:, own])
                rows.append(torch.cat(parts))
            tokens = tokens + weights[f"{name}.gamma_1"] * linear(torch.stack(rows), f"{name}.attn.proj")
            hidden = F.gelu(linear(norm(tokens, f"{name}.norm2"), f"{name}.mlp.fc1"))
            tokens = tokens + weights[f"{name}.gamma_2"] * linear(hidden, f"{name}.mlp.fc2")
        mean = norm(tokens, "norm")[1:].mean(0)
        embeddings.append(linear(norm(mean, "norm"), "head"))
    return torch.stack(embeddings)


def token_ids(marker: int = 39) -> Tensor:
    ids = torch.randint(3, 38, (3, 12), generator=torch.Generator().manual_seed(0))
    for row, length in zip(ids, (4, 9, 12), strict=True):
        row[length - 1] = marker
        row[length:] = 0
    return ids


def bert_config() -> BertConfig:
    return BertConfig(
        vocab_size=40, hidden_size=24, num_hidden_layers=3, num_attention_heads=2, intermediate_size=48,
        max_position_embeddings=16,
    )  # fmt: skip


def build_bert(pooling: str) -> tuple[TextTower, Oracle]:
    module = shaken(BertText(bert_config(), 16, pooling, "mlp" if pooling == "class" else "linear"))

    def oracle(ids: Tensor) -> Tensor:
        rows = [module.transformer(row[row != 0][None]).last_hidden_state[0] for row in ids]
        return module.proj(torch.stack([row[0] if pooling == "class" else row.mean(0) for row in rows]))

    return BertTower(module, 12), oracle


def build_medclip_text() -> tuple[TextTower, Oracle]:
    module = shaken(MedClipText(bert_config(), 16))

    def oracle(ids: Tensor) -> Tensor:
        rows = []
        for row in ids:
            hidden = module.model(row[row != 0][None], output_hidden_states=True).hidden_states
            rows.append(torch.stack([hidden[1], hidden[2], hidden[-1]])[:, 0].mean(1).mean(0))
        return module.projection_head(torch.stack(rows))

    return BertTower(module, 12), oracle


def build_clip_text() -> tuple[TextTower, Oracle]:
    model = clip()
    return HuggingFaceClipTextTower(model), lambda ids: embedding_of(model.get_text_features(ids))


def build_siglip_text() -> tuple[TextTower, Oracle]:
    model = siglip()
    return SiglipTextTower(model), lambda ids: embedding_of(model.get_text_features(ids))


TEXT_TOWERS = [
    lambda: build_bert("class"), lambda: build_bert("mean"), build_medclip_text, build_clip_text, build_siglip_text,
]  # fmt: skip
