"""Building a classifier of timm or torchvision from a name and the place of its weights."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clip_xai.data.preprocess import Preprocess
from clip_xai.errors import UserError
from clip_xai.models.backbones.blueprint import Blueprint
from clip_xai.models.backbones.classifier import VisionClassifier
from clip_xai.models.backbones.families import backbones
from clip_xai.models.backbones.networks import LIBRARIES, TIMM, build_network, classifier_of, preprocessing_of
from clip_xai.models.backbones.source import BackboneSource
from clip_xai.models.backbones.weight_files import CONFIG, find, load_exactly
from clip_xai.models.reading import read_state
from clip_xai.text import counted

log = logging.getLogger(__name__)
_OLD_DENSENET = re.compile(r"^(.*denselayer\d+\.(?:norm|conv))\.(\d\.\w+)$")


@backbones.register("timm")
@backbones.register("torchvision")
def build_classifier(source: BackboneSource) -> VisionClassifier:
    """Build a network with its classifier, in evaluation mode, frozen, in float32.

    The number of classes is that of the file's own classifier; of random weights, that of the setting, of the names, or
    of the library's own configuration.

    Raises:
        UserError: The library or the network is unknown, the weights are nowhere to be had or do not fit, or the
            number of classes is not the file's.
    """
    library = source.library
    if library not in LIBRARIES:
        raise UserError(f"backbone.library={library}: choose one of {', '.join(LIBRARIES)}, or leave it out for a CLIP")
    if source.model_args and library != TIMM:
        raise UserError("backbone.model_args are arguments of timm's networks: choose backbone=timm, or leave them out")
    if source.quick_gelu is not None:
        raise UserError("backbone.quick_gelu is a setting of models in open_clip's format: leave it out")
    published = None
    stored: dict[str, Any] = {}
    state: dict[str, Tensor] = {}
    if source.pretrained is not None:
        published = find(source.name, source.architecture, source.pretrained, source.revision)
        stored = published.config(CONFIG) or {}
        state = as_named_now(source, read_state(published.weights), published.weights)
    held = stored.get("architecture")
    if held is not None and str(held).split(".")[0] != source.architecture.split(".")[0]:
        raise UserError(f"backbone {source.name}: {source.pretrained} holds a {held}: set backbone.architecture={held}")
    config: dict[str, Any] = {
        "architecture": source.architecture,
        "model_args": {**pooling_of(state), **(stored.get("model_args") or {}), **source.model_args},
    }
    names = _names(source, stored)
    config["num_classes"] = _number_of_classes(source, library, config, state, names)
    if names is not None and config["num_classes"] not in (None, len(names)):
        raise UserError(
            f"backbone.classes: {source.classes or CONFIG} has {len(names)} names, and there are "
            f"{config['num_classes']} classes: give one name a line for each"
        )
    config["classes"] = names
    network = build_network(library, config)
    preprocess = preprocessing_of(library, network, {**config, "pretrained_cfg": stored.get("pretrained_cfg")})
    plan = Blueprint(library, config, normalised(preprocess, source), source.image_size, text=False)
    backbone = plan.build(source.name, source.pretrained)
    assert isinstance(backbone, VisionClassifier)
    if published is not None:
        load_exactly(backbone.model, {**_missing_head(source, backbone, state), **state}, published.weights)
        if not stored.get("pretrained_cfg") and source.mean is None:
            _say_assumed(source, published.weights, backbone.preprocess)
    return backbone


def pooling_of(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Return the pooling that a vision transformer of timm was trained with, where its weights show it.

    A transformer whose head reads the mean of the patches has its last norm behind that mean, ``fc_norm``, in the place
    of ``norm``. Read at the class token instead, its head would be given what it was never trained on.
    """
    by_mean = "fc_norm.weight" in state and "norm.weight" not in state
    return {"global_pool": "avg"} if by_mean else {}


def as_named_now(source: BackboneSource, state: dict[str, Tensor], file: Path) -> dict[str, Tensor]:
    """Return weights under the names of today's libraries, without those of a masked autoencoder's decoder.

    torchvision's first DenseNets have ``norm.1`` where there is ``norm1`` now.
    """
    renamed = {_OLD_DENSENET.sub(r"\1\2", key): value for key, value in state.items()}
    decoder = [key for key in renamed if key.startswith(("decoder_", "mask_token"))]
    if decoder and "patch_embed.proj.weight" in renamed:
        log.warning("backbone %s: left out of %s: %s of a decoder", source.name, file, counted(len(decoder), "weight"))
        renamed = {key: value for key, value in renamed.items() if key not in decoder}
    return renamed


def normalised(preprocess: Preprocess, source: BackboneSource) -> Preprocess:
    """Return the preprocessing with the crop, the mean and the standard deviation that the settings name.

    Raises:
        UserError: A mean or a standard deviation is named alone, or for two channels.
    """
    if source.crop_pct is not None:
        scaled = math.floor(preprocess.image_size / source.crop_pct)
        preprocess = replace(preprocess, scaled=None if scaled == preprocess.image_size else scaled)
    if source.mean is None and source.std is None:
        return preprocess
    mean, std = source.mean or [], source.std or []
    if len(mean) != len(std) or len(mean) not in (1, 3) or not all(value > 0 for value in std):
        raise UserError(
            f"backbone.mean={source.mean} backbone.std={source.std}: give both, one value or three, std above 0"
        )
    return replace(preprocess, mean=tuple(mean * (3 // len(mean))), std=tuple(std * (3 // len(std))))


def _missing_head(source: BackboneSource, backbone: VisionClassifier, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights for a network's own head where its file has none and another head is to stand on the tower.

    They are always alike, so that the tower's fingerprint, by which its features are kept, does not change.
    """
    name, head = classifier_of(str(source.library), backbone.model)
    if source.text or f"{name}.weight" in state:
        return {}
    log.info("backbone %s: %s has no classifier; the tower is taken", source.name, source.pretrained)
    draw = torch.Generator().manual_seed(0)
    return {f"{name}.{key}": torch.randn(value.shape, generator=draw) for key, value in head.state_dict().items()}


def _number_of_classes(
    source: BackboneSource,
    library: str,
    config: Mapping[str, Any],
    state: Mapping[str, Tensor],
    names: list[str] | None,
) -> int | None:
    if not state:
        return source.num_classes or (None if names is None else len(names))
    name, _ = classifier_of(library, build_network(library, config))
    weight = state.get(f"{name}.weight")
    if weight is None and not source.text:
        return source.num_classes
    if weight is None:
        raise UserError(
            f"backbone {source.name}: {source.pretrained} has no classifier ({name}.weight), so that there is no class "
            "to explain: give the weights of a network that was trained to classify"
        )
    if source.num_classes not in (None, len(weight)):
        raise UserError(
            f"backbone.num_classes={source.num_classes}: the classifier of {source.pretrained} has {len(weight)} "
            "classes: leave the setting out"
        )
    return len(weight)


def _names(source: BackboneSource, stored: Mapping[str, Any]) -> list[str] | None:
    if source.classes is None:
        names = stored.get("label_names")
        return [str(name) for name in names] if isinstance(names, list) else None
    file = Path(source.classes).expanduser()
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"backbone.classes: {file} cannot be read as text ({error}): give one name a line") from error
    while lines and not lines[-1]:
        lines.pop()
    if not lines or not all(lines) or len(set(lines)) < len(lines):
        raise UserError(f"backbone.classes: {file} has a blank line or a name twice: give one name a line, in order")
    return lines


def _say_assumed(source: BackboneSource, weights: Path, how: Preprocess) -> None:
    mean, std = (", ".join(f"{value:.3g}" for value in values) for values in (how.mean, how.std))
    scaled = f"the shorter side at {how.scaled}, then " if how.scaled else ""
    log.warning(
        "backbone %s: no %s beside %s says how photographs are prepared; assumed as for %s: %s%d pixels, %s, mean %s, "
        "std %s",
        *(source.name, CONFIG, weights, source.architecture, scaled, how.image_size, how.interpolation, mean, std),
    )
