"""Building a backbone from a name and the place of its weights."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import open_clip
from open_clip.model import CLIPTextCfg, CLIPVisionCfg

from clip_xai.data.preprocess import Preprocess
from clip_xai.errors import UserError
from clip_xai.models.assets import TINY_CLIP, TINY_GPT2
from clip_xai.models.backbones import open_clip_models
from clip_xai.models.backbones.base import VisionBackbone
from clip_xai.models.backbones.blueprint import OPEN_CLIP, TOWER, Blueprint, plan_from_plain
from clip_xai.models.backbones.clip import CLIPBackbone, with_texts
from clip_xai.models.backbones.described import HF, family_of, place_of, preprocessing_of, processed, say_assumed
from clip_xai.models.backbones.families import RegisteredPlan, backbones, built_by
from clip_xai.models.backbones.networks import LIBRARIES
from clip_xai.models.backbones.open_clip_vit import OpenClipBackbone
from clip_xai.models.backbones.own_tokenizers import clip_tokenizer, published_tokenizer
from clip_xai.models.backbones.processor import FILE as PROCESSOR
from clip_xai.models.backbones.processor import find_processor, read_processor
from clip_xai.models.backbones.source import BackboneSource
from clip_xai.models.backbones.text_tokenizers import ByteLevelClipTokenizer, TextTokenizer
from clip_xai.models.backbones.transformers_models import KINDS
from clip_xai.models.backbones.weight_files import CONFIG, OPEN_CLIP_CONFIG, Published, find, following, load_exactly
from clip_xai.models.reading import read_json, read_state
from clip_xai.models.tokenizer import CaptionTokenizer

__all__ = ["EMBEDDED", "BackboneSource", "build_backbone", "tiny_backbone", "tiny_config"]

log = logging.getLogger(__name__)
EMBEDDED = "embedded:tiny"


def build_backbone(
    name: str,
    architecture: str,
    pretrained: str | None,
    revision: str | None = None,
    image_size: int | None = None,
    text: bool = True,
    quick_gelu: bool | None = None,
    library: str | None = None,
    num_classes: int | None = None,
    classes: str | None = None,
    mean: list[float] | None = None,
    std: list[float] | None = None,
    crop_pct: float | None = None,
    model_args: dict[str, Any] | None = None,
) -> VisionBackbone:
    """Build a backbone in evaluation mode, frozen, in float32.

    Args:
        name: As in ``backbone=NAME``.
        architecture: ``tiny``, one of this package's own, or a model name of open_clip.
        pretrained: Where the weights are; see :class:`BackboneSource`.
        revision: Commit, tag or branch of the hub's repository.
        image_size: Side of the input in pixels if it is not the tower's own.
        text: Whether the text tower is built.
        quick_gelu: Overrules the published activation of a model in open_clip's format.
        library: ``timm`` or ``torchvision`` for a classifier, a vision model without texts; None for a CLIP.
        num_classes: Number of classes of a classifier at random weights.
        classes: File with the name of one class a line.
        mean: Of a classifier's normalisation, in the place of its library's.
        std: Likewise.
        crop_pct: Share of a photograph's side that a classifier sees.
        model_args: More of timm's own arguments of a classifier.

    Raises:
        UserError: The architecture is unknown, the weights are nowhere to be had or do not fit, or the image size is no
            multiple of the patches.
    """
    classifier: dict[str, Any] = {
        "num_classes": num_classes,
        "classes": classes,
        "mean": mean,
        "std": std,
        "crop_pct": crop_pct,
    }
    given = [key for key, value in classifier.items() if value is not None] + (["model_args"] if model_args else [])
    source = BackboneSource(
        name, architecture, pretrained, revision, image_size, text, quick_gelu, library, **classifier,
        model_args=model_args or {},
    )  # fmt: skip
    if library is None and given:
        raise UserError(f"backbone.{given[0]} is a setting of classifiers: choose backbone=timm or torchvision")
    if quick_gelu is not None and architecture in ("tiny", HF, *KINDS):
        raise UserError("backbone.quick_gelu is a setting of models in open_clip's format: leave it out")
    noted = _noted(source)
    if noted is not None:
        return noted
    family = library or architecture
    if family not in backbones:
        return _open_clip(source)
    builder = backbones[family]
    return built_by(source) if backbones.module_of(family) else builder(source)


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
    return read_json(TINY_CLIP / OPEN_CLIP_CONFIG)["model_cfg"]


@backbones.register("tiny")
def _tiny(source: BackboneSource) -> VisionBackbone:
    """The embedded CLIP, or one like it: a configuration that lies beside a file of weights says its sizes."""
    file = None
    if source.pretrained is not None:
        file = TINY_CLIP / "model.safetensors" if source.pretrained == EMBEDDED else Path(source.pretrained)
        if not file.is_file():
            raise UserError(
                f"backbone {source.name}: no weights at {file}; "
                f"set backbone.pretrained to {EMBEDDED!r}, a file, or null"
            )
    own = None if file is None else file.parent / OPEN_CLIP_CONFIG
    config = tiny_config()
    if own is not None and own.is_file():
        found = read_json(own).get("model_cfg")
        if not isinstance(found, dict) or not {"vision_cfg", "text_cfg", "embed_dim"} <= found.keys():
            raise UserError(
                f"backbone {source.name}: {own} has no model_cfg with embed_dim, vision_cfg and text_cfg: correct it, "
                "or name weights of the embedded CLIP's own sizes without a configuration beside them"
            )
        config = found
    text = ByteLevelClipTokenizer(CaptionTokenizer.load(TINY_GPT2), config["text_cfg"]["context_length"])
    plan = Blueprint(OPEN_CLIP, config, Preprocess(), source.image_size, tokenizer=text)
    backbone = plan.build(source.name, source.pretrained)
    if file is not None:
        load_exactly(backbone.model, read_state(file), file)
    return backbone


def _open_clip(source: BackboneSource) -> CLIPBackbone:
    """Build a model in open_clip's format; what its published configuration says comes first."""
    published = None if source.pretrained is None else _find(source)
    stored = (published.config(OPEN_CLIP_CONFIG) if published else None) or {}
    with following(published, OPEN_CLIP_CONFIG if stored else None):
        return _open_clip_of(source, published, stored)


def _open_clip_of(source: BackboneSource, published: Published | None, stored: dict[str, Any]) -> CLIPBackbone:
    name = source.name
    config = stored.get("model_cfg") or open_clip_models.config_of(source.architecture, name)
    if published is not None and "quick_gelu" in published.settings:
        config["quick_gelu"] = published.settings["quick_gelu"]
    if source.quick_gelu is not None:
        config["quick_gelu"] = source.quick_gelu
    settings = {**(published.settings if published else {}), **stored.get("preprocess_cfg", {})}
    plan = Blueprint(OPEN_CLIP, config, preprocessing_of(source, settings), source.image_size, source.text)
    backbone = with_texts(plan.build(name, source.pretrained))
    text_cfg, text_tower = config["text_cfg"], backbone.text_tower
    if text_tower is not None and "hf_model_name" in text_cfg:
        repository = text_cfg.get("hf_tokenizer_name", text_cfg["hf_model_name"])
        _give_tokenizer(backbone, plan, published_tokenizer("wordpiece", published, repository, source, text_tower))
    elif source.text:
        _give_tokenizer(backbone, plan, clip_tokenizer(published, text_cfg.get("vocab_size"), source, text_tower))
    if published is not None:
        load_exactly(backbone.model, read_state(published.weights), published.weights, _unused(plan))
        said = {"model_cfg": stored.get("model_cfg"), "preprocess_cfg": settings}
        if published.settings or (not stored and source.pretrained == place_of(source.name)):
            said = {}  # open_clip's own table, or the catalogue, speaks for the publisher
        say_assumed(source, published, plan, [key for key, value in said.items() if not value], OPEN_CLIP_CONFIG)
    return backbone


def _transformers(source: BackboneSource) -> CLIPBackbone:
    """Build a model in transformers' format, or MedCLIP: any of ``KINDS``, or what the folder says."""
    published = None if source.pretrained is None else _find(source)
    stored = (published.config(CONFIG) if published else None) or {}
    with following(published, CONFIG if stored else None):
        return _transformers_of(source, published, stored)


for _family in (HF, *KINDS):
    backbones.register(_family)(_transformers)


def _transformers_of(source: BackboneSource, published: Published | None, stored: dict[str, Any]) -> CLIPBackbone:
    family = family_of(source, published, stored)
    kind = KINDS[family]
    config = stored if "vision_config" in stored else kind.config
    processor = None if published is None else find_processor(published.config)
    plan = Blueprint(family, config, processed(source, processor), source.image_size, source.text)
    backbone = with_texts(plan.build(source.name, source.pretrained))
    text_tower = backbone.text_tower
    if text_tower is not None and kind.tokenizer == "clip":
        size = text_tower.vocabulary_size
        _give_tokenizer(backbone, plan, clip_tokenizer(published, size, source, text_tower))
    elif text_tower is not None:
        found = published_tokenizer(kind.tokenizer, published, kind.published_tokenizer, source, text_tower)
        _give_tokenizer(backbone, plan, found)
    if published is not None:
        state = kind.renamed(read_state(published.weights), backbone.model)
        load_exactly(backbone.model, state, published.weights, _unused(plan))
        if source.pretrained != place_of(source.name):
            said = {CONFIG: "vision_config" in stored, PROCESSOR: processor}
            missing = [file for file, value in said.items() if not value]
            say_assumed(source, published, plan, missing, " and ".join(missing))
        side = None if processor is None else read_processor(processor, source.name).image_size
        if side is not None and source.image_size is None and side != backbone.preprocess.image_size:
            log.warning(
                "backbone %s: its %s gives %d pixels, its tower takes %d: photographs are brought to %d",
                *(source.name, PROCESSOR, side, backbone.preprocess.image_size, backbone.preprocess.image_size),
            )
    return backbone


def _give_tokenizer(backbone: CLIPBackbone, plan: Blueprint, tokenizer: TextTokenizer) -> None:
    """Add the tokenizer, which is chosen by the size of the text tower."""
    backbone.tokenizer, backbone.blueprint = tokenizer, replace(plan, tokenizer=tokenizer)


def _find(source: BackboneSource) -> Published:
    assert source.pretrained is not None
    return find(source.name, source.architecture, source.pretrained, source.revision)


def _unused(plan: Blueprint) -> Collection[str]:
    """Return the beginnings of keys for which the built model has no use."""
    if plan.family in LIBRARIES:
        return ()
    if plan.family == OPEN_CLIP:
        return open_clip_models.UNUSED_KEYS if plan.text else open_clip_models.TEXT_KEYS
    return () if plan.text else KINDS[plan.family].unused


def _noted(source: BackboneSource) -> VisionBackbone | None:
    """Return the backbone of a file beside which it is noted how it was built, as stage 0 does; None for others.

    Raises:
        UserError: The file is damaged, or the settings ask for another activation than the noted one.
    """
    file = Path(source.pretrained or "").expanduser()
    if file.is_dir() and (file / TOWER).is_file():
        file /= "model.safetensors"
    if source.pretrained is None or not file.is_file() or not (file.parent / TOWER).is_file():
        return None
    if source.quick_gelu is not None:
        raise UserError(
            f"backbone.quick_gelu: {file.parent / TOWER} says how {file.name} is built: leave the setting out"
        )
    plan = plan_from_plain(read_json(file.parent / TOWER))
    if isinstance(plan, RegisteredPlan):
        backbone = plan.build(source.name, source.pretrained)
        load_exactly(backbone.model, read_state(file), file)
        backbone.source = source.pretrained
        return backbone
    if not source.text:
        plan = replace(plan, text=False, tokenizer=None)
    if source.image_size is not None:
        plan = replace(plan, image_size=source.image_size)
    backbone = plan.build(source.name, source.pretrained)
    load_exactly(backbone.model, read_state(file), file, _unused(plan))
    return backbone
