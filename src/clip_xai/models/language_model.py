"""GPT-2 language models, the embedded tiny one and the published ones, with their tokenizers."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import GPT2Config, GPT2LMHeadModel

from clip_xai.errors import UserError
from clip_xai.models.assets import TINY_GPT2
from clip_xai.models.hub import hub_folder
from clip_xai.models.tokenizer import CaptionTokenizer

EMBEDDED = "embedded:tiny"
TOKENIZER = "tokenizer.json"


def build_language_model(name: str, pretrained: str | None) -> tuple[GPT2LMHeadModel, CaptionTokenizer]:
    """Build a GPT-2 with its tokenizer.

    Args:
        name: ``tiny`` or the hub name that gives the architecture (``gpt2``, ``gpt2-medium``, ...).
        pretrained: ``"embedded:tiny"``, a directory in the transformers format (``config.json``,
            ``model.safetensors``, ``tokenizer.json``), a hub name, or None for random weights.

    Raises:
        UserError: The weights are nowhere to be had.
    """
    if pretrained == EMBEDDED or (name == "tiny" and pretrained is None):
        return _embedded(random=pretrained is None)
    if pretrained is None:
        return _random(name)
    return _pretrained(pretrained)


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
    if name not in PUBLISHED_SIZES:
        raise UserError(f"language_model={name}: the sizes at random weights are tiny, {', '.join(PUBLISHED_SIZES)}")
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


def load_tokenizer(source: str) -> CaptionTokenizer:
    """Return the tokenizer of a folder with ``tokenizer.json``, or of a hub name.

    Raises:
        UserError: It is nowhere to be had.
    """
    advice = "put GPT-2's tokenizer.json into a folder and name that"
    folder = Path(source) if Path(source).is_dir() else hub_folder(source, TOKENIZER, (TOKENIZER,), advice)
    if not (folder / TOKENIZER).is_file():
        raise UserError(f"{folder} has no {TOKENIZER}; {advice}")
    return CaptionTokenizer.load(folder)


def _pretrained(source: str) -> tuple[GPT2LMHeadModel, CaptionTokenizer]:
    advice = (
        "put config.json, model.safetensors and tokenizer.json into a folder and set language_model.pretrained=FOLDER, "
        "or run on random weights with language_model.pretrained=null"
    )
    files = ("config.json", "model.safetensors", TOKENIZER)
    folder = Path(source) if Path(source).is_dir() else hub_folder(source, "config.json", files, advice)
    missing = [file for file in files if not (folder / file).is_file()]
    if missing:
        raise UserError(f"the language model {source} lacks {', '.join(missing)}; {advice}")
    kind = json.loads((folder / "config.json").read_text()).get("model_type")
    if kind != "gpt2":
        raise UserError(f"the language model {source} is a {kind}; choose a GPT-2: {', '.join(PUBLISHED_SIZES)}")
    model = GPT2LMHeadModel.from_pretrained(folder, use_safetensors=True, dtype=torch.float32)
    return model.eval(), CaptionTokenizer.load(folder)
