"""What a captioner asks of its language model: any causal one of transformers that reads embeddings and returns logits.

Parts are found by what they are, never by the name of a model: the embedding and the output layer as transformers
gives them, the blocks as the list that is as long as the configuration says, and what stands beside that list.
"""

from __future__ import annotations

import inspect
import sys
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from clip_xai.errors import UserError
from clip_xai.models.backbones.recording import evaluation_mode


def word_embeddings(model: PreTrainedModel) -> nn.Embedding:
    """Return the layer that gives each token its vector."""
    layer = model.get_input_embeddings()
    assert isinstance(layer, nn.Embedding)
    return layer


def output_layer(model: PreTrainedModel) -> nn.Module:
    """Return the layer from hidden states to logits."""
    layer = model.get_output_embeddings()
    assert isinstance(layer, nn.Module)
    return layer


def positions(model: PreTrainedModel) -> int:
    """Return how many vectors a sequence may have; ``sys.maxsize`` where the model sets no limit."""
    found = getattr(model.config, "max_position_embeddings", None)
    return found if isinstance(found, int) and found > 0 else sys.maxsize


def last_hidden(
    model: PreTrainedModel, embeddings: Tensor, mask: Tensor | None = None, position_ids: Tensor | None = None
) -> Tensor:
    """Return what the output layer reads, ``[B, S, E]``.

    Args:
        model: The language model.
        embeddings: ``[B, S, E]``.
        mask: ``[B, S]``, 0 where a row is padded; None for no padding.
        position_ids: ``[B, S]``, for models that take them; the others count what the mask leaves by themselves.
    """
    told: dict[str, Tensor] = {} if mask is None else {"attention_mask": mask}
    decoder: Any = model.base_model
    if position_ids is not None and "position_ids" in inspect.signature(decoder.forward).parameters:
        told["position_ids"] = position_ids
    hidden: Tensor = decoder(inputs_embeds=embeddings, use_cache=False, **told).last_hidden_state
    return hidden


def blocks_of(model: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """Return where the model's list of blocks stands, and the list.

    Raises:
        UserError: It has none.
    """
    count = getattr(model.config, "num_hidden_layers", None)
    for name, part in model.named_modules():
        if isinstance(part, nn.ModuleList) and len(part) == count:
            return name, part
    raise UserError(f"a {type(model).__name__} does not show a list of its {count} blocks, which a captioner needs")


def beside_blocks(model: PreTrainedModel) -> tuple[list[nn.Embedding], list[nn.Module]]:
    """Return the embeddings beside the list of blocks (of words first, then of positions), and the last norms."""
    parent = model.get_submodule(blocks_of(model)[0].rpartition(".")[0])
    others = [part for part in parent.children() if not isinstance(part, nn.ModuleList)]
    embeddings = [part for part in others if isinstance(part, nn.Embedding)]
    words = word_embeddings(model)
    behind = [part for part in others if not isinstance(part, nn.Embedding) and any(True for _ in part.parameters())]
    return [words, *(part for part in embeddings if part is not words)], behind


def matrices_of(block: nn.Module) -> dict[str, nn.Module]:
    """Return a block's matrices by their names in it, the order of the block's own definition."""
    return {name: part for name, part in block.named_modules() if isinstance(part, (nn.Linear, Conv1D))}


def attention_of(block: nn.Module) -> nn.Module:
    """Return a block's self-attention.

    Raises:
        UserError: The block shows none, or several.
    """
    found = [part for part in block.children() if type(part).__name__.endswith("Attention")]
    if len(found) != 1:
        raise UserError(f"a block of the language model ({type(block).__name__}) does not show one self-attention")
    return found[0]


def tied_output(model: PreTrainedModel) -> str | None:
    """Return the name of the output layer's weight where it is the embedding's own, else None."""
    layer = output_layer(model)
    if getattr(layer, "weight", None) is not word_embeddings(model).weight:
        return None
    name = next(name for name, part in model.named_modules() if part is layer)
    return f"{name}.weight"


@torch.no_grad()
def require_causal(model: PreTrainedModel) -> None:
    """Refuse a language model that a captioner cannot use.

    A captioner takes hidden states and asks the output layer where it needs logits; the model's own forward pass has
    to give the same ones, for two tokens, as it does unless it scales or caps its logits.

    Raises:
        UserError: An ability is missing: the line says which.
    """
    name = type(model).__name__
    if "inputs_embeds" not in inspect.signature(model.forward).parameters:
        raise UserError(f"a {name} does not take inputs_embeds: choose a causal language model that does")
    if not isinstance(model.get_input_embeddings(), nn.Embedding) or model.get_output_embeddings() is None:
        raise UserError(f"a {name} does not show its word embeddings and its output layer, which a captioner needs")
    blocks_of(model)
    if word_embeddings(model).weight.is_meta:
        return
    with evaluation_mode(model):
        inputs = word_embeddings(model)(torch.arange(2, device=word_embeddings(model).weight.device))[None]
        logits = model(inputs_embeds=inputs, use_cache=False).logits
        read = output_layer(model)(last_hidden(model, inputs))
        first = model(inputs_embeds=inputs[:, :1], use_cache=False).logits
    if not torch.allclose(logits, read, rtol=1e-3, atol=1e-4 * float(logits.abs().max())):
        raise UserError(f"a {name} changes its logits behind its output layer, which a captioner does not follow")
    if not torch.allclose(logits[:, :1], first, rtol=1e-3, atol=1e-4 * float(logits.abs().max())):
        raise UserError(f"a {name} is not causal: a word's logits depend on the words after it")
