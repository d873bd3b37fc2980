"""What the files beside a backbone's weights say of it, and what is assumed where they are silent."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from clip_xai.data.preprocess import Preprocess
from clip_xai.errors import UserError
from clip_xai.models.backbones.blueprint import Blueprint
from clip_xai.models.backbones.catalogue import CATALOGUE
from clip_xai.models.backbones.processor import FILE as PROCESSOR
from clip_xai.models.backbones.processor import read_processor
from clip_xai.models.backbones.source import BackboneSource
from clip_xai.models.backbones.transformers_models import HF_FAMILIES, KINDS
from clip_xai.models.backbones.weight_files import CONFIG, Published

log = logging.getLogger(__name__)
HF = "hf"  # an architecture that the folder's own config.json names


def family_of(source: BackboneSource, published: Published | None, stored: Mapping[str, Any]) -> str:
    """Return which of ``KINDS`` is built: what the folder says, where ``backbone=hf`` leaves it open.

    Raises:
        UserError: The folder does not say, or says something else than was asked for.
    """
    kind = stored.get("model_type")
    named = source.architecture
    if named != HF:
        if kind in HF_FAMILIES and HF_FAMILIES[kind] != KINDS[named].family:
            raise UserError(
                f"backbone {source.name}: {source.pretrained} holds a {kind}, and this backbone is another: set "
                "backbone=hf"
            )
        return named
    if published is None:
        return HF_FAMILIES["clip"]
    if kind not in HF_FAMILIES or "vision_config" not in stored:
        held = f"holds a {kind}" if kind else f"has no {CONFIG} that says what it holds"
        raise UserError(
            f"backbone {source.name}: {source.pretrained} {held}: give a folder of transformers' CLIPModel or "
            f"SiglipModel, with its {CONFIG}"
        )
    return HF_FAMILIES[kind]


def preprocessing_of(source: BackboneSource, settings: Mapping[str, Any]) -> Preprocess:
    """Return the catalogue's preprocessing, with what the publisher's configuration says of it."""
    entry = CATALOGUE.get(source.name)
    preprocess = entry.preprocess if entry else Preprocess()
    names = {"mean": "mean", "std": "std", "interpolation": "interpolation", "resize_mode": "resize"}
    said: dict[str, Any] = {own: settings[key] for key, own in names.items() if settings.get(key)}
    try:
        return replace(preprocess, **said)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"backbone {source.name}: its preprocess_cfg cannot be followed ({error}): correct it"
        ) from error


def processed(source: BackboneSource, processor: Mapping[str, Any] | None) -> Preprocess:
    """Return the preprocessing that the folder describes; the catalogue's where it is silent, or known to be wrong."""
    assumed = preprocessing_of(source, {})
    if processor is None:
        return assumed
    described = read_processor(processor, source.name)
    entry = CATALOGUE.get(source.name)
    if entry is None or not entry.preprocesses_otherwise:
        return described
    if (described.mean, described.std) != (assumed.mean, assumed.std):
        log.warning(
            "backbone %s: normalised with mean %s and std %s, as its publisher's code does, not as its %s says",
            *(source.name, assumed.mean, assumed.std, PROCESSOR),
        )
    return assumed


def say_assumed(
    source: BackboneSource, published: Published, plan: Blueprint, missing: Sequence[str], file: str
) -> None:
    """Say in one line what nothing beside the weights says."""
    if not missing:
        return
    assumed = []
    if "preprocess_cfg" in missing or PROCESSOR in missing:
        how = plan.preprocess
        mean, std = (", ".join(f"{value:.3g}" for value in values) for values in (how.mean, how.std))
        assumed.append(f"{how.resize}, {how.interpolation}, mean {mean}, std {std}")
    if "model_cfg" in missing and source.quick_gelu is None:
        gelu = "quick GELU" if plan.config.get("quick_gelu") else "GELU"
        assumed.append(f"{gelu} as in {source.architecture} (or set backbone.quick_gelu)")
    if CONFIG in missing:
        assumed.append(f"the sizes and activation of {source.architecture}")
    if assumed:
        log.warning(
            "backbone %s: no %s beside %s; assumed: %s", source.name, file, published.weights, "; ".join(assumed)
        )


def place_of(name: str) -> str | None:
    """Return where a backbone of the catalogue is published."""
    entry = CATALOGUE.get(name)
    return entry.pretrained if entry else None
