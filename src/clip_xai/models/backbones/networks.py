"""Plain networks of timm and torchvision: built by their library's names, with their classifier and preprocessing."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from typing import Any

import timm
import torchvision.models as tv
from timm.data import resolve_data_config
from torch import nn

from clip_xai.data.preprocess import Preprocess
from clip_xai.errors import UserError
from clip_xai.models.backbones.network_towers import timm_tower, torchvision_tower
from clip_xai.models.backbones.torchvision_heads import last_layer
from clip_xai.models.backbones.tower import ImageTower

TIMM, TORCHVISION = "timm", "torchvision"
LIBRARIES = (TIMM, TORCHVISION)


def build_network(library: str, config: Mapping[str, Any], image_size: int | None = None) -> nn.Module:
    """Build a network at random weights.

    Args:
        library: One of ``LIBRARIES``.
        config: ``architecture``, and where they are known ``num_classes`` and ``model_args``.
        image_size: Side of the input if it is not the network's own.

    Raises:
        UserError: The library has no such network.
    """
    architecture, settings = str(config["architecture"]), dict(config.get("model_args") or {})
    if config.get("num_classes") is not None:
        settings["num_classes"] = config["num_classes"]
    known = timm.list_models() if library == TIMM else tv.list_models(module=tv)
    if architecture.split(".")[0] not in known:
        near = difflib.get_close_matches(architecture, known)
        raise UserError(
            f"backbone.architecture: {library} has no network called {architecture!r}"
            + (f"; did you mean {' or '.join(near)}?" if near else f": see {library}'s list of models")
        )
    if library == TORCHVISION:
        return tv.get_model(architecture, weights=None, **settings)
    try:
        network = timm.create_model(architecture, pretrained=False, **settings)
    except (TypeError, AssertionError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise UserError(
            f"backbone.model_args={settings}: timm does not build {architecture} of them ({reason})"
        ) from error
    if image_size is not None and hasattr(network, "layers") and hasattr(network, "patch_embed"):
        # Windows are laid out when a windowed transformer is built.
        network = timm.create_model(architecture, pretrained=False, **{**settings, "img_size": image_size})
    return network


def tower_of(library: str, network: nn.Module, image_size: int | None) -> ImageTower:
    """Return the adapter that opens a network.

    Raises:
        UserError: Networks of its kind are not supported, or it does not take images of that size.
    """
    return (timm_tower if library == TIMM else torchvision_tower)(network, image_size)


def classifier_of(library: str, network: Any) -> tuple[str, nn.Module]:
    """Return a network's last layer, which gives the logits, and its name among the network's modules.

    Raises:
        UserError: It has none, or several.
    """
    layer = network.get_classifier() if library == TIMM else last_layer(network)
    name = next((name for name, module in network.named_modules() if module is layer), None)
    if name is None or not isinstance(layer, nn.Linear | nn.Conv2d):
        raise UserError(
            f"a {type(network).__name__} like this has no single layer that gives its logits: choose another"
        )
    return name, layer


def preprocessing_of(library: str, network: Any, config: Mapping[str, Any]) -> Preprocess:
    """Return how the library prepares photographs for a network, or how its published configuration says so.

    Args:
        library: One of ``LIBRARIES``.
        network: The network.
        config: ``architecture``, and where it was published ``pretrained_cfg``.

    Raises:
        UserError: It cannot be followed here.
    """
    said = _timm_says(network, config) if library == TIMM else _torchvision_says(str(config["architecture"]))
    try:
        return Preprocess(**said)
    except ValueError as error:
        raise UserError(f"the preprocessing of {config['architecture']} cannot be followed: {error}") from error


def _timm_says(network: Any, config: Mapping[str, Any]) -> dict[str, Any]:
    published = {**dict(network.pretrained_cfg), **dict(config.get("pretrained_cfg") or {})}
    said = resolve_data_config({}, pretrained_cfg=published)
    size, mode = int(said["input_size"][-1]), said.get("crop_mode", "center")
    scaled = math.floor(size / float(said["crop_pct"]))
    if mode not in ("center", "squash") or (mode == "squash" and scaled != size):
        raise UserError(f"the preprocessing of {config['architecture']} has crop_mode {mode!r}, which is not supported")
    return {
        "image_size": size,
        "resize": "squash" if mode == "squash" else "shortest",
        "interpolation": said["interpolation"],
        "mean": tuple(said["mean"]),
        "std": tuple(said["std"]),
        "scaled": None if scaled == size else scaled,
    }


def _torchvision_says(architecture: str) -> dict[str, Any]:
    how = next(iter(tv.get_model_weights(architecture))).transforms()
    size, scaled = int(how.crop_size[0]), int(how.resize_size[0])
    return {
        "image_size": size,
        "interpolation": how.interpolation.value,
        "mean": tuple(how.mean),
        "std": tuple(how.std),
        "scaled": None if scaled == size else scaled,
    }
