"""Building a backbone from a name and the place of its weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import open_clip
from open_clip.model import CLIPTextCfg, CLIPVisionCfg
from safetensors.torch import load_file

from clip_xai.data.preprocess import Preprocess
from clip_xai.errors import UserError
from clip_xai.models.assets import TINY_CLIP, TINY_GPT2
from clip_xai.models.backbones import open_clip_models
from clip_xai.models.backbones.base import Backbone
from clip_xai.models.backbones.blueprint import OPEN_CLIP, Blueprint
from clip_xai.models.backbones.catalogue import CATALOGUE
from clip_xai.models.backbones.files import Published, find, load_exactly, read_tokenizer, read_weights
from clip_xai.models.backbones.files import tokenizer_from_hub as _tokenizer_from_hub
from clip_xai.models.backbones.open_clip_vit import OpenClipBackbone
from clip_xai.models.backbones.stand_ins import stand_in_unigram, stand_in_wordpiece
from clip_xai.models.backbones.text_tokenizers import (
    ByteLevelClipTokenizer,
    ClipTokenizer,
    PublishedTokenizer,
    TextTokenizer,
    canonical,
)
from clip_xai.models.backbones.transformer import TextTower
from clip_xai.models.backbones.transformers_models import KINDS
from clip_xai.models.tokenizer import CaptionTokenizer

EMBEDDED = "embedded:tiny"


@dataclass(frozen=True)
class BackboneSource:
    """All that is needed to build a backbone again.

    Attributes:
        name: As in ``backbone=NAME``.
        architecture: ``tiny``, one of this package's own (see ``catalogue.py``), or a model name of open_clip.
        pretrained: ``"embedded:tiny"``, ``"hf-hub:ORGANISATION/MODEL"``, a directory, a file of weights, a tag of
            open_clip, or None for random weights.
        revision: Commit, tag or branch of the hub's repository; None for the newest.
        image_size: Side of the input in pixels if it is not the tower's own; positions are resampled.
        text: Whether the text tower is built; without it nothing can be compared with texts.
        quick_gelu: The activation, where a publisher's configuration does not say it right; None to believe it.
    """

    name: str
    architecture: str
    pretrained: str | None
    revision: str | None = None
    image_size: int | None = None
    text: bool = True
    quick_gelu: bool | None = None


def build_backbone(
    name: str,
    architecture: str,
    pretrained: str | None,
    revision: str | None = None,
    image_size: int | None = None,
    text: bool = True,
    quick_gelu: bool | None = None,
) -> Backbone:
    """Build a backbone in evaluation mode, frozen, in float32.

    Args:
        name: As in ``backbone=NAME``.
        architecture: ``tiny``, one of this package's own, or a model name of open_clip.
        pretrained: Where the weights are; see :class:`BackboneSource`.
        revision: Commit, tag or branch of the hub's repository.
        image_size: Side of the input in pixels if it is not the tower's own.
        text: Whether the text tower is built.
        quick_gelu: Overrules the published activation of a model in open_clip's format.

    Raises:
        UserError: The architecture is unknown, the weights are nowhere to be had or do not fit, or the image size is no
            multiple of the patches.
    """
    source = BackboneSource(name, architecture, pretrained, revision, image_size, text, quick_gelu)
    if quick_gelu is not None and (architecture in KINDS or architecture == "tiny"):
        raise UserError("backbone.quick_gelu is a setting of models in open_clip's format: leave it out")
    if architecture == "tiny":
        return _tiny(source)
    return _transformers(source) if architecture in KINDS else _open_clip(source)


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
    preprocess = Preprocess(image_size=config["vision_cfg"]["image_size"])
    text = ByteLevelClipTokenizer(tokenizer, config["text_cfg"]["context_length"])
    backbone = OpenClipBackbone(model, text, preprocess, name, source)
    backbone.blueprint = Blueprint(OPEN_CLIP, config, preprocess, tokenizer=text)
    return backbone


def tiny_config() -> dict[str, Any]:
    """Return the configuration of the embedded CLIP."""
    return json.loads((TINY_CLIP / "open_clip_config.json").read_text())["model_cfg"]


def _tiny(source: BackboneSource) -> Backbone:
    config = tiny_config()
    text = ByteLevelClipTokenizer(CaptionTokenizer.load(TINY_GPT2), config["text_cfg"]["context_length"])
    plan = Blueprint(OPEN_CLIP, config, Preprocess(), source.image_size, tokenizer=text)
    backbone = plan.build(source.name, source.pretrained)
    if source.pretrained is not None:
        file = TINY_CLIP / "model.safetensors" if source.pretrained == EMBEDDED else Path(source.pretrained)
        if not file.is_file():
            raise UserError(
                f"backbone {source.name}: no weights at {file}; "
                f"set backbone.pretrained to {EMBEDDED!r}, a file, or null"
            )
        load_exactly(backbone.model, {key: value.float() for key, value in load_file(file).items()}, file)
    return backbone


def _open_clip(source: BackboneSource) -> Backbone:
    """Build a model in open_clip's format; what its published configuration says comes first."""
    name = source.name
    published = None if source.pretrained is None else _find(source)
    stored = (published.config("open_clip_config.json") if published else None) or {}
    config = stored.get("model_cfg") or open_clip_models.config_of(source.architecture, name)
    if published is not None and "quick_gelu" in published.settings:
        config["quick_gelu"] = published.settings["quick_gelu"]
    if source.quick_gelu is not None:
        config["quick_gelu"] = source.quick_gelu
    settings = {**(published.settings if published else {}), **stored.get("preprocess_cfg", {})}
    plan = Blueprint(OPEN_CLIP, config, _preprocess(source, settings), source.image_size, source.text)
    backbone = plan.build(name, source.pretrained)
    text_cfg, text_tower = config["text_cfg"], backbone.text_tower
    if text_tower is not None and "hf_model_name" in text_cfg:
        repository = text_cfg.get("hf_tokenizer_name", text_cfg["hf_model_name"])
        _give_tokenizer(backbone, plan, _published_tokenizer("wordpiece", published, repository, source, text_tower))
    elif source.text:
        _give_tokenizer(backbone, plan, _clip_tokenizer(text_cfg, name))
    if published is not None:
        unused = open_clip_models.UNUSED_KEYS if source.text else open_clip_models.TEXT_KEYS
        load_exactly(backbone.model, read_weights(published.weights), published.weights, unused)
    return backbone


def _transformers(source: BackboneSource) -> Backbone:
    """Build a model in transformers' format, or MedCLIP."""
    kind = KINDS[source.architecture]
    published = None if source.pretrained is None else _find(source)
    stored = (published.config("config.json") if published else None) or {}
    config = stored if "vision_config" in stored else kind.config
    plan = Blueprint(source.architecture, config, _preprocess(source, {}), source.image_size, source.text)
    backbone = plan.build(source.name, source.pretrained)
    text_tower = backbone.text_tower
    if text_tower is not None and kind.tokenizer == "clip":
        _give_tokenizer(backbone, plan, ClipTokenizer(text_tower.context_length))
    elif text_tower is not None:
        found = _published_tokenizer(kind.tokenizer, published, kind.published_tokenizer, source, text_tower)
        _give_tokenizer(backbone, plan, found)
    if published is not None:
        unused = () if source.text else kind.unused
        state = kind.renamed(read_weights(published.weights), backbone.model)
        load_exactly(backbone.model, state, published.weights, unused)
    return backbone


def _give_tokenizer(backbone: Backbone, plan: Blueprint, tokenizer: TextTokenizer) -> None:
    """Add the tokenizer, which is chosen by the size of the text tower."""
    backbone.tokenizer, backbone.blueprint = tokenizer, replace(plan, tokenizer=tokenizer)


def _find(source: BackboneSource) -> Published:
    assert source.pretrained is not None
    return find(source.name, source.architecture, source.pretrained, source.revision)


def _preprocess(source: BackboneSource, settings: Mapping[str, Any]) -> Preprocess:
    """Return the catalogue's preprocessing, with what the publisher's configuration says of it."""
    entry = CATALOGUE.get(source.name)
    preprocess = entry.preprocess if entry else Preprocess()
    names = {"mean": "mean", "std": "std", "interpolation": "interpolation", "resize_mode": "resize"}
    said: dict[str, Any] = {own: settings[key] for key, own in names.items() if settings.get(key)}
    return replace(preprocess, **said)


def _clip_tokenizer(text_cfg: Mapping[str, Any], name: str) -> TextTokenizer:
    if "hf_tokenizer_name" in text_cfg:
        raise UserError(
            f"backbone {name}: the tokenizer {text_cfg['hf_tokenizer_name']} is not supported: "
            "leave the text tower out with backbone.text=false"
        )
    return ClipTokenizer(text_cfg.get("context_length", 77))


def _published_tokenizer(
    kind: str,
    published: Published | None,
    repository: str | None,
    source: BackboneSource,
    text_tower: TextTower,
) -> TextTokenizer:
    """Return the tokenizer beside the weights, or of the encoder's own repository; a stand-in for random weights."""
    first = int(kind == "wordpiece")
    context_length, vocabulary_size = text_tower.context_length, text_tower.vocabulary_size
    if published is None:
        tokenizer = (stand_in_wordpiece if first else stand_in_unigram)(vocabulary_size)
        name = f"stand-in {kind} of {vocabulary_size:,} ids: the published files come with the weights"
        return PublishedTokenizer(tokenizer, context_length, 0 if first else 1, first, name)
    found = read_tokenizer([published.folder])
    if found is None and repository is not None:
        found = _tokenizer_from_hub(repository, source.name)
    if found is None:
        raise UserError(
            f"backbone {source.name}: {source.pretrained} holds no tokenizer.json: put it there, or leave the text "
            "tower out with backbone.text=false"
        )
    tokenizer, file = found
    if not first:
        tokenizer.normalizer = canonical(tokenizer.normalizer)
    pad = tokenizer.token_to_id("[PAD]") if first else 1
    return PublishedTokenizer(tokenizer, context_length, 0 if pad is None else pad, first, file)
