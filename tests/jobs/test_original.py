"""The original captioner's two recipes, to the parameter and to the setting."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from clip_xai.config.schemas import TrainConfig
from clip_xai.models.assets import TINY_GPT2
from clip_xai.models.captioner import Captioner
from clip_xai.models.language_model import PUBLISHED_SIZES
from clip_xai.models.lora import add_lora
from clip_xai.models.mappers import build_mapper
from clip_xai.models.tokenizer import CaptionTokenizer
from clip_xai.runs.instantiate import decoding
from clip_xai.tasks.captions.opened import captioner_settings
from clip_xai.tasks.captions.unfreezing import Unfreezing
from tests.config.test_config import composed

# As the original's logs print them, by stage and epoch.
TRAINABLE = {1: {0: 119_919_617, 2: 119_919_617}, 2: {0: 64_321_536, 1: 64_321_536, 2: 76_917_760, 19: 76_917_760}}
EXPERIMENTS = ("original_dermlip", "original_biomedclip")


class Tower(nn.Module):
    """A frozen tower has no share in the counts: its widths are all that the mapper must know."""

    embed_dim, width, grid = 512, 768, (14, 14)


def captioner_of(config: TrainConfig) -> Captioner:
    settings = captioner_settings(config.backbone, config.mapper, config.language_model)
    width, layers, heads = PUBLISHED_SIZES[settings.language_model]
    assert settings.lora is not None
    with torch.device("meta"):
        language_model = GPT2LMHeadModel(GPT2Config(n_embd=width, n_layer=layers, n_head=heads))
        add_lora(language_model, **settings.lora)
        mapper = build_mapper(
            settings.mapper, embed_dim=512, width=768, embedding_dim=width, **settings.mapper_settings
        )
    return Captioner(Tower(), mapper, language_model, CaptionTokenizer.load(TINY_GPT2))  # type: ignore[arg-type]


@pytest.mark.parametrize("experiment", EXPERIMENTS)
@pytest.mark.parametrize("stage", [1, 2])
def test_what_trains_is_what_the_originals_log_says(experiment: str, stage: int) -> None:
    config = composed("train", f"experiment={experiment}", f"stage={stage}")
    captioner = captioner_of(config)
    unfreezing = Unfreezing(config.stage.trains, dict(enumerate(config.stage.unfreeze)))
    for epoch, count in TRAINABLE[stage].items():
        parameters = {id(p): p for part in unfreezing.trained(captioner, epoch) for p in part.parameters()}
        assert sum(p.numel() for p in parameters.values()) == count


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_schedules_prompts_and_decoding_are_the_originals(experiment: str) -> None:
    first, second = (composed("train", f"experiment={experiment}", f"stage={stage}") for stage in (1, 2))
    name = experiment.removeprefix("original_")
    for config in (first, second):
        assert (config.backbone.name, config.language_model.name, config.mapper.name) == (
            *(name, "gpt2-medium", "bottleneck_mlp"),
        )
        assert (config.stage.warmup, config.stage.warmup_steps, config.stage.gradient_clip) == (0.06, 10, 1.0)
        assert (config.callbacks.patience, config.data.max_tokens, config.seed) == (3, 96, 42)
        found = decoding(config.generation)
        assert (found.beams, found.max_new_tokens, found.min_new_tokens) == (4, 60, 24)
        assert (found.no_repeat_ngram_size, found.repetition_penalty, found.length_penalty) == (4, 1.15, 0.6)
        assert found.early_stopping and not found.sample and len(found.banned_phrases) == 10
    one, two = first.stage, second.stage
    assert (one.epochs, one.batch_size, one.learning_rate) == (3, 24, 1.2e-4)
    assert (two.epochs, two.batch_size, two.learning_rate) == (20, 16, 3e-5)
    assert (one.weight_decay, one.label_smoothing, one.sources) == (0.01, 0.05, None)
    assert (two.weight_decay, two.label_smoothing, two.prefers, two.replay) == (0.0, 0.0, ["skincap"], 0.0)
    assert first.language_model.prompt == (
        "In ≤25 words, describe primary lesion morphology, color, scale, border, and anatomical site. "
        "Conclude with the most likely diagnosis (1–3 words)."
    )
    assert second.language_model.prompt == (
        "Describe the skin lesion concisely (morphology, color, scale, border, location) in one sentence."
        "Conclude with the most likely diagnosis (1–3 words)."
    )


def test_our_own_recipe_of_the_same_size_never_freezes_the_mapper_and_leaves_the_language_model_whole() -> None:
    for stage in (1, 2):
        config = composed("train", "experiment=dermlip_gpt2", f"stage={stage}")
        captioner = captioner_of(config)
        unfreezing = Unfreezing(config.stage.trains, dict(enumerate(config.stage.unfreeze)))
        trained = {id(p) for part in unfreezing.trained(captioner, 0) for p in part.parameters()}
        named = {name for name, p in captioner.named_parameters() if id(p) in trained}
        assert all(name.startswith("mapper.") or ".lora_" in name for name in named)
        assert {name for name, _ in captioner.mapper.named_parameters(prefix="mapper")} <= named
        assert any(".lora_" in name for name in named) == (stage == 2)
        assert not config.stage.supervise_padding
