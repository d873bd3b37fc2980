"""Captioners in and out of a directory: ``model.safetensors``, ``config.json`` and ``tokenizer.json``."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from clip_xai.errors import UserError
from clip_xai.files import reading, replacing, write_json
from clip_xai.models.backbones.backbone_builder import BackboneSource, build_backbone
from clip_xai.models.backbones.base import VisionBackbone
from clip_xai.models.backbones.blueprint import TOWER, plan_from_plain
from clip_xai.models.captioner import Captioner
from clip_xai.models.causal_model import blocks_of, tied_output, word_embeddings
from clip_xai.models.finite import require_finite
from clip_xai.models.language_model import build_language_model
from clip_xai.models.lora import add_lora
from clip_xai.models.mappers import build_mapper
from clip_xai.models.reading import read_json, read_state
from clip_xai.models.retrieval import INDEX, CaptionIndex, Retrieval
from clip_xai.models.settings import TEMPLATE
from clip_xai.models.tokenizer import CaptionTokenizer
from clip_xai.private_api import causal_language_models
from clip_xai.registry import load_plugins_of
from clip_xai.text import counted

_OTHER = "name another captioner, or train it again"


@dataclass(frozen=True)
class CaptionerSettings:
    """All that is needed to build a captioner again, as plain values.

    Attributes:
        backbone: The tower and the place of its weights.
        mapper: Name of the mapper.
        mapper_settings: Its own settings, such as ``prefix_length``.
        language_model: ``tiny`` or a published size, such as ``gpt2``.
        language_model_pretrained: Where the language model started from, None for random weights.
        prompt: Text between the image's prefix and the caption.
        lora: Settings of :func:`~clip_xai.models.lora.add_lora`, None for no adapters.
        retrieved_captions: Training captions in each photograph's prompt, which stands in the place of ``prompt``; 0
            for none.
        retrieval_template: That prompt, with ``{captions}`` where they stand.
        plugins: The modules of its parts that are not of this package.
    """

    backbone: BackboneSource
    mapper: str
    mapper_settings: dict[str, Any] = field(default_factory=dict)
    language_model: str = "tiny"
    language_model_pretrained: str | None = "embedded:tiny"
    prompt: str = ""
    lora: dict[str, Any] | None = None
    retrieved_captions: int = 0
    retrieval_template: str = TEMPLATE
    plugins: list[str] = field(default_factory=list)


def build_captioner(settings: CaptionerSettings) -> Captioner:
    """Build a captioner at its starting weights."""
    load_plugins_of("this captioner", settings.plugins)
    backbone = build_backbone(**asdict(settings.backbone))
    language_model, tokenizer = build_language_model(settings.language_model, settings.language_model_pretrained)
    if settings.lora is not None:
        add_lora(language_model, **settings.lora)
    return _assemble(settings, backbone, language_model, tokenizer)


def save_captioner(
    captioner: Captioner, settings: CaptionerSettings, directory: Path, with_backbone: bool | None = None
) -> None:
    """Write a captioner to a directory that :func:`load_captioner` reads.

    Args:
        captioner: The captioner.
        settings: What it was built from.
        directory: Made if need be.
        with_backbone: Write the tower's weights too. If None only where they are random: published and embedded ones
            are loaded from their own place again and checked by fingerprint.

    Raises:
        UserError: A weight is not finite; nothing is written.
    """
    holds_backbone = captioner.backbone.source is None if with_backbone is None else with_backbone
    state = trainable_state(captioner, with_backbone=holds_backbone)
    require_finite(state, "the captioner")
    directory.mkdir(parents=True, exist_ok=True)
    with replacing(directory / "model.safetensors") as unfinished:
        save_file(state, unfinished, metadata=captioner.provenance)
    captioner.tokenizer.save(directory)
    config = {
        "format": 1,
        "settings": asdict(settings),
        "language_model_config": captioner.language_model.config.to_diff_dict(),
        "backbone_fingerprint": captioner.backbone.fingerprint,
        "preprocess_fingerprint": captioner.backbone.preprocess.fingerprint,
        "holds_backbone": holds_backbone,
    }
    if holds_backbone and captioner.backbone.blueprint is not None:
        write_json(directory / TOWER, captioner.backbone.blueprint.plain())
    write_json(directory / "config.json", config)


def trainable_state(captioner: Captioner, with_backbone: bool) -> dict[str, Tensor]:
    """Return the captioner's weights as contiguous tensors, tied ones once, the tower's on request."""
    state = {
        key: value.detach().contiguous()
        for key, value in captioner.state_dict().items()
        if with_backbone or not key.startswith("backbone.")
    }
    state.pop(output_key(captioner), None)  # a safetensors file holds no tensor twice
    return state


def output_key(captioner: Captioner) -> str:
    """Return the key of the output layer's weight where it is the embedding's own, as GPT-2's is; else an empty one."""
    tied = tied_output(captioner.language_model)
    return "" if tied is None else f"language_model.{tied}"


def load_state(captioner: Captioner, state: dict[str, Tensor], origin: Path) -> None:
    """Load what :func:`trainable_state` gave, every key accounted for.

    Raises:
        UserError: A key is missing or unknown, or a weight has another shape or is not a number.
    """
    require_finite(state, origin)
    own = captioner.state_dict()
    reshaped = [key for key, value in state.items() if key in own and own[key].shape != value.shape]
    if reshaped:
        first = reshaped[0]
        raise UserError(
            f"{origin} does not fit this captioner: {counted(len(reshaped), 'weight')} of another shape, such as "
            f"{first}, {tuple(state[first].shape)} in the file and {tuple(own[first].shape)} here"
        )
    missing, unexpected = captioner.load_state_dict(state, strict=False)
    with_backbone = any(key.startswith("backbone.") for key in state)
    expected = {key for key in captioner.state_dict() if with_backbone or not key.startswith("backbone.")}
    lost = [key for key in missing if key in expected and key != output_key(captioner)]
    if lost or unexpected:
        raise UserError(f"{origin} does not fit this captioner: missing {lost[:3]}, unexpected {unexpected[:3]}")


def load_captioner(directory: Path) -> Captioner:
    """Load a captioner from a directory, in evaluation mode.

    Raises:
        UserError: The directory holds no captioner, or the tower at hand is not the one it was trained on.
    """
    config = _config(directory)
    settings = read_settings(config["settings"])
    load_plugins_of(directory, settings.plugins)
    state = read_state(directory / "model.safetensors")
    backbone = tower_of(directory, settings.backbone, bool(config.get("holds_backbone")))
    language_model = _language_model(config["language_model_config"])
    if settings.lora is not None:
        add_lora(language_model, **settings.lora)
    captioner = _assemble(settings, backbone, language_model, CaptionTokenizer.load(directory))
    load_state(captioner, state, directory / "model.safetensors")
    if captioner.backbone.fingerprint != config["backbone_fingerprint"]:
        raise UserError(
            f"{directory} was trained on another {settings.backbone.name} tower than {settings.backbone.pretrained} "
            "holds now; train again or restore the tower's weights"
        )
    if captioner.backbone.preprocess.fingerprint != config.get(
        "preprocess_fingerprint", captioner.backbone.preprocess.fingerprint
    ):
        raise UserError(
            f"{directory} was trained on photographs preprocessed otherwise than {settings.backbone.pretrained} asks "
            "for now; train again or restore its preprocessing"
        )
    with safe_open(directory / "model.safetensors", framework="pt") as file:
        captioner.provenance = dict(file.metadata() or {})
    return captioner.eval()


def tower_of(directory: Path, source: BackboneSource, held: bool) -> VisionBackbone:
    """Return the tower of an exported model.

    Args:
        directory: Of the model.
        source: The tower and the place of its weights.
        held: Whether its weights are in the directory: then it comes at random weights, to be loaded into.
    """
    if not held:
        return build_backbone(**asdict(source))
    if (directory / TOWER).is_file():
        return plan_from_plain(read_json(directory / TOWER)).build(source.name)
    return build_backbone(**asdict(replace(source, pretrained=None)))  # exports of before there was this file


def load_settings(directory: Path) -> CaptionerSettings:
    """Return the settings of the captioner in a directory.

    Raises:
        UserError: The directory holds no captioner.
    """
    return read_settings(_config(directory)["settings"])


def load_retrieval(settings: CaptionerSettings, directory: Path) -> Retrieval | None:
    """Return what makes a captioner's prompts; None for one that was trained without retrieved captions.

    Args:
        settings: The captioner's.
        directory: Where it was exported to; the index lies beside its weights.

    Raises:
        UserError: The index is not there.
    """
    if not settings.retrieved_captions:
        return None
    return Retrieval(CaptionIndex.load(directory / INDEX), settings.retrieved_captions, settings.retrieval_template)


def read_settings(values: dict[str, Any]) -> CaptionerSettings:
    """Build settings from the plain containers of ``config.json`` or a checkpoint."""
    return CaptionerSettings(**{**values, "backbone": BackboneSource(**values["backbone"])})


def _config(directory: Path) -> dict[str, Any]:
    file = directory / "config.json"
    if not file.is_file():
        raise UserError(f"{directory} holds no captioner (no config.json); train one first: python train.py stage=1")
    found = read_json(file)
    with reading(file, _OTHER):
        read_settings(found["settings"])
    return found


def _language_model(values: dict[str, Any]) -> PreTrainedModel:
    """Return a model of transformers at random weights, built from its own configuration; no code but the library's."""
    kind, rest = values.get("model_type", "gpt2"), {key: value for key, value in values.items() if key != "model_type"}
    if kind not in causal_language_models():
        raise UserError(
            f"the language model is of the family {kind}, which the installed transformers does not provide: install a "
            "newer one"
        )
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **rest), trust_remote_code=False)
    assert isinstance(model, PreTrainedModel)
    return model.float()


def _assemble(
    settings: CaptionerSettings, backbone: Any, language_model: PreTrainedModel, tokenizer: CaptionTokenizer
) -> Captioner:
    mapper = build_mapper(
        settings.mapper,
        embed_dim=backbone.embed_dim,
        width=backbone.width,
        embedding_dim=word_embeddings(language_model).embedding_dim,
        grid=backbone.grid,
        blocks=len(blocks_of(language_model)[1]),
        class_token="class_token" in backbone.supports,
        **settings.mapper_settings,
    )
    return Captioner(backbone, mapper, language_model, tokenizer, settings.prompt)
