"""From settings to a captioner, and a trained one from its place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clip_xai.config.schemas import BackboneConfig, DataConfig, LanguageModelConfig, MapperConfig, TrainerConfig
from clip_xai.data.record import Record
from clip_xai.data.vocabulary import KEY as VOCABULARY
from clip_xai.data.vocabulary import load_vocabulary
from clip_xai.errors import UserError
from clip_xai.models.backbones.families import backbones
from clip_xai.models.backbones.source import BackboneSource
from clip_xai.models.captioner import Captioner
from clip_xai.models.language_model import language_models
from clip_xai.models.mappers import mappers
from clip_xai.models.retrieval import Retrieval
from clip_xai.models.weights import (
    CaptionerSettings,
    build_captioner,
    load_captioner,
    load_retrieval,
    load_settings,
    load_state,
    read_settings,
)
from clip_xai.registry import Registry
from clip_xai.runs.checkpoints import EXPORT, run_of
from clip_xai.runs.instantiate import feature_table
from clip_xai.runs.lineage import KEY as LINEAGE
from clip_xai.tasks.captions.module import captioner_state
from clip_xai.tasks.task import Opened, tower_in_words
from clip_xai.training.checkpoint_files import read_checkpoint
from clip_xai.training.features import FeatureTable


def captioner_settings(
    backbone: BackboneConfig, mapper: MapperConfig, language_model: LanguageModelConfig
) -> CaptionerSettings:
    """The captioner that three groups describe, as plain values that go into checkpoints and exports."""
    mapper_settings = {key: value for key, value in vars(mapper).items() if key != "name" and value is not None}
    return CaptionerSettings(
        backbone=BackboneSource(**vars(backbone)),
        mapper=mapper.name,
        mapper_settings=mapper_settings,
        language_model=language_model.name,
        language_model_pretrained=language_model.pretrained,
        prompt=language_model.prompt,
        lora=None if language_model.lora is None else vars(language_model.lora).copy(),
        retrieved_captions=language_model.retrieved_captions,
        retrieval_template=language_model.retrieval_template,
        plugins=_modules_of(backbone.architecture, mapper.name, language_model.name),
    )


def _modules_of(architecture: str, mapper: str, language_model: str) -> list[str]:
    """The modules of the parts that are neither this package's nor found by an entry point."""
    parts: tuple[tuple[Registry[Any], str], ...] = (
        (backbones, architecture),
        (mappers, mapper),
        (language_models, language_model),
    )
    found = [registry.module_of(name) for registry, name in parts if name not in registry.installed()]
    return list(dict.fromkeys(filter(None, found)))


def captioner_features(
    captioner: Captioner, records: Sequence[Record], data: DataConfig, trainer: TrainerConfig, reads: str | None = None
) -> FeatureTable:
    """Frozen features of records: what the mapper reads of them, or what ``reads`` names."""
    return feature_table(captioner.backbone, reads or captioner.reads, records, data, trainer)


def open_captioner(place: Path, vocabulary: str | None = None) -> tuple[Captioner, Retrieval | None]:
    """The captioner of a place, in evaluation mode, and what makes its prompts where it retrieves any.

    Args:
        place: The directory of an exported model, or a ``.ckpt`` file.
        vocabulary: What it is to be read with where its weights do not say which vocabulary it was trained with.

    Raises:
        UserError: Nothing usable is there.
    """
    captioner, retrieval = _opened(place)
    if vocabulary is not None and VOCABULARY not in captioner.provenance:
        captioner.provenance |= load_vocabulary(vocabulary).packed()
    return captioner, retrieval


def _opened(place: Path) -> tuple[Captioner, Retrieval | None]:
    if place.suffix != ".ckpt":
        return load_captioner(place), load_retrieval(load_settings(place), place)
    checkpoint = read_checkpoint(place)
    settings = read_settings(checkpoint["hyper_parameters"]["settings"])
    captioner = build_captioner(settings)
    load_state(captioner, captioner_state(checkpoint), place)
    if captioner.backbone.fingerprint != checkpoint["backbone_fingerprint"]:
        raise UserError(
            f"{place} was trained on another {settings.backbone.name} tower than {settings.backbone.pretrained} holds "
            "now; train again or restore the tower's weights"
        )
    captioner.provenance = {key: checkpoint[key] for key in (LINEAGE, VOCABULARY) if key in checkpoint}
    # A run writes its index before its first step.
    return captioner.eval(), load_retrieval(settings, run_of(place) / EXPORT)


def settings_of(place: Path) -> CaptionerSettings:
    """What the captioner of a place was built from."""
    if place.suffix != ".ckpt":
        return load_settings(place)
    return read_settings(read_checkpoint(place)["hyper_parameters"]["settings"])


def fingerprints_of(captioner: Captioner) -> dict[str, str]:
    """What a run directory notes of a captioner's weights."""
    return {"captioner": captioner.fingerprint()[:16], "tower": captioner.backbone.fingerprint[:16]}


def opened(place: Path, vocabulary: str | None = None) -> Opened:
    """The captioner of a place as it is explained; see :func:`open_captioner`."""
    captioner, retrieval = open_captioner(place, vocabulary)
    words = f"captioner {place}, fingerprint {captioner.fingerprint()[:12]} · {tower_in_words(captioner.backbone)}"
    return Opened(captioner.backbone, fingerprints_of(captioner), words, captioner, retrieval)
