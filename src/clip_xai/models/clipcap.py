"""ClipCap's checkpoints (arXiv 2111.09734), read into captioners of this project.

A checkpoint is a bare state dict: ``gpt.*`` is a GPT-2 whose output layer is tied to its embedding and stands in the
file twice, ``clip_project.*`` a mapper with the weights of either

- ``model.0`` and ``model.2``: the MLP, half as wide inside as its output, with tanh between; or
- ``prefix_const``, ``linear`` and ``transformer.layers.N``: the transformer, with 8 heads and an MLP of ratio 2.

Published are ``coco_weights.pt`` and ``conceptual_weights.pt`` (the MLP, 10 slots, OpenAI's ViT-B/32, embedding as it
is) and ``transformer_weights.pt`` (the transformer, 40 slots, OpenAI's RN50x4, embedding brought to length 1, GPT-2 as
published). No file says its tower, whether its embedding was normalised, nor its heads.

In ClipCap's training captions are padded with token 0, GPT-2's ``!``, which its loss then leaves out wherever it
stands: nothing from there was taught to write ``!``, nor an end marker. A caption ends with its first full stop.
ClipCap ends it at the token ``.`` alone; here a longer token that ends with one, such as ``...``, ends it too, and the
five beams that go on are five beside those that have ended, where ClipCap's ended ones take their places.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from clip_xai.errors import UserError
from clip_xai.models.backbones.backbone_builder import BackboneSource, build_backbone
from clip_xai.models.backbones.catalogue import CATALOGUE
from clip_xai.models.captioner import Captioner
from clip_xai.models.imported import Imported, Scheme, assembled, gpt2_config, shared_size, weights_of, whole_number
from clip_xai.models.language_model import PUBLISHED_SIZES, load_tokenizer
from clip_xai.models.reading import read_state
from clip_xai.models.settings import Decoding
from clip_xai.models.weights import CaptionerSettings
from clip_xai.text import counted

log = logging.getLogger(__name__)
HEADS = 8  # of the transformer mapper: written in ClipCap's code, not in its files
DECODING = Decoding(beams=5, max_new_tokens=67, length_penalty=1.0, whole_sentences=False, stop_at=".")
_MAPPER = {"model.0": "hidden", "model.2": "output", "linear": "project"}
_LAYER = {
    "norm1": "norm_attention", "attn.to_queries": "query", "attn.to_keys_values": "key_value", "attn.project": "output",
    "norm2": "norm_mlp", "mlp.fc1": "mlp.0", "mlp.fc2": "mlp.2",
}  # fmt: skip


def _renamed(key: str) -> str | None:
    part, _, rest = key.partition(".")
    if part == "gpt":
        return f"language_model.{rest}"
    module, _, kind = rest.rpartition(".")
    if part != "clip_project" or not (rest == "prefix_const" or kind in ("weight", "bias")):
        return None
    if rest == "prefix_const":
        return "mapper.latents"
    layer = re.fullmatch(r"transformer\.layers\.(\d+)\.(.+)", module)
    if layer:
        return f"mapper.layers.{layer[1]}.{_LAYER[layer[2]]}.{kind}" if layer[2] in _LAYER else None
    return f"mapper.{_MAPPER[module]}.{kind}" if module in _MAPPER else None


def _spelled(key: str) -> str:
    part, _, rest = key.partition(".")
    if part == "language_model":
        return f"gpt.{rest}"
    if rest == "latents":
        return "clip_project.prefix_const"
    layer = re.fullmatch(r"layers\.(\d+)\.(.+)\.(\w+)", rest)
    if layer:
        there = {own: name for name, own in _LAYER.items()}.get(layer[2], layer[2])
        return f"clip_project.transformer.layers.{layer[1]}.{there}.{layer[3]}"
    module, _, kind = rest.rpartition(".")
    there = {own: name for name, own in _MAPPER.items()}.get(module, module)
    return f"clip_project.{there}.{kind}"


SCHEME = Scheme("ClipCap", "gpt", _renamed, _spelled)


def read_clipcap(file: Path, tower: str | None, heads: int | None = None, normalize: bool = False) -> Imported:
    """Read a checkpoint of ClipCap; nothing in it can run code.

    Args:
        file: The checkpoint.
        tower: The backbone that it was trained on, a name of the catalogue: the file does not say.
        heads: Attention heads of its GPT-2, which its weights do not tell; None for those of the published sizes.
        normalize: Whether it was trained on embeddings brought to length 1.

    Raises:
        UserError: The file is no such checkpoint, lacks a key, has one that has no place, or holds NaN; or the tower is
            not said, not known, or of another width.
    """
    try:
        source = read_state(file)
    except UserError as error:
        raise UserError(f"{error}; it is not a checkpoint of {SCHEME.title}") from error
    if "clip_project.weight" in source:
        raise UserError(
            f"{file}: its mapper is one linear layer (clip_project.weight), which ClipCap's training never makes and "
            "which has no counterpart here: train one with mapper=clipcap_mlp"
        )
    state = weights_of(source, SCHEME, file)
    model = gpt2_config(state, SCHEME, file, heads)
    plain = any(key.startswith("clip_project.model.") for key in source)
    reads, mapper, sizes = (_mlp if plain else _transformer)(state, model.n_embd, file)
    settings = CaptionerSettings(
        backbone=_tower(tower, state[reads].shape[1], file),
        mapper=mapper,
        mapper_settings={**sizes, "normalize": normalize},
        language_model={size[0]: name for name, size in PUBLISHED_SIZES.items()}.get(model.n_embd, "gpt2"),
        language_model_pretrained=None,
    )
    return Imported(SCHEME, state, reads, settings, model, DECODING)


def load_clipcap(
    source: str,
    tower: str | None,
    tokenizer: str | None = None,
    backbone: str | None = None,
    heads: int | None = None,
    normalize: bool = False,
) -> tuple[Captioner, CaptionerSettings, Decoding]:
    """Build the captioner that a checkpoint of ClipCap holds, in evaluation mode, and say what was assumed of it.

    Args:
        source: The checkpoint's file.
        tower: The backbone that it was trained on; see :func:`read_clipcap`.
        tokenizer: A folder with GPT-2's ``tokenizer.json``, or a hub name; the language model's own name if None.
        backbone: Where the tower's weights are, as in ``backbone.pretrained``; where the catalogue has them if None.
        heads: Attention heads of its GPT-2.
        normalize: Whether it was trained on embeddings brought to length 1.

    Raises:
        UserError: Something is missing, or a key has no place.
    """
    file = Path(source)
    found = read_clipcap(file, tower, heads, normalize)
    settings = found.settings
    if backbone is not None:
        settings = replace(settings, backbone=replace(settings.backbone, pretrained=backbone))
    if settings.backbone.pretrained is None:
        raise UserError(f"--tower {tower} may be any model: say with --backbone where its weights are")
    words = load_tokenizer(tokenizer or f"openai-community/{settings.language_model}")
    captioner = assembled(found, build_backbone(**asdict(settings.backbone)), words, file)
    log.warning("%s", assumed(found, file, heads))
    return captioner, settings, found.decoding


def assumed(imported: Imported, file: Path, heads: int | None) -> str:
    """Return in one line what was taken as said or as usual, because the file does not tell it.

    Args:
        imported: What was read.
        file: From where.
        heads: What was said of GPT-2's attention heads.
    """
    settings, count = imported.settings.mapper_settings, imported.language_model.n_head
    said, usual = [f"tower {imported.settings.backbone.name}"], []
    if settings["normalize"]:
        said.append("embedding brought to length 1")
    else:
        usual.append("embedding not normalised (--normalize-embedding otherwise)")
    if heads:
        said.append(f"heads of GPT-2: {count}")
    else:
        usual.append(f"heads of GPT-2: {count} (--heads otherwise)")
    usual += [f"heads of the mapper: {settings['heads']}"] if "heads" in settings else []
    assumptions = f"; assumed: {', '.join(usual)}" if usual else ""
    return (
        f"{file} does not tell all of itself. As said: {', '.join(said)}{assumptions}. Use it with generation=clipcap"
    )


def towers_of(width: int) -> list[str]:
    """Return the backbones of the catalogue whose embedding has a width; built without memory for their weights."""
    return [name for name, entry in CATALOGUE.items() if entry.pretrained is not None and _width(name) == width]


@lru_cache
def _width(name: str) -> int:
    with torch.device("meta"):
        return build_backbone(name, CATALOGUE[name].architecture, None, text=False).embed_dim


def _tower(name: str | None, width: int, file: Path) -> BackboneSource:
    entry = CATALOGUE.get(name or "")
    # What may be any model shows its width when its weights are there.
    if name is not None and entry is not None and (entry.pretrained is None or _width(name) == width):
        return BackboneSource(name, entry.architecture, entry.pretrained)
    if name is None:
        wrong = "and does not say of which tower: name it with --tower"
    elif entry is None:
        wrong = f"and there is no tower {name}: choose with --tower"
    else:
        wrong = f"and --tower {name} gives {_width(name)}: choose"
    raise UserError(f"{file} reads embeddings of {width} dimensions, {wrong} {_listed(towers_of(width))}")


def _listed(names: Sequence[str]) -> str:
    *others, last = [*names, "hf or open_clip with --backbone for one of your own"]
    return f"{', '.join(others)}, or {last}" if others else last


def _mlp(state: dict[str, Tensor], width: int, file: Path) -> tuple[str, str, dict[str, int]]:
    """Return the weight that reads the embedding, the mapper's name and its settings."""
    first, last = "mapper.hidden", "mapper.output"
    axes = {f"{first}.weight": (2, 0), f"{first}.bias": (1, 0), f"{last}.weight": (2, 1)}
    hidden = shared_size(state, axes, SCHEME, file)
    rows = shared_size(state, {f"{last}.weight": (2, 0), f"{last}.bias": (1, 0)}, SCHEME, file)
    slots = whole_number(rows, width, f"{last}.weight", SCHEME, file)
    if hidden != rows // 2:
        raise UserError(
            f"{file}: {SCHEME.spelled(f'{first}.weight')} has {counted(hidden, 'row')}; the {counted(rows, 'row')} of "
            f"{SCHEME.spelled(f'{last}.weight')} ask for half as many"
        )
    return f"{first}.weight", "clipcap_mlp", {"prefix_length": slots}


def _transformer(state: dict[str, Tensor], width: int, file: Path) -> tuple[str, str, dict[str, int]]:
    """As :func:`_mlp`."""
    reads, latents = "mapper.project.weight", "mapper.latents"
    rows = shared_size(state, {reads: (2, 0), "mapper.project.bias": (1, 0)}, SCHEME, file)
    shared_size(state, {latents: (2, 1), "language_model.transformer.wte.weight": (2, 1)}, SCHEME, file)
    if width % HEADS:
        raise UserError(f"{file}: a width of {width} does not divide into the {HEADS} heads of ClipCap's mapper")
    sizes = {
        "prefix_length": state[latents].shape[0],
        "clip_length": whole_number(rows, width, reads, SCHEME, file),
        "layers": len({key.split(".")[2] for key in state if key.startswith("mapper.layers.")}),
        "heads": HEADS,
    }
    return reads, "clipcap_transformer", sizes
