"""The table of backbones, from the code that builds them."""

from __future__ import annotations

import torch

from clip_xai.models.backbones.backbone_builder import build_backbone
from clip_xai.models.backbones.catalogue import CATALOGUE, Entry
from clip_xai.models.backbones.clip import CLIPBackbone
from clip_xai.models.backbones.tower import ImageTower

HEADINGS = (
    *("backbone", "tower", "weights", "input", "patches", "D", "W", "parameters", "text"),
    *("for explainers", "tokenizer", "licence of the weights"),
)
CAPABILITIES = {"attention": "attention", "class_token": "class token", "output_gradients": "gradients"}


def markdown() -> str:
    """Return the table. The models are built without memory for their weights, so this takes seconds."""
    rows = [HEADINGS, ("---",) * len(HEADINGS), *(_row(name, entry) for name, entry in CATALOGUE.items())]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _row(name: str, entry: Entry) -> tuple[str, ...]:
    with torch.device("meta"):
        backbone = build_backbone(name, entry.architecture, None, library=entry.library)
    tower = backbone.image_tower
    text = backbone.text_tower if isinstance(backbone, CLIPBackbone) else None
    able = [word for key, word in CAPABILITIES.items() if key in backbone.supports]
    rows, columns = backbone.grid
    return (
        f"`{name}`",
        f"{_kind(tower, entry.library)}, {tower.family}",
        "any" if entry.pretrained is None else f"`{entry.pretrained.removeprefix('hf-hub:')}`",
        str(backbone.preprocess.image_size),
        f"{rows} x {columns}",
        str(backbone.embed_dim),
        str(backbone.width),
        f"{sum(p.numel() for p in backbone.parameters()) / 1e6:.1f} M",
        f"{text.context_length} tokens" if text else "none",
        ", ".join(able),
        entry.tokenizer,
        entry.licence,
    )


def _kind(tower: ImageTower, library: str | None) -> str:
    """Return what an adapter wraps, for people."""
    if library is not None:
        return f"{library} {type(tower.module).__name__}"
    names = {
        "OpenClipVisionTower": "open_clip ViT",
        "TimmVisionTower": "timm ViT",
        "HuggingFaceClipTower": "transformers ViT",
        "SiglipTower": "transformers SigLIP",
        "PanDermTower": "PanDerm ViT",
        "ResNetTower": "open_clip ResNet",
        "SwinTower": "transformers Swin",
    }
    return names[type(tower).__name__]
