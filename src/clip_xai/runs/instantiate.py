"""From settings to the parts that lower layers hold."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from clip_xai.config.explainer_settings import XaiConfig
from clip_xai.config.schemas import (
    BackboneConfig,
    DataConfig,
    GenerationConfig,
    LanguageModelConfig,
    MapperConfig,
    TrainerConfig,
)
from clip_xai.data.record import Record
from clip_xai.errors import UserError
from clip_xai.models.backbones.backbone_builder import BackboneSource
from clip_xai.models.backbones.families import backbones
from clip_xai.models.captioner import Captioner
from clip_xai.models.language_model import language_models
from clip_xai.models.mappers import mappers
from clip_xai.models.retrieval import Retrieval
from clip_xai.models.settings import Decoding
from clip_xai.models.weights import (
    CaptionerSettings,
    build_captioner,
    load_captioner,
    load_retrieval,
    load_settings,
    load_state,
    read_settings,
)
from clip_xai.ranges import check
from clip_xai.registry import Registry
from clip_xai.runs.checkpoints import EXPORT, run_of
from clip_xai.runs.lineage import KEY as LINEAGE
from clip_xai.training.features import FeatureCache, FeatureTable
from clip_xai.training.modules import captioner_state, read_checkpoint
from clip_xai.xai.explainer import Explainer, explainers


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


def decoding(generation: GenerationConfig) -> Decoding:
    """The decoding settings, without the batch size."""
    return Decoding(**{key: value for key, value in vars(generation).items() if key != "batch_size"})


def require_usable(settings: Any) -> None:
    """Refuse, before anything is read or computed, what these settings ask for and cannot have.

    Args:
        settings: A job's.

    Raises:
        UserError: A value is out of its range, or the device is not there.
    """
    check(settings)
    decoding(settings.generation)
    if getattr(settings, "xai", None) is not None:
        explainers_of(settings.xai)
    trainer: TrainerConfig = settings.trainer
    present = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    present["gpu"] = present["cuda"] or present["mps"]
    there = present.get(trainer.accelerator)
    if there is not None and there < trainer.devices:
        what = f"trainer.accelerator={trainer.accelerator} trainer.devices={trainer.devices}"
        raise UserError(f"{what}: torch finds {there} here; set trainer=cpu, or trainer.devices to what is there")


def device_of(trainer: TrainerConfig) -> torch.device:
    """The device that work outside Lightning runs on."""
    wants_gpu = trainer.accelerator in ("auto", "gpu", "cuda")
    return torch.device("cuda" if wants_gpu and torch.cuda.is_available() else "cpu")


def feature_table(
    captioner: Captioner, records: Sequence[Record], data: DataConfig, trainer: TrainerConfig, reads: str | None = None
) -> FeatureTable:
    """Frozen features of records, from the cache where they are there; the tower is left on its device.

    Args:
        captioner: Its tower gives the features.
        records: Their photographs.
        data: Says where the cache is.
        trainer: Says on which device the tower runs, and how many photographs at a time.
        reads: ``pooled`` or ``patches``; what the mapper reads if None.
    """
    backbone = captioner.backbone.to(device_of(trainer))
    cache = FeatureCache(Path(data.cache_dir), backbone)
    return cache.table([record.image for record in records], reads or captioner.reads, trainer.feature_batch_size)


def open_captioner(place: Path) -> tuple[Captioner, Retrieval | None]:
    """The captioner of a place, in evaluation mode, and what makes its prompts where it retrieves any.

    Args:
        place: The directory of an exported model, or a ``.ckpt`` file.

    Raises:
        UserError: Nothing usable is there.
    """
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
    captioner.provenance = {key: checkpoint[key] for key in (LINEAGE,) if key in checkpoint}
    # A run writes its index before its first step.
    return captioner.eval(), load_retrieval(settings, run_of(place) / EXPORT)


def settings_of(place: Path) -> CaptionerSettings:
    """What the captioner of a place was built from."""
    if place.suffix != ".ckpt":
        return load_settings(place)
    return read_settings(read_checkpoint(place)["hyper_parameters"]["settings"])


def explainers_of(xai: XaiConfig) -> list[Explainer]:
    """The explainers that the settings ask for, in the order of the registry.

    Raises:
        UserError: None is asked for.
    """
    asked = {name: settings for name, settings in vars(xai).items() if settings is not None}
    if not asked:
        raise UserError(f"no explainer is asked for: choose xai=NAME or xai=[NAME,NAME] of {', '.join(explainers)}")
    return [explainers[name](**vars(settings)) for name, settings in asked.items()]
