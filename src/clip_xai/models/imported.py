"""What readers of others' checkpoints share: weights under this project's keys, held against what they should be.

A file tells its sizes by the shapes of its weights. Each size stands in several of them: where one does not agree with
the others the file is refused, and so is every key that is missing, unknown, of another shape, or not finite. Messages
name keys as they stand in the file.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from clip_xai.errors import UserError
from clip_xai.models.backbones.base import VisionBackbone
from clip_xai.models.captioner import Captioner
from clip_xai.models.finite import require_finite
from clip_xai.models.lora import add_lora
from clip_xai.models.mappers import build_mapper
from clip_xai.models.settings import Decoding
from clip_xai.models.tokenizer import CaptionTokenizer
from clip_xai.models.weights import CaptionerSettings
from clip_xai.text import counted

HEAD_WIDTH = 64  # of every published GPT-2
WORDS, PLACES = "language_model.transformer.wte.weight", "language_model.transformer.wpe.weight"
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_MASKS = (*_FLOATS, torch.bool, torch.uint8)


@dataclass(frozen=True)
class Scheme:
    """How the keys of a file are called here.

    Attributes:
        title: Whose checkpoints these are, for messages.
        language_model: What stands before GPT-2's own keys.
        renamed: The key here of a key there; None for one that has no place.
        spelled: The key there of a key here.
    """

    title: str
    language_model: str
    renamed: Callable[[str], str | None]
    spelled: Callable[[str], str]


@dataclass(frozen=True)
class Imported:
    """What a checkpoint says.

    Attributes:
        scheme: How its keys are called here.
        state: Its weights under this project's keys, without the tied output layer.
        reads: The key of the weight whose columns are as many as the embedding's dimensions.
        settings: What a captioner is built from to hold them.
        language_model: The language model's configuration.
        decoding: How its captions were decoded.
    """

    scheme: Scheme
    state: dict[str, Tensor]
    reads: str
    settings: CaptionerSettings
    language_model: GPT2Config
    decoding: Decoding

    @property
    def embed_dim(self) -> int:
        """How many dimensions of the tower's embedding it reads."""
        return self.state[self.reads].shape[1]


def weights_of(source: Mapping[Any, Any], scheme: Scheme, file: Path) -> dict[str, Tensor]:
    """Return the weights under this project's keys; what is left out is known to be superfluous.

    Raises:
        UserError: Something is no weight, a key has no place here, or what should be a copy or a constant is not.
    """
    part = scheme.language_model
    for key, value in source.items():
        plain = isinstance(value, Tensor) and value.layout == torch.strided and value.device.type == "cpu"
        if not isinstance(key, str) or not plain or value.dtype not in _MASKS:
            raise UserError(
                f"{file} is not a checkpoint of {scheme.title}: its {key!r} is not a tensor of plain numbers"
            )
    require_finite(source, file)
    state: dict[str, Tensor] = {}
    for key, value in source.items():
        if key == f"{part}.lm_head.weight":
            words = source.get(f"{part}.transformer.wte.weight")
            if words is not None and (words.dtype != value.dtype or not torch.equal(value, words)):
                raise UserError(f"{file}: {key} is not tied to {part}.transformer.wte.weight, as {scheme.title} has it")
        elif re.fullmatch(rf"{part}\.transformer\.h\.\d+\.attn\.(bias|masked_bias)", key):
            _require_constant(key, value, source.get(f"{part}.transformer.wpe.weight"), file)
        else:
            own = scheme.renamed(key)
            if own is None or own in state:
                raise UserError(f"{file}: the key {key} is not of {scheme.title}")
            if value.dtype not in _FLOATS:
                raise UserError(f"{file}: {key} holds whole numbers ({value.dtype}), which are no weights")
            state[own] = value
    return state


def shared_size(state: Mapping[str, Tensor], axes: Mapping[str, tuple[int, int]], scheme: Scheme, file: Path) -> int:
    """Return the one size that several weights have in common.

    Args:
        state: Weights under this project's keys.
        axes: Key -> number of its dimensions, and which of them has the size.
        scheme: For messages.
        file: For messages.

    Raises:
        UserError: One of them is missing, has another number of dimensions, or another size than the others.
    """
    for key, (dimensions, _) in axes.items():
        if key not in state:
            raise UserError(f"{file} lacks {scheme.spelled(key)}: it is cut, or no checkpoint of {scheme.title}")
        if state[key].ndim != dimensions:
            kind = "vector" if dimensions == 1 else "matrix"
            raise UserError(f"{file}: {_shown(key, state, scheme)}, which is no {kind}")
    sizes = {key: state[key].shape[axis] for key, (_, axis) in axes.items()}
    counts = Counter(sizes.values())
    rarest = sorted(counts, key=lambda size: counts[size])
    if len(rarest) > 1:
        first = [next(key for key in sizes if sizes[key] == size) for size in rarest[:3]]
        shapes = ", and ".join(_shown(key, state, scheme) for key in first)
        raise UserError(f"{file} is damaged, or no checkpoint of {scheme.title}: {shapes}, which do not fit together")
    return rarest[0]


def gpt2_config(state: Mapping[str, Tensor], scheme: Scheme, file: Path, heads: int | None) -> GPT2Config:
    """Return the configuration of the GPT-2 whose weights these are.

    Args:
        state: Weights under this project's keys.
        scheme: For messages.
        file: For messages.
        heads: Its attention heads, which weights do not tell; None for heads as wide as the published sizes have them.

    Raises:
        UserError: Weights are missing or do not fit together, or the heads do not divide the width.
    """
    final, first = "language_model.transformer.ln_f.weight", "language_model.transformer.h.0.ln_1.weight"
    axes = {WORDS: (2, 1), PLACES: (2, 1), final: (1, 0), first: (1, 0)}
    width = shared_size(state, axes, scheme, file)
    if heads is None and (width < HEAD_WIDTH or width % HEAD_WIDTH):
        raise UserError(
            f"{file}: a GPT-2 of width {width} has no heads of {HEAD_WIDTH}: say how many it has with --heads"
        )
    if heads is not None and (heads < 1 or width % heads):
        raise UserError(f"--heads={heads} does not divide the width of {width} of the GPT-2 in {file}")
    numbered = {key: key.split(".")[3] for key in state if key.startswith("language_model.transformer.h.")}
    for key, number in numbered.items():
        if not number.isdecimal():
            raise UserError(f"{file}: the key {scheme.spelled(key)} is not of {scheme.title}")
    blocks = set(numbered.values())
    gap = next((number for number in range(len(blocks)) if str(number) not in blocks), None)
    if gap is not None:
        lost = scheme.spelled(f"language_model.transformer.h.{gap}.ln_1.weight")
        raise UserError(f"{file} lacks {lost} of {len(blocks)} blocks: it is cut, or no checkpoint of {scheme.title}")
    vocabulary, positions = state[WORDS].shape[0], state[PLACES].shape[0]
    return GPT2Config(
        vocab_size=vocabulary,
        n_positions=positions,
        n_embd=width,
        n_layer=len(blocks),
        n_head=heads or width // HEAD_WIDTH,
        bos_token_id=vocabulary - 1,
        eos_token_id=vocabulary - 1,
    )


def whole_number(rows: int, width: int, key: str, scheme: Scheme, file: Path) -> int:
    """Return how many vectors of a width so many rows are.

    Raises:
        UserError: They are not a whole number of them.
    """
    count, rest = divmod(rows, width)
    if rest or not count:
        raise UserError(
            f"{file}: the {counted(rows, 'row')} of {scheme.spelled(key)} do not make a whole number of slots of "
            f"{width}"
        )
    return count


def assembled(imported: Imported, tower: VisionBackbone, tokenizer: CaptionTokenizer, file: Path) -> Captioner:
    """Put a checkpoint's weights onto its tower, in evaluation mode; ``file`` is named in errors.

    Raises:
        UserError: Tower or tokenizer are not those that the checkpoint was trained with, or a key is missing, unknown
            or of another shape.
    """
    settings, scheme, config = imported.settings, imported.scheme, imported.language_model
    if tower.embed_dim != imported.embed_dim:
        raise UserError(
            f"{file} reads embeddings of {imported.embed_dim} dimensions and the tower gives {tower.embed_dim} "
            f"({_shown(imported.reads, imported.state, scheme)})"
        )
    if tokenizer.vocabulary_size != config.vocab_size:
        raise UserError(
            f"{file} knows {config.vocab_size} tokens ({scheme.spelled(WORDS)}) and the tokenizer has "
            f"{tokenizer.vocabulary_size}; name a folder with GPT-2's own"
        )
    with torch.device("meta"):  # a file that does not fit costs no memory
        _require_fitting(_built(imported), imported, file)
    built = _built(imported)
    built.load_state_dict(imported.state, strict=False)
    mapper, language_model = built["mapper"], built["language_model"]
    return Captioner(tower, mapper, language_model, tokenizer, settings.prompt).eval()  # type: ignore[arg-type]


def _built(imported: Imported) -> nn.ModuleDict:
    settings, config = imported.settings, imported.language_model
    language_model = GPT2LMHeadModel(config)
    if settings.lora is not None:
        add_lora(language_model, **settings.lora)
    mapper = build_mapper(
        settings.mapper,
        embed_dim=imported.embed_dim,
        width=imported.embed_dim,  # read by no mapper of others
        embedding_dim=config.n_embd,
        **settings.mapper_settings,
    )
    return nn.ModuleDict({"mapper": mapper, "language_model": language_model})


def _require_fitting(modules: nn.Module, imported: Imported, file: Path) -> None:
    """Account for every key under its name in the file."""
    state, scheme = imported.state, imported.scheme
    own = {key: value for key, value in modules.state_dict().items() if key != "language_model.lm_head.weight"}
    for key in state:
        if key not in own:
            raise UserError(f"{file}: the key {scheme.spelled(key)} is not of {scheme.title}")
    for key in own:
        if key not in state:
            raise UserError(f"{file} lacks {scheme.spelled(key)}: it is cut, or no checkpoint of {scheme.title}")
    for key, value in state.items():
        if value.shape != own[key].shape:
            raise UserError(
                f"{file} is damaged, or no checkpoint of {scheme.title}: {_shown(key, state, scheme)}, and "
                f"{_shape(own[key])} fits the rest of it"
            )


def _require_constant(key: str, value: Tensor, places: Tensor | None, file: Path) -> None:
    """Older versions of transformers wrote GPT-2's causal mask, and a number for minus infinity, beside its weights."""
    if key.endswith(".masked_bias"):
        if value.numel() != 1:
            raise UserError(f"{file}: {key} is not the one number that masks GPT-2's attention")
        return
    side = value.shape[-1] if value.ndim >= 2 else 0
    square = side > 0 and value.shape[-2] == side and value.numel() == side**2
    if not square or not torch.equal(value.bool().reshape(side, side), torch.ones(side, side).tril().bool()):
        raise UserError(f"{file}: {key} is not GPT-2's causal mask")
    if places is not None and places.shape[:1] != (side,):
        there = key.partition(".")[0]
        raise UserError(
            f"{file} is damaged: {key} is of {counted(side, 'position')} and {there}.transformer.wpe.weight has the "
            f"shape {_shape(places)}"
        )


def _shown(key: str, state: Mapping[str, Tensor], scheme: Scheme) -> str:
    return f"{scheme.spelled(key)} has the shape {_shape(state[key])}"


def _shape(value: Tensor) -> Sequence[int]:
    return tuple(value.shape)
