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

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from clip_xai.errors import UserError
from clip_xai.models.backbones.backbone_builder import BackboneSource, build_backbone
from clip_xai.models.backbones.catalogue import CATALOGUE
from clip_xai.models.captioner import Captioner
from clip_xai.models.hub import hub_folder
from clip_xai.models.imported import Imported, Scheme, assembled, gpt2_config, shared_size, weights_of, whole_number
from clip_xai.models.language_model import load_tokenizer
from clip_xai.models.lora import TARGETS
from clip_xai.models.reading import read_pickle
from clip_xai.models.settings import Decoding
from clip_xai.models.weights import CaptionerSettings

__all__ = ["PUBLISHED", "assembled", "load_original", "read_original"]

ALPHA = 16  # written in the original's code, not in its files
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


def _renamed(key: str) -> str | None:
    part, _, rest = key.partition(".")
    if part == "prefix":
        name, dot, tail = rest.partition(".")
        return f"mapper.{_MAPPER[name]}{dot}{tail}" if name in _MAPPER else None
    if part != "gpt2":
        return None
    matrix = re.fullmatch(r"(transformer\.h\.\d+\.(?:attn|mlp)\.\w+)\.(base|A|B)\.(weight|bias)", rest)
    return f"language_model.{matrix[1]}.{_ADAPTER[matrix[2]]}.{matrix[3]}" if matrix else f"language_model.{rest}"


def _spelled(key: str) -> str:
    part, _, rest = key.partition(".")
    if part == "mapper":
        name, dot, tail = rest.partition(".")
        there = {own: name for name, own in _MAPPER.items()}.get(name, name)
        return f"prefix.{there}{dot}{tail}"
    for short, own in _ADAPTER.items():
        rest = rest.replace(f".{own}.", f".{short}.")
    return f"gpt2.{rest}"


SCHEME = Scheme("the original captioner", "gpt2", _renamed, _spelled)


def read_original(file: Path, heads: int | None = None) -> Imported:
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
        raise UserError(f"{error}; it is not a checkpoint of {SCHEME.title}") from error
    parts = content if isinstance(content, dict) else {}
    source, config, meta = parts.get("model"), parts.get("cfg"), parts.get("meta") or {}
    if not isinstance(source, dict) or not isinstance(config, dict) or not isinstance(meta, dict):
        raise UserError(f"{file} is not a checkpoint of {SCHEME.title}: it has no model and cfg")
    said = {**config, **{key: value for key, value in meta.items() if value}}
    state = weights_of(source, SCHEME, file)
    model = gpt2_config(state, SCHEME, file, heads)
    rank, adapted = _adapters(state, model.n_layer, file)
    hidden, slots = _mapper(state, model.n_embd, file)
    preset = _text(said, "CLIP_PRESET", "", file)
    tower = _text(said, "clip_repo", PRESETS.get(preset, ""), file)
    places = {entry.pretrained: name for name, entry in CATALOGUE.items()}
    name = places.get(f"hf-hub:{tower}")
    if name is None:
        raise UserError(f"{file} was trained on the tower {tower or '?'}; known are {', '.join(PRESETS.values())}")
    settings = CaptionerSettings(
        backbone=BackboneSource(name, CATALOGUE[name].architecture, f"hf-hub:{tower}"),
        mapper="bottleneck_mlp",
        mapper_settings={
            "prefix_length": slots,
            "hidden": hidden,
            "dropout": _number(said, "prefix_dropout_p", 0.05, file),
        },
        language_model=_text(said, "gpt2_name", _text(said, "GPT2_NAME", "gpt2-medium", file), file),
        language_model_pretrained=None,
        prompt=_text(said, "prompt", _text(said, "prompt_B", "", file), file),
        lora=None
        if rank is None
        else {"rank": rank, "alpha": ALPHA, "dropout": 0.05, "last_blocks": adapted, "targets": list(TARGETS)},
    )
    return Imported(SCHEME, state, "mapper.hidden.weight", settings, model, _decoding(said, file))


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


def _adapters(state: dict[str, Tensor], blocks: int, file: Path) -> tuple[int | None, int | None]:
    """Return the adapters' rank and the number of last blocks that have them."""
    down, up = ([key for key in state if f".{_ADAPTER[part]}." in key] for part in "AB")
    if not down and not up:
        return None, None
    rank = shared_size(state, {key: (2, 0) for key in down} | {key: (2, 1) for key in up}, SCHEME, file)
    adapted = {int(key.split(".")[3]) for key in (*down, *up)}
    if adapted != set(range(blocks - len(adapted), blocks)):
        raise UserError(f"{file}: adapters in the blocks {sorted(adapted)}, which are not the last ones")
    return rank, len(adapted)


def _mapper(state: dict[str, Tensor], width: int, file: Path) -> tuple[int, int]:
    """Return the mapper's inner width and its number of slots."""
    first, last = "mapper.hidden", "mapper.output"
    axes = {f"{first}.weight": (2, 0), f"{first}.bias": (1, 0), f"{last}.weight": (2, 1)}
    hidden = shared_size(state, axes, SCHEME, file)
    rows = shared_size(state, {f"{last}.weight": (2, 0), f"{last}.bias": (1, 0)}, SCHEME, file)
    return hidden, whole_number(rows, width, f"{last}.weight", SCHEME, file)


def _decoding(said: Mapping[str, Any], file: Path) -> Decoding:
    phrases = said.get("cliche_phrases") or ()
    if not isinstance(phrases, (list, tuple)) or not all(isinstance(phrase, str) for phrase in phrases):
        raise UserError(f"{file}: its cliche_phrases are not a list of texts: {phrases!r:.60}")
    usual = {"min_new_tokens": 24, "no_repeat_ngram_size": 4, "repetition_penalty": 1.15, "length_penalty": 0.6}
    values: dict[str, Any] = {key: type(value)(_number(said, key, value, file)) for key, value in usual.items()}
    beams, longest = (int(_number(said, key, value, file)) for key, value in (("gen_beams", 4), ("gen_max_new", 80)))
    try:
        return Decoding(
            beams=max(4, min(6, beams)),
            max_new_tokens=min(longest, 60),
            early_stopping=True,
            banned_phrases=list(phrases),
            **values,
        )
    except UserError as error:
        raise UserError(f"{file} has a cfg that captions cannot be decoded with: {error}") from error


def _number(said: Mapping[str, Any], key: str, usual: float, file: Path) -> float:
    value = said.get(key, usual)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise UserError(f"{file}: its {key} is not a number: {value!r:.60}")
    return float(value)


def _text(said: Mapping[str, Any], key: str, usual: str, file: Path) -> str:
    value = said.get(key) or usual
    if not isinstance(value, str):
        raise UserError(f"{file}: its {key} is not a text: {value!r:.60}")
    return value


def _downloaded(repository: str, revision: str | None) -> Path:
    if repository not in PUBLISHED:
        raise UserError(
            f"{repository} is neither a file nor a checkpoint of the original; known are {', '.join(PUBLISHED)}"
        )
    file = PUBLISHED[repository]
    advice = "download the .pt file once and name it instead of the repository"
    return hub_folder(repository, file, (file,), advice, revision) / file
