"""Low-rank adapters beside a language model's matrices, through peft."""

from __future__ import annotations

from collections.abc import Sequence

from peft import LoraConfig, inject_adapter_in_model
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from clip_xai.errors import UserError
from clip_xai.models.causal_model import blocks_of, matrices_of

TARGETS = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")


def add_lora(
    language_model: PreTrainedModel,
    rank: int = 16,
    alpha: int = 16,
    dropout: float = 0.05,
    last_blocks: int | None = None,
    targets: Sequence[str] = TARGETS,
) -> PreTrainedModel:
    """Put adapters beside matrices of a language model's blocks: ``W x`` becomes ``W x + alpha / rank B A dropout(x)``.

    B starts at 0, so that the model stays what it was until the adapters learn. The matrices keep their weights under
    ``base_layer``; what trains is up to the training stage. With rank 16 in the last block of GPT-2 medium, as in the
    original captioner, the adapters have 262,144 parameters.

    Args:
        language_model: Changed in place.
        rank: Of each adapter.
        alpha: Adapters are scaled by alpha over rank.
        dropout: On the adapters' input while training.
        last_blocks: Only so many last blocks get adapters; None gives them to all.
        targets: The matrices of a block, as the model calls them; GPT-2's are the default.

    Raises:
        UserError: A matrix or a number of blocks does not exist.
    """
    place, found = blocks_of(language_model)
    blocks, matrices = len(found), matrices_of(found[0])
    unknown = sorted(set(targets) - matrices.keys())
    if unknown or not targets:
        raise UserError(
            f"language_model.lora.targets: {', '.join(unknown) or 'nothing'} is not of {', '.join(matrices)}"
        )
    if last_blocks is not None and not 1 <= last_blocks <= blocks:
        raise UserError(f"language_model.lora.last_blocks={last_blocks}: the language model has {blocks} blocks")
    first = 0 if last_blocks is None else blocks - last_blocks
    names = [f"{place}.{block}.{target}" for block in range(first, blocks) for target in targets]
    turned = isinstance(matrices[targets[0]], Conv1D)  # which keeps its matrix transposed
    trained = {name: parameter.requires_grad for name, parameter in language_model.named_parameters()}
    settings = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=names, fan_in_fan_out=turned)
    training = language_model.training
    inject_adapter_in_model(settings, language_model)
    # peft freezes everything else; here the training stage alone decides what trains.
    for name, parameter in language_model.named_parameters():
        parameter.requires_grad_(trained.get(name.replace(".base_layer", ""), True))
    language_model.train(training)
    return language_model
