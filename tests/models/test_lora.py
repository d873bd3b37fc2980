from __future__ import annotations

import pytest
import torch
from transformers import GPT2LMHeadModel

from clip_xai.errors import UserError
from clip_xai.models.language_model import tiny_config
from clip_xai.models.lora import add_lora
from tests.models.conftest import shaken


def model() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    return shaken(GPT2LMHeadModel(tiny_config(50, 49))).eval()


IDS = torch.tensor([[3, 1, 4, 1, 5]])


@torch.no_grad()
def test_fresh_adapters_change_nothing_and_moved_ones_follow_the_formula() -> None:
    plain, adapted = model(), add_lora(model(), rank=2, alpha=6, last_blocks=1, targets=["mlp.c_fc"])
    torch.testing.assert_close(adapted(IDS).logits, plain(IDS).logits)
    layer = adapted.transformer.h[-1].mlp.c_fc
    torch.nn.init.normal_(layer.lora_B["default"].weight)
    change = 6 / 2 * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    # GPT-2 keeps its matrices transposed.
    plain.transformer.h[-1].mlp.c_fc.weight += change.T
    torch.testing.assert_close(adapted(IDS).logits, plain(IDS).logits, rtol=1e-4, atol=1e-4)
    assert len([name for name, _ in adapted.named_parameters() if "lora" in name]) == 2


def test_the_originals_adapters_have_the_originals_parameters() -> None:
    from transformers import GPT2Config

    with torch.device("meta"):
        medium = GPT2LMHeadModel(GPT2Config(n_embd=1024, n_layer=24, n_head=16))
    before = sum(p.numel() for p in medium.parameters())
    add_lora(medium, rank=16, alpha=16, last_blocks=1)
    assert sum(p.numel() for p in medium.parameters()) - before == 262_144


def test_adapters_leave_it_to_the_stage_what_trains() -> None:
    adapted = add_lora(model())
    assert all(parameter.requires_grad for parameter in adapted.parameters())
    assert not adapted.training
    frozen = add_lora(model().requires_grad_(False))
    assert {name.split(".")[-3] for name, p in frozen.named_parameters() if p.requires_grad} == {"lora_A", "lora_B"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"targets": ["attn.q"]}, "attn.q is not of"), ({"last_blocks": 5}, "has 4 blocks"), ({"targets": []}, "nothing")],
)
def test_adapters_that_fit_nowhere_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        add_lora(model(), **settings)
