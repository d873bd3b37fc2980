"""From settings to the parts that lower layers hold."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from clip_xai.config.explainer_settings import XaiConfig
from clip_xai.config.schemas import DataConfig, ExplainConfig, GenerationConfig, TrainerConfig
from clip_xai.data.record import Record
from clip_xai.errors import UserError
from clip_xai.models.backbones.base import VisionBackbone
from clip_xai.models.settings import Decoding
from clip_xai.ranges import check
from clip_xai.training.features import FeatureCache, FeatureTable
from clip_xai.xai.explainer import Explainer, explainers


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
        if settings.xai.best and not isinstance(settings, ExplainConfig):
            raise UserError("xai=best is of explain.py, once explainers are judged: choose xai=NAME or xai=[NAME,NAME]")
        if not settings.xai.best:
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
    backbone: VisionBackbone, reads: str, records: Sequence[Record], data: DataConfig, trainer: TrainerConfig
) -> FeatureTable:
    """Frozen features of records, from the cache where they are there; the tower is left on its device.

    Args:
        backbone: The tower.
        reads: ``pooled``, ``patches`` or ``tokens``.
        records: Their photographs.
        data: Says where the cache is.
        trainer: Says on which device the tower runs, and how many photographs at a time.
    """
    cache = FeatureCache(Path(data.cache_dir), backbone.to(device_of(trainer)))
    return cache.table([record.image for record in records], reads, trainer.feature_batch_size)


def explainers_of(xai: XaiConfig) -> list[Explainer]:
    """The explainers that the settings ask for, in the order of the registry.

    Raises:
        UserError: None is asked for.
    """
    asked = {name: settings for name, settings in vars(xai).items() if name != "best" and settings is not None}
    if not asked:
        raise UserError(f"no explainer is asked for: choose xai=NAME or xai=[NAME,NAME] of {', '.join(explainers)}")
    return [explainers[name](**vars(settings)) for name, settings in asked.items()]
