"""The original CLIP-XAI captioner's published checkpoints, read into captioners of this project.

A checkpoint is ``{"model": state, "cfg": ..., "meta": ...}``; ``best_stageA.pt`` and ``best_stageB.pt`` have no
``meta``. The state's keys are those of three modules:

- ``prefix.fc1``, ``prefix.fc2``, ``prefix.ln`` and ``prefix.alpha``: the bottleneck mapper;
- ``gpt2.*``: a GPT-2 whose output layer is tied to its embedding and stands in the file twice;
- where a matrix has an adapter, ``<matrix>.base.weight``, ``<matrix>.base.bias``, ``<matrix>.A.weight`` and
  ``<matrix>.B.weight``, with alpha over rank equal to 16 over rank.

Loading without the adapters, and letting the keys that do not fit fall under the table, would give a last block that
was never trained; here every key is accounted for.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from clip_xai.errors import UserError
from clip_xai.models.backbones.backbone_builder import BackboneSource, build_backbone
from clip_xai.models.backbones.base import Backbone
from clip_xai.models.backbones.catalogue import CATALOGUE
from clip_xai.models.captioner import Captioner
from clip_xai.models.decoding import Decoding
from clip_xai.models.finite import require_finite
from clip_xai.models.hub import hub_folder
from clip_xai.models.language_model import load_tokenizer
from clip_xai.models.lora import TARGETS, add_lora
from clip_xai.models.mappers import build_mapper
from clip_xai.models.reading import read_pickle
from clip_xai.models.tokenizer import CaptionTokenizer
from clip_xai.models.weights import CaptionerSettings, load_state

ALPHA = 16  # written in the original's code, not in its files
HEAD_WIDTH = 64  # of every GPT-2
PUBLISHED = {
    "moxeeeem/dermlip-gpt2-captioner": "final_captioner_gpt2-medium_VisionTransformer.pt",
    "moxeeeem/biomedclip-gpt2-captioner": "final_captioner_gpt2-medium_TimmModel.pt",
}
PRESETS = {
    "dermlip_vitb16": "redlessone/DermLIP_ViT-B-16",
    "biomedclip_pubmedbert": "microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224",
}
_MAPPER = {"fc1": "hidden", "fc2": "output", "ln": "norm", "alpha": "scale"}
_ADAPTER = {"base": "base_layer", "A": "lora_A.default", "B": "lora_B.default"}


@dataclass(frozen=True)
class Original:
    """What a checkpoint of the original says.

    Attributes:
        state: Its weights under this project's keys, without the tied output layer.
        settings: What a captioner is built from to hold them.
        language_model: The language model's configuration.
        decoding: How its captions were decoded, with the bans that the original meant.
    """

    state: dict[str, Tensor]
    settings: CaptionerSettings
    language_model: GPT2Config
    decoding: Decoding


def read_original(file: Path, heads: int | None = None) -> Original:
    """Read a checkpoint of the original; nothing in it can run code.

    Args:
        file: The checkpoint.
        heads: Attention heads of its GPT-2, which its weights do not tell; None for those of the published sizes.

    Raises:
        UserError: The file is not such a checkpoint, lacks a key, has one that has no place, or holds NaN.
    """
    try:
        content = read_pickle(file)
    except UserError as error:
        raise UserError(f"{error}; it is not a checkpoint of the original captioner") from error
    parts = content if isinstance(content, dict) else {}
    source, config, meta = parts.get("model"), parts.get("cfg"), parts.get("meta") or {}
    if not isinstance(source, dict) or not isinstance(config, dict) or not isinstance(meta, dict):
        raise UserError(f"{file} is not a checkpoint of the original captioner: it has no model and cfg")
    if not all(isinstance(value, Tensor) for value in source.values()):
        raise UserError(f"{file} is not a checkpoint of the original captioner: its model holds more than tensors")
    require_finite(source, file)
    state = renamed(source, file)
    _require(state, ("mapper.hidden.weight", "mapper.output.weight"), 2, file)
    model, rank, blocks = _language_model(state, file, heads)
    tower = meta.get("clip_repo") or PRESETS.get(config.get("CLIP_PRESET", ""), "")
    places = {entry.pretrained: name for name, entry in CATALOGUE.items()}
    name = places.get(f"hf-hub:{tower}")
    if name is None:
        raise UserError(f"{file} was trained on the tower {tower or '?'}; known are {', '.join(PRESETS.values())}")
    slots, rest = divmod(state["mapper.output.weight"].shape[0], model.n_embd)
    if rest or not slots:
        raise UserError(f"{file}: its mapper's output is not a whole number of slots of {model.n_embd}")
    settings = CaptionerSettings(
        backbone=BackboneSource(name, CATALOGUE[name].architecture, f"hf-hub:{tower}"),
        mapper="bottleneck_mlp",
        mapper_settings={
            "prefix_length": slots,
            "hidden": state["mapper.hidden.weight"].shape[0],
            "dropout": float(config.get("prefix_dropout_p", 0.05)),
        },
        language_model=str(meta.get("gpt2_name") or config.get("GPT2_NAME") or "gpt2-medium"),
        language_model_pretrained=None,
        prompt=str(meta.get("prompt") or config.get("prompt_B") or ""),
        lora=None
        if rank is None
        else {"rank": rank, "alpha": ALPHA, "dropout": 0.05, "last_blocks": blocks, "targets": list(TARGETS)},
    )
    phrases = meta.get("cliche_phrases") or config.get("cliche_phrases") or ()
    return Original(state, settings, model, _decoding(config, tuple(phrases)))


def renamed(source: dict[str, Tensor], file: Path) -> dict[str, Tensor]:
    """Return the weights under this project's keys; what is left out is known to be superfluous.

    Raises:
        UserError: A key has no place here, or what should be a copy or a constant is not.
    """
    state: dict[str, Tensor] = {}
    for key, value in source.items():
        if key == "gpt2.lm_head.weight":
            _require(source, ("gpt2.transformer.wte.weight",), 2, file)
            if not torch.equal(value, source["gpt2.transformer.wte.weight"]):
                raise UserError(f"{file}: its output layer is not tied to its embedding, as it is in the original")
        elif re.fullmatch(r"gpt2\.transformer\.h\.\d+\.attn\.(bias|masked_bias)", key):
            _require_constant(key, value, file)
        else:
            state[_renamed(key, file)] = value
    return state


def load_original(
    source: str,
    tokenizer: str | None = None,
    backbone: str | None = None,
    revision: str | None = None,
    heads: int | None = None,
) -> tuple[Captioner, CaptionerSettings, Decoding]:
    """Build the captioner that a checkpoint of the original holds, in evaluation mode.

    Args:
        source: The checkpoint's file, or the name of its repository on the hub.
        tokenizer: A folder with GPT-2's ``tokenizer.json``, or a hub name; the language model's own name if None.
        backbone: Where the tower's weights are, as in ``backbone.pretrained``; their own repository if None.
        revision: A commit of the repository.
        heads: Attention heads of its GPT-2; see :func:`read_original`.

    Raises:
        UserError: Something is missing, or a key has no place.
    """
    file = Path(source) if Path(source).is_file() else _downloaded(source, revision)
    original = read_original(file, heads)
    settings = original.settings
    if backbone is not None:
        settings = replace(settings, backbone=replace(settings.backbone, pretrained=backbone))
    words = load_tokenizer(tokenizer or f"openai-community/{settings.language_model}")
    tower = build_backbone(**asdict(settings.backbone))
    return assembled(original, tower, words, file), settings, original.decoding


def assembled(original: Original, tower: Backbone, tokenizer: CaptionTokenizer, file: Path) -> Captioner:
    """Put a checkpoint's weights onto its tower, in evaluation mode; ``file`` is named in errors.

    Raises:
        UserError: Tower or tokenizer are not those that the checkpoint was trained with.
    """
    settings, width = original.settings, original.state["mapper.hidden.weight"].shape[1]
    if tower.embed_dim != width:
        raise UserError(f"{file} reads embeddings of {width} dimensions and the tower gives {tower.embed_dim}")
    if tokenizer.vocabulary_size != original.language_model.vocab_size:
        raise UserError(
            f"{file} knows {original.language_model.vocab_size} tokens and the tokenizer has "
            f"{tokenizer.vocabulary_size}; name a folder with GPT-2's own"
        )
    language_model = GPT2LMHeadModel(original.language_model)
    if settings.lora is not None:
        add_lora(language_model, **settings.lora)
    mapper = build_mapper(
        settings.mapper,
        embed_dim=tower.embed_dim,
        width=tower.width,
        embedding_dim=original.language_model.n_embd,
        **settings.mapper_settings,
    )
    captioner = Captioner(tower, mapper, language_model, tokenizer, settings.prompt)
    load_state(captioner, original.state, file)
    return captioner.eval()


def _renamed(key: str, file: Path) -> str:
    part, _, rest = key.partition(".")
    if part == "prefix":
        name, dot, tail = rest.partition(".")
        if name in _MAPPER:
            return f"mapper.{_MAPPER[name]}{dot}{tail}"
    elif part == "gpt2":
        matrix = re.fullmatch(r"(transformer\.h\.\d+\.(?:attn|mlp)\.\w+)\.(base|A|B)\.(weight|bias)", rest)
        if matrix:
            return f"language_model.{matrix[1]}.{_ADAPTER[matrix[2]]}.{matrix[3]}"
        return f"language_model.{rest}"
    raise UserError(f"{file}: the key {key} does not belong to the original captioner")


def _require_constant(key: str, value: Tensor, file: Path) -> None:
    """Older versions of transformers wrote GPT-2's causal mask beside its weights."""
    causal = torch.ones(value.shape[-2:], dtype=torch.bool).tril() if value.ndim >= 2 else None
    if not (value.numel() == 1 if causal is None else torch.equal(value.bool().squeeze(), causal)):
        raise UserError(f"{file}: {key} is not GPT-2's causal mask")


def _require(state: dict[str, Tensor], keys: Sequence[str], dimensions: int, file: Path) -> None:
    for key in keys:
        if key not in state:
            raise UserError(f"{file} lacks {key}: it is cut off, or not a checkpoint of the original captioner")
        if state[key].ndim != dimensions:
            raise UserError(f"{file}: {key} has the shape {tuple(state[key].shape)}, which is not a matrix")


def _language_model(
    state: dict[str, Tensor], file: Path, heads: int | None
) -> tuple[GPT2Config, int | None, int | None]:
    """Return the configuration, the adapters' rank and the number of last blocks that have them."""
    words, places = (f"language_model.transformer.{name}.weight" for name in ("wte", "wpe"))
    _require(state, (words, places), 2, file)
    (vocabulary, width), positions = state[words].shape, state[places].shape[0]
    if heads is None and width % HEAD_WIDTH:
        raise UserError(
            f"{file}: a GPT-2 of width {width} has no heads of {HEAD_WIDTH}: say how many it has with --heads"
        )
    if heads is not None and (heads < 1 or width % heads):
        raise UserError(f"--heads={heads} does not divide the width of {width} of the GPT-2 in {file}")
    numbers = {int(key.split(".")[3]) for key in state if key.startswith("language_model.transformer.h.")}
    adapted = {int(key.split(".")[3]) for key in state if ".lora_A." in key}
    config = GPT2Config(
        vocab_size=vocabulary,
        n_positions=positions,
        n_embd=width,
        n_layer=len(numbers),
        n_head=heads or width // HEAD_WIDTH,
        bos_token_id=vocabulary - 1,
        eos_token_id=vocabulary - 1,
    )
    if not adapted:
        return config, None, None
    if adapted != set(range(len(numbers) - len(adapted), len(numbers))):
        raise UserError(f"{file}: adapters in the blocks {sorted(adapted)}, which are not the last ones")
    ranks = {value.shape[0] for key, value in state.items() if ".lora_A." in key}
    if len(ranks) > 1:
        raise UserError(f"{file}: adapters of the ranks {sorted(ranks)}; the original has one rank")
    return config, ranks.pop(), len(adapted)


def _decoding(config: dict[str, Any], phrases: tuple[str, ...]) -> Decoding:
    return Decoding(
        beams=max(4, min(6, int(config.get("gen_beams", 4)))),
        max_new_tokens=min(int(config.get("gen_max_new", 80)), 60),
        min_new_tokens=int(config.get("min_new_tokens", 24)),
        no_repeat_ngram_size=int(config.get("no_repeat_ngram_size", 4)),
        repetition_penalty=float(config.get("repetition_penalty", 1.15)),
        length_penalty=float(config.get("length_penalty", 0.6)),
        early_stopping=True,
        banned_phrases=phrases,
    )


def _downloaded(repository: str, revision: str | None) -> Path:
    if repository not in PUBLISHED:
        raise UserError(
            f"{repository} is neither a file nor a checkpoint of the original; known are {', '.join(PUBLISHED)}"
        )
    file = PUBLISHED[repository]
    advice = "download the .pt file once and name it instead of the repository"
    return hub_folder(repository, file, (file,), advice, revision) / file
