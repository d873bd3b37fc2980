"""Low-rank adapters beside a language model's matrices, through peft."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from peft import LoraConfig, inject_adapter_in_model
from transformers import GPT2LMHeadModel

from clip_xai.errors import UserError

TARGETS = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")


def add_lora(
    language_model: GPT2LMHeadModel,
    rank: int = 16,
    alpha: int = 16,
    dropout: float = 0.05,
    last_blocks: int | None = None,
    targets: Sequence[str] = TARGETS,
) -> GPT2LMHeadModel:
    """Put adapters beside matrices of a GPT-2's blocks: ``W x`` becomes ``W x + alpha / rank B A dropout(x)``.

    B starts at 0, so that the model stays what it was until the adapters learn. The matrices keep their weights under
    ``base_layer``; what trains is up to the training stage. With rank 16 in the last block of GPT-2 medium, as in the
    original captioner, the adapters have 262,144 parameters.

    Args:
        language_model: Changed in place.
        rank: Of each adapter.
        alpha: Adapters are scaled by alpha over rank.
        dropout: On the adapters' input while training.
        last_blocks: Only so many last blocks get adapters; None gives them to all.
        targets: The matrices of a block, of ``attn.c_attn``, ``attn.c_proj``, ``mlp.c_fc`` and ``mlp.c_proj``.

    Raises:
        UserError: A matrix or a number of blocks does not exist.
    """
    blocks = len(language_model.transformer.h)
    unknown = sorted(set(targets) - set(TARGETS))
    if unknown or not targets:
        raise UserError(
            f"language_model.lora.targets: {', '.join(unknown) or 'nothing'} is not of {', '.join(TARGETS)}"
        )
    if last_blocks is not None and not 1 <= last_blocks <= blocks:
        raise UserError(f"language_model.lora.last_blocks={last_blocks}: the language model has {blocks} blocks")
    first = 0 if last_blocks is None else blocks - last_blocks
    names = [f"transformer.h.{block}.{target}" for block in range(first, blocks) for target in targets]
    trained = {name: parameter.requires_grad for name, parameter in language_model.named_parameters()}
    settings = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=names, fan_in_fan_out=True)
    training = language_model.training
    inject_adapter_in_model(settings, language_model)
    # peft freezes everything else; here the training stage alone decides what trains.
    for name, parameter in language_model.named_parameters():
        parameter.requires_grad_(trained.get(name.replace(".base_layer", ""), True))
    language_model.train(training)
    return language_model


def merge_lora(language_model: GPT2LMHeadModel) -> GPT2LMHeadModel:
    """Add the adapters to their matrices, in place: a plain GPT-2 that computes the same."""
    for parent in list(language_model.modules()):
        for name, child in list(parent.named_children()):
            if hasattr(child, "lora_A") and hasattr(child, "merge"):
                adapter: Any = child  # one of peft's layers
                adapter.merge()
                setattr(parent, name, adapter.get_base_layer())
    return language_model
