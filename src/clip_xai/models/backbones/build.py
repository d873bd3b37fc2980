"""Building a backbone from a name and the place of its weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.model import CLIPTextCfg, CLIPVisionCfg
from safetensors.torch import load_file

from clip_xai.data.preprocess import CLIP_MEAN, CLIP_STD, Preprocess
from clip_xai.errors import UserError
from clip_xai.models.assets import TINY_CLIP, TINY_GPT2
from clip_xai.models.backbones.open_clip_vit import OpenClipBackbone
from clip_xai.models.backbones.text_tokenizers import ByteLevelClipTokenizer, ClipTokenizer
from clip_xai.models.hub import hub_folder
from clip_xai.models.tokenizer import CaptionTokenizer

EMBEDDED = "embedded:tiny"


@dataclass(frozen=True)
class BackboneSource:
    """All that is needed to build a backbone again.

    Attributes:
        name: As in ``backbone=NAME``.
        architecture: ``tiny`` or a model name of open_clip, such as ``ViT-B-16``.
        pretrained: ``"embedded:tiny"``, ``"hf-hub:ORGANISATION/MODEL"``, a directory in open_clip's format, a file of
            weights, or None for random weights.
    """

    name: str
    architecture: str
    pretrained: str | None


def build_backbone(name: str, architecture: str, pretrained: str | None) -> OpenClipBackbone:
    """Build a backbone in evaluation mode, frozen, in float32.

    Args:
        name: As in ``backbone=NAME``.
        architecture: ``tiny`` or a model name of open_clip.
        pretrained: Where the weights are; see :class:`BackboneSource`.

    Raises:
        UserError: The architecture is unknown or the weights are nowhere to be had.
    """
    backbone = _tiny(name, pretrained) if architecture == "tiny" else _open_clip(name, architecture, pretrained)
    return backbone.float().eval().requires_grad_(False)


def tiny_backbone(
    config: dict[str, Any], tokenizer: CaptionTokenizer, name: str = "tiny", source: str | None = None
) -> OpenClipBackbone:
    """Build a small CLIP of open_clip's own towers at random weights.

    Args:
        config: ``embed_dim``, ``vision_cfg`` and ``text_cfg`` in open_clip's format.
        tokenizer: The byte-level tokenizer of its text tower.
        name: As in ``backbone=NAME``.
        source: Where weights will come from.
    """
    model = open_clip.CLIP(
        embed_dim=config["embed_dim"],
        vision_cfg=CLIPVisionCfg(**config["vision_cfg"]),
        text_cfg=CLIPTextCfg(**config["text_cfg"]),
    )
    preprocess = Preprocess(
        image_size=config["vision_cfg"]["image_size"],
        resize="shortest",
        interpolation="bicubic",
        mean=CLIP_MEAN,
        std=CLIP_STD,
    )
    text = ByteLevelClipTokenizer(tokenizer, config["text_cfg"]["context_length"])
    return OpenClipBackbone(model, text, preprocess, name, source)


def tiny_config() -> dict[str, Any]:
    """Return the configuration of the embedded CLIP."""
    return json.loads((TINY_CLIP / "open_clip_config.json").read_text())["model_cfg"]


def _tiny(name: str, pretrained: str | None) -> OpenClipBackbone:
    backbone = tiny_backbone(tiny_config(), CaptionTokenizer.load(TINY_GPT2), name, pretrained)
    if pretrained is None:
        return backbone
    file = TINY_CLIP / "model.safetensors" if pretrained == EMBEDDED else Path(pretrained)
    if not file.is_file():
        raise UserError(
            f"backbone {name}: no weights at {file}; set backbone.pretrained to {EMBEDDED!r}, a file, or null"
        )
    weights = {key: value.float() for key, value in load_file(file).items()}
    _load_strictly(backbone, weights, file)
    return backbone


def _open_clip(name: str, architecture: str, pretrained: str | None) -> OpenClipBackbone:
    if pretrained is None:
        model = _create(architecture, name)
    elif pretrained.startswith("hf-hub:"):
        model = _from_hub(name, pretrained)
    elif Path(pretrained).is_dir():
        model = open_clip.create_model(f"local-dir:{pretrained}")
    elif Path(pretrained).is_file():
        model = _create(architecture, name)
        open_clip.load_checkpoint(model, pretrained, weights_only=True)
    else:
        raise UserError(f"backbone {name}: there is no file or folder {pretrained}; {_ADVICE}")
    settings = open_clip.get_model_preprocess_cfg(model)
    preprocess = Preprocess(
        image_size=int(model.visual.image_size[0]),
        resize=settings.get("resize_mode", "shortest"),
        interpolation=settings.get("interpolation", "bicubic"),
        mean=tuple(settings.get("mean", CLIP_MEAN)),
        std=tuple(settings.get("std", CLIP_STD)),
    )
    return OpenClipBackbone(model, ClipTokenizer(model.context_length), preprocess, name, pretrained)


def _create(architecture: str, name: str) -> open_clip.CLIP:
    if architecture not in open_clip.list_models():
        raise UserError(f"backbone {name}: open_clip has no architecture called {architecture!r}")
    return open_clip.create_model(architecture, pretrained=None)


def _from_hub(name: str, pretrained: str) -> open_clip.CLIP:
    patterns = ("open_clip_config.json", "open_clip*.safetensors", "open_clip*.bin", "*token*", "vocab*")
    folder = hub_folder(pretrained.removeprefix("hf-hub:"), "open_clip_config.json", patterns, _ADVICE)
    return open_clip.create_model(f"local-dir:{folder}")


_ADVICE = (
    "download them once with network, or put open_clip_config.json and open_clip_model.safetensors into a folder and "
    "set backbone.pretrained=FOLDER, or run on random weights with backbone.pretrained=null"
)


def _load_strictly(backbone: OpenClipBackbone, weights: dict[str, torch.Tensor], file: Path) -> None:
    missing, unexpected = backbone.model.load_state_dict(weights, strict=False)
    if missing or unexpected:
        raise UserError(f"{file} does not fit the tower: missing {missing[:3]}, unexpected {unexpected[:3]}")
