"""Captioners on language models other than GPT-2: real classes of transformers at random weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    Gemma2Config,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    LlamaModel,
    OPTConfig,
    PretrainedConfig,
    Qwen2Config,
)

from clip_xai.errors import UserError
from clip_xai.models.backbones.backbone_builder import build_backbone
from clip_xai.models.backbones.source import BackboneSource
from clip_xai.models.captioner import Captioner
from clip_xai.models.causal_model import beside_blocks, blocks_of, positions, require_causal, tied_output
from clip_xai.models.lora import add_lora
from clip_xai.models.mappers import build_mapper
from clip_xai.models.settings import Decoding
from clip_xai.models.weights import CaptionerSettings, load_captioner, save_captioner
from clip_xai.tasks.captions.module import CaptionerModule
from clip_xai.tasks.captions.unfreezing import Unfreezing
from clip_xai.training.optimisation import Optimisation
from clip_xai.xai.explainer import explainers
from clip_xai.xai.target import CaptionTarget
from tests.models.conftest import shaken
from tests.support.captions import log_prob
from tests.support.small_captioner import SETTINGS, small_captioner

SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "max_position_embeddings": 64}
WIDER = {**SIZES, "intermediate_size": 48}
GROUPED = {**WIDER, "num_key_value_heads": 1}


def configurations(vocabulary: int, end: int) -> dict[str, PretrainedConfig]:
    """One small model of each of several families; tied and untied, learned and rotary and biased positions."""
    told = {"vocab_size": vocabulary, "eos_token_id": end, "bos_token_id": end, "pad_token_id": end}
    return {
        "gpt2": GPT2Config(**SIZES, **told),
        "llama": LlamaConfig(**GROUPED, **told),
        "qwen2": Qwen2Config(**GROUPED, **told, tie_word_embeddings=True),
        "gpt_neox": GPTNeoXConfig(**WIDER, **told),
        "opt": OPTConfig(**SIZES, ffn_dim=48, word_embed_proj_dim=32, **told),
        "gemma": GemmaConfig(**GROUPED, head_dim=16, **told),
        "bloom": BloomConfig(hidden_size=32, n_layer=3, n_head=2, **told),
    }


KINDS = tuple(configurations(300, 0))


def captioner_on(kind: str, mapper: str = "resampler") -> Captioner:
    """A captioner whose language model is of that family, every weight away from where it starts."""
    base = small_captioner()
    config = configurations(base.tokenizer.vocabulary_size, base.tokenizer.eos_id)[kind]
    torch.manual_seed(1)
    model = shaken(AutoModelForCausalLM.from_config(config), 0.05).eval()
    settings = {"resampler": {"prefix_length": 4}, "cross_attention": {"heads": 2}}[mapper]
    made = build_mapper(
        mapper,
        embed_dim=16,
        width=32,
        embedding_dim=32,
        grid=(3, 3),
        blocks=3,
        class_token=True,
        head_width=16,
        **settings,
    )
    return Captioner(base.backbone, shaken(made, 0.1).eval(), model, base.tokenizer, "a spot")


@pytest.fixture(params=KINDS)
def captioner(request: pytest.FixtureRequest) -> Captioner:
    return captioner_on(request.param)


def slow_log_probs(captioner: Captioner, read: Tensor, ids: Tensor, prompt: str) -> Tensor:
    """One row: the model's own forward on prefix, prompt and the caption so far, a token at a time."""
    words, model = captioner.language_model.get_input_embeddings(), captioner.language_model
    start = torch.cat([captioner.mapper(read), words(torch.tensor([captioner.tokenizer.encode(prompt)]))], dim=1)
    found = []
    for place, token in enumerate(ids.tolist()):
        inputs = torch.cat([start, words(ids[None, :place])], dim=1)
        found.append(model(inputs_embeds=inputs).logits[0, -1].log_softmax(-1)[token])
    return torch.stack(found)


@torch.no_grad()
def test_log_probabilities_are_those_of_the_models_own_forward_pass(captioner: Captioner) -> None:
    read = captioner.read(torch.randn(2, 3, 24, 24))
    ids = captioner.encode_captions(["a red spot", "a spot of green"])
    prompts = ["a spot", "a spot of blue, a spot"]  # of two lengths, so that one is padded
    found = captioner.token_log_probs(read, ids, prompts)
    for row in range(2):
        own = ids[row][ids[row] >= 0]
        expected = slow_log_probs(captioner, read[row : row + 1], own, prompts[row])
        torch.testing.assert_close(found[row, : len(own)], expected, rtol=1e-4, atol=1e-4)
    loss = captioner.loss(read, ids, prompts=prompts)
    torch.testing.assert_close(loss, -found[ids >= 0].mean(), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_greedy_captions_are_those_of_a_loop_without_a_cache(captioner: Captioner) -> None:
    read = captioner.read(torch.randn(1, 3, 24, 24))
    [caption] = captioner.generate(read, Decoding(max_new_tokens=8, whole_sentences=False))
    ids: list[int] = []
    words = captioner.language_model.get_input_embeddings()
    while len(ids) < 8:
        inputs = torch.cat([captioner.prefix(read), words(torch.tensor([ids], dtype=torch.long))], dim=1)
        token = int(captioner.language_model(inputs_embeds=inputs).logits[0, -1].argmax())
        if token == captioner.tokenizer.eos_id:
            break
        ids.append(token)
    assert caption.token_ids == tuple(ids)


def test_a_caption_is_explained_and_its_gradient_is_the_difference_quotient(captioner: Captioner) -> None:
    pixels = torch.randn(1, 3, 24, 24)
    target = CaptionTarget.words(captioner, captioner.tokenizer.encode("a red spot"))
    attribution = explainers["gradcam"]().explain(captioner.backbone, pixels, target)  # type: ignore[arg-type]
    assert torch.isfinite(attribution.values).all() and attribution.values.abs().max() > 0
    with torch.no_grad():
        read = captioner.read(pixels)
    ids = captioner.encode_captions(["a red spot"])
    double = captioner.double()
    leaf = read.double().requires_grad_()
    (gradient,) = torch.autograd.grad(log_prob(double, leaf, ids).sum(), leaf)
    step = torch.randn_like(leaf) * 0.03  # some norms compute in single precision whatever they are given
    with torch.no_grad():
        quotient = (log_prob(double, leaf + step, ids) - log_prob(double, leaf - step, ids)) / 2
    torch.testing.assert_close((gradient * step).sum(), quotient.sum(), rtol=0.02, atol=1e-5)


@torch.no_grad()
def test_cross_attention_looks_through_any_blocks() -> None:
    for kind in KINDS:
        captioner = captioner_on(kind, "cross_attention")
        read = torch.randn(1, 9, 32)
        ids = captioner.encode_captions(["a red spot"])
        near = captioner.token_log_probs(read, ids)
        assert (near - captioner.token_log_probs(read + torch.randn_like(read), ids)).abs().max() > 1e-4, kind
        for layer in captioner.mapper.layers:  # type: ignore[union-attr]
            layer.gate.zero_()
        blind = captioner.token_log_probs(read, ids)
        assert torch.equal(blind, captioner.token_log_probs(read + 1, ids)), kind
        assert len(captioner.generate(read, Decoding(max_new_tokens=4))) == 1


@torch.no_grad()
def test_a_captioner_comes_back_from_its_folder(captioner: Captioner, tmp_path: Path) -> None:
    source = BackboneSource("tiny", "tiny", "embedded:tiny")
    mapper = build_mapper("linear_patch", embed_dim=128, width=128, embedding_dim=32, grid=(12, 12), blocks=3)
    tower = build_backbone(**vars(source))
    base = Captioner(tower, mapper, captioner.language_model, captioner.tokenizer).eval()
    save_captioner(base, CaptionerSettings(source, "linear_patch", language_model="own"), tmp_path)
    again = load_captioner(tmp_path)
    assert type(again.language_model) is type(base.language_model)
    read, ids = torch.randn(1, 144, 128), base.encode_captions(["a red spot"])
    torch.testing.assert_close(again.token_log_probs(read, ids), base.token_log_probs(read, ids))


def test_every_weight_trains_in_one_part_and_blocks_unfreeze_from_the_end(captioner: Captioner) -> None:
    model = captioner.language_model
    name, blocks = blocks_of(model)
    assert len(blocks) == 3 and name.endswith((".h", ".layers"))
    embeddings, norms = beside_blocks(model)
    parts = [*embeddings, *norms, *blocks, *([] if tied_output(model) else [model.get_output_embeddings()])]
    covered = {id(weight) for part in parts for weight in part.parameters()}
    assert covered == {id(weight) for weight in model.parameters()}
    trained = Unfreezing(["mapper", "embeddings", "final_norm"], {0: 1}).trained(captioner, 0)
    assert blocks[2] in trained and blocks[1] not in trained
    module = CaptionerModule(captioner, SETTINGS, Optimisation(weight_decay=0.1), Unfreezing())
    groups = module.parameter_groups([model])
    spared = {id(weight) for group in groups if not group["weight_decay"] for weight in group["params"]}
    assert {id(part.weight) for part in embeddings} <= spared


def test_adapters_stand_beside_the_blocks_own_matrices(captioner: Captioner) -> None:
    model = captioner.language_model
    with pytest.raises(UserError, match="nosuch is not of") as refused:
        add_lora(model, targets=["nosuch"])
    name = str(refused.value).rpartition(" is not of ")[2].split(", ")[0]
    before = model(inputs_embeds=torch.ones(1, 2, 32)).logits
    add_lora(model, rank=2, last_blocks=1, targets=[name])
    adapters = [part for part, _ in model.named_parameters() if ".lora_A." in part]
    assert len(adapters) == 1 and f".2.{name}." in adapters[0]
    torch.testing.assert_close(model(inputs_embeds=torch.ones(1, 2, 32)).logits, before)


class LooksAhead(LlamaModel):
    """Each token knows the mean of all tokens."""

    def forward(self, inputs_embeds: Tensor, **told: object) -> object:  # type: ignore[override]
        return super().forward(inputs_embeds=inputs_embeds + inputs_embeds.mean(dim=1, keepdim=True), **told)  # type: ignore[arg-type]


def test_what_is_missing_is_refused_by_ability() -> None:
    capped = Gemma2Config(**GROUPED, head_dim=16, vocab_size=300, final_logit_softcapping=0.5)
    model = shaken(AutoModelForCausalLM.from_config(capped), 0.2).eval()
    with pytest.raises(UserError, match="changes its logits behind its output layer"):
        require_causal(model)
    leaking = AutoModelForCausalLM.from_config(configurations(300, 0)["llama"]).eval()
    leaking.model.__class__ = LooksAhead
    with pytest.raises(UserError, match="is not causal"):
        require_causal(leaking)
    assert positions(leaking) == 64
    limitless = AutoModelForCausalLM.from_config(configurations(300, 0)["bloom"])
    assert positions(limitless) > 10**9


def test_a_family_that_transformers_does_not_provide_is_one_line(tmp_path: Path) -> None:
    base = small_captioner()
    source = BackboneSource("tiny", "tiny", "embedded:tiny")
    mapper = build_mapper("linear_patch", embed_dim=128, width=128, embedding_dim=32, grid=(12, 12), blocks=3)
    captioner = Captioner(build_backbone(**vars(source)), mapper, base.language_model, base.tokenizer).eval()
    save_captioner(captioner, CaptionerSettings(source, "linear_patch"), tmp_path)
    file = tmp_path / "config.json"
    file.write_text(file.read_text().replace('"model_type": "gpt2"', '"model_type": "of_tomorrow"'))
    with pytest.raises(UserError, match="of the family of_tomorrow, which the installed transformers does not provide"):
        load_captioner(tmp_path)
