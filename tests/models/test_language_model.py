from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import BertConfig, GPT2LMHeadModel

from clip_xai.errors import UserError
from clip_xai.models.language_model import PUBLISHED_SIZES, build_language_model, load_tokenizer, tiny_config
from clip_xai.models.tokenizer import CaptionTokenizer
from tests.support.hub import LoopbackHub

IDS = torch.tensor([[3, 1, 4, 1, 5]])
# Published: 124, 355, 774 and 1,558 million.
SIZES = {"gpt2": 124_439_808, "gpt2-medium": 354_823_168, "gpt2-large": 774_030_080, "gpt2-xl": 1_557_611_200}


@pytest.fixture
def folder(tokenizer: CaptionTokenizer, tmp_path: Path) -> Path:
    torch.manual_seed(0)
    GPT2LMHeadModel(tiny_config(tokenizer.vocabulary_size, tokenizer.eos_id)).save_pretrained(tmp_path / "gpt2")
    tokenizer.save(tmp_path / "gpt2")
    return tmp_path / "gpt2"


@torch.no_grad()
def test_a_folder_and_a_hub_name_give_the_same_model(folder: Path, tmp_path: Path) -> None:
    expected = GPT2LMHeadModel.from_pretrained(folder).eval()(IDS).logits
    model, words = build_language_model("gpt2", str(folder))
    torch.testing.assert_close(model(IDS).logits, expected, rtol=0, atol=0)
    with LoopbackHub() as hub, hub.reachable(tmp_path / "cache"):
        hub.add("openai-community/gpt2", folder)
        far, far_words = build_language_model("gpt2", "openai-community/gpt2")
        torch.testing.assert_close(far(IDS).logits, expected, rtol=0, atol=0)
        assert load_tokenizer("openai-community/gpt2").encode("a papule") == far_words.encode("a papule")
    assert words.encode("a papule") == far_words.encode("a papule")
    assert not model.training and not far.training


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_folder_that_lacks_a_file_is_one_line(missing: str, folder: Path) -> None:
    (folder / missing).unlink()
    with pytest.raises(UserError, match=f"lacks {missing}") as caught:
        build_language_model("gpt2", str(folder))
    assert "\n" not in str(caught.value) and "language_model.pretrained=null" in str(caught.value)


def test_a_pickled_model_is_not_read(folder: Path) -> None:
    torch.save({}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"lacks model\.safetensors"):
        build_language_model("gpt2", str(folder))


def test_another_kind_of_model_is_refused(folder: Path) -> None:
    BertConfig().save_pretrained(folder)
    with pytest.raises(UserError, match="does not hold every weight of a BertLMHeadModel"):
        build_language_model("gpt2", str(folder))


def test_unknown_sizes_and_folders_without_tokenizer_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^language_model=gpt3: there is no language model .gpt3.; did you mean gpt2"):
        build_language_model("gpt3", None)
    with pytest.raises(UserError, match=r"has no tokenizer\.json"):
        load_tokenizer(str(tmp_path))


@pytest.mark.parametrize("name", PUBLISHED_SIZES)
def test_sizes_are_the_published_ones(name: str) -> None:
    with torch.device("meta"):
        model, _ = build_language_model(name, None)
    assert sum(p.numel() for p in model.parameters()) == SIZES[name]
