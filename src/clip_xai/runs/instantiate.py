"""From settings to the parts that rooms below hold."""

from __future__ import annotations

from clip_xai.models.backbones.build import BackboneSource
from clip_xai.models.captioner import Decoding
from clip_xai.models.weights import CaptionerSettings
from clip_xai.runs.config import BackboneConfig, GenerationConfig, LanguageModelConfig, MapperConfig


def captioner_settings(
    backbone: BackboneConfig, mapper: MapperConfig, language_model: LanguageModelConfig
) -> CaptionerSettings:
    """The captioner that three groups describe, as plain values that go into checkpoints and exports."""
    mapper_settings = {key: value for key, value in vars(mapper).items() if key != "name" and value is not None}
    return CaptionerSettings(
        backbone=BackboneSource(backbone.name, backbone.architecture, backbone.pretrained),
        mapper=mapper.name,
        mapper_settings=mapper_settings,
        language_model=language_model.name,
        language_model_pretrained=language_model.pretrained,
        prompt=language_model.prompt,
    )


def decoding(generation: GenerationConfig) -> Decoding:
    """The decoding settings, without the batch size."""
    return Decoding(**{key: value for key, value in vars(generation).items() if key != "batch_size"})
