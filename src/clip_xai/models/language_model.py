"""Language models with their tokenizers: the embedded tiny one, GPT-2's sizes, and any causal one of transformers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from clip_xai.errors import UserError
from clip_xai.files import reading
from clip_xai.models.assets import TINY_GPT2
from clip_xai.models.causal_model import require_causal, word_embeddings
from clip_xai.models.hub import hub_folder
from clip_xai.models.tokenizer import MARKERS, CaptionTokenizer
from clip_xai.registry import Registry

EMBEDDED = "embedded:tiny"
TOKENIZER = "tokenizer.json"
LanguageModel = tuple[PreTrainedModel, CaptionTokenizer]
# Builds, at random weights, the language model that ``language_model.name`` names, with its tokenizer.
language_models: Registry[Callable[[], LanguageModel]] = Registry("language model", "language_models")


def build_language_model(name: str, pretrained: str | None) -> LanguageModel:
    """Build a causal language model with its tokenizer.

    Args:
        name: What it is called: a key of ``language_models`` where the weights are random, and for published ones any.
        pretrained: ``"embedded:tiny"``, a directory in the transformers format (``config.json``,
            ``model.safetensors``, ``tokenizer.json``), a hub name, or None for random weights.

    Raises:
        UserError: The weights are nowhere to be had, or the model lacks an ability that a captioner needs.
    """
    if pretrained == EMBEDDED:
        return _embedded(random=False)
    if pretrained is not None:
        return _pretrained(pretrained)
    model, tokenizer = language_models.named(name, "language_model")()
    if language_models.module_of(name):
        require_causal(model)
    return model.float().eval(), tokenizer


def tiny_config(vocabulary_size: int, eos_id: int) -> GPT2Config:
    """Return the configuration of the embedded GPT-2: 4 blocks of width 128, 128 positions."""
    return GPT2Config(
        vocab_size=vocabulary_size,
        n_positions=128,
        n_embd=128,
        n_layer=4,
        n_head=4,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=eos_id,
        eos_token_id=eos_id,
        pad_token_id=eos_id,
    )


@language_models.register("tiny")
def _tiny() -> LanguageModel:
    return _embedded(random=True)


def _embedded(random: bool) -> tuple[GPT2LMHeadModel, CaptionTokenizer]:
    tokenizer = CaptionTokenizer.load(TINY_GPT2)
    model = GPT2LMHeadModel(tiny_config(tokenizer.vocabulary_size, tokenizer.eos_id))
    if not random:
        weights = load_file(TINY_GPT2 / "model.safetensors")
        # GPT-2 ties its output layer to the embedding, and the file holds the tensor once.
        weights["lm_head.weight"] = weights["transformer.wte.weight"]
        model.load_state_dict({key: value.float() for key, value in weights.items()})
    return model.eval(), tokenizer


PUBLISHED_SIZES = {
    "gpt2": (768, 12, 12),
    "gpt2-medium": (1024, 24, 16),
    "gpt2-large": (1280, 36, 20),
    "gpt2-xl": (1600, 48, 25),
}


def _random(name: str) -> tuple[GPT2LMHeadModel, CaptionTokenizer]:
    """A published size at random weights: its vocabulary size, with the embedded tokenizer's ids in front.

    The published tokenizer files are not at hand without the hub; ids above the embedded vocabulary stay unused.
    """
    width, layers, heads = PUBLISHED_SIZES[name]
    tokenizer = CaptionTokenizer.load(TINY_GPT2)
    config = GPT2Config(
        n_embd=width,
        n_layer=layers,
        n_head=heads,
        bos_token_id=tokenizer.eos_id,
        eos_token_id=tokenizer.eos_id,
        pad_token_id=tokenizer.eos_id,
    )
    return GPT2LMHeadModel(config).eval(), tokenizer


def _size(name: str) -> Callable[[], LanguageModel]:
    return lambda: _random(name)


for _name in PUBLISHED_SIZES:
    language_models.register(_name)(_size(_name))


def load_tokenizer(source: str) -> CaptionTokenizer:
    """Return the tokenizer of a folder with ``tokenizer.json``, or of a hub name.

    Raises:
        UserError: It is nowhere to be had.
    """
    advice = "put GPT-2's tokenizer.json into a folder and name that"
    folder = Path(source) if Path(source).is_dir() else hub_folder(source, TOKENIZER, (TOKENIZER, MARKERS), advice)
    if not (folder / TOKENIZER).is_file():
        raise UserError(f"{folder} has no {TOKENIZER}; {advice}")
    return CaptionTokenizer.load(folder)


def _pretrained(source: str) -> LanguageModel:
    advice = (
        "put config.json, model.safetensors and tokenizer.json into a folder and set language_model.pretrained=FOLDER, "
        "or run on random weights with language_model.pretrained=null"
    )
    files = ("config.json", "model.safetensors", TOKENIZER)
    folder = Path(source) if Path(source).is_dir() else hub_folder(source, "config.json", (*files, MARKERS), advice)
    missing = [file for file in files if not (folder / file).is_file()]
    if missing:
        raise UserError(f"the language model {source} lacks {', '.join(missing)}; {advice}")
    kind = json.loads((folder / "config.json").read_text()).get("model_type")
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise UserError(
            f"the language model {source} is a {kind}, which is not a causal language model of transformers: choose a "
            f"folder of one, or a GPT-2: {', '.join(PUBLISHED_SIZES)}"
        )
    with reading(folder / "config.json", "choose another folder"):
        automatic: Any = AutoModelForCausalLM
        model, loaded = automatic.from_pretrained(
            folder, use_safetensors=True, dtype=torch.float32, local_files_only=True, trust_remote_code=False,
            output_loading_info=True,
        )  # fmt: skip
    if loaded["missing_keys"]:
        raise UserError(
            f"{folder / 'model.safetensors'} does not hold every weight of a {type(model).__name__}: "
            f"{min(loaded['missing_keys'])} is missing, so it is not the file of this config.json"
        )
    require_causal(model)
    tokenizer = CaptionTokenizer.load(folder)
    rows = word_embeddings(model).num_embeddings
    if tokenizer.largest_id >= rows:
        raise UserError(
            f"{folder / TOKENIZER} has ids up to {tokenizer.largest_id}, and the language model {rows} "
            "embeddings: it is not the tokenizer of this model"
        )
    return model.eval(), tokenizer
