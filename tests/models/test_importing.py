"""Checkpoints made with the original's own scheme of keys, against a small copy of its arithmetic."""

from __future__ import annotations

import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from clip_xai.errors import UserError
from clip_xai.models.backbones.open_clip_vit import OpenClipBackbone
from clip_xai.models.captioner import Captioner
from clip_xai.models.importing import assembled, load_original, read_original
from clip_xai.models.tokenizer import CaptionTokenizer
from tests.models.conftest import shaken
from tests.models.damaged_weights import damages

WIDTH, BLOCKS, SLOTS, RANK = 128, 3, 4, 2
MASK = torch.ones(1, 1, 64, 64).tril().bool()
META = {
    "gpt2_name": "gpt2-medium", "clip_backend_kind": "open_clip", "clip_repo": "redlessone/DermLIP_ViT-B-16",
    "clip_arch": "VisionTransformer", "embed_dim": 16, "prefix_tokens": SLOTS, "prompt": "two words",
    "cliche_phrases": ["follow up"],
}  # fmt: skip
CFG = {
    "CLIP_PRESET": "dermlip_vitb16", "GPT2_NAME": "gpt2-medium", "prefix_tokens": SLOTS, "prefix_dropout_p": 0.05,
    "gen_beams": 4, "gen_max_new": 80, "min_new_tokens": 24, "no_repeat_ngram_size": 4, "repetition_penalty": 1.15,
    "length_penalty": 0.6, "prompt_A": "a", "prompt_B": "two words", "unfreeze_schedule_B": (3, 2),
    "cliche_phrases": ("follow up",),
}  # fmt: skip


class Prefix(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(16, 24), nn.Linear(24, SLOTS * WIDTH)
        self.ln, self.alpha = nn.LayerNorm(WIDTH), nn.Parameter(torch.tensor(0.5))

    def forward(self, e: Tensor) -> Tensor:
        return self.alpha * self.ln(self.fc2(F.gelu(self.fc1(e))).view(len(e), SLOTS, -1))


class WithLora(nn.Module):
    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = base
        rows, columns = base.weight.shape
        self.A, self.B = nn.Linear(rows, RANK, bias=False), nn.Linear(RANK, columns, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + 16 / RANK * self.B(self.A(x))


class Scheme(nn.Module):
    """Modules of the names that the original gives them."""

    def __init__(self, vocabulary: int, lora: bool = True, blocks: int = BLOCKS) -> None:
        super().__init__()
        config = GPT2Config(vocab_size=vocabulary, n_positions=64, n_embd=WIDTH, n_layer=blocks, n_head=WIDTH // 64)
        self.gpt2, self.prefix = GPT2LMHeadModel(config), Prefix()
        if lora:
            last = self.gpt2.transformer.h[-1]
            for part, name in ((last.attn, "c_attn"), (last.attn, "c_proj"), (last.mlp, "c_fc"), (last.mlp, "c_proj")):
                setattr(part, name, WithLora(getattr(part, name)))

    def logits(self, embedding: Tensor, ids: Tensor) -> Tensor:
        words = self.gpt2.transformer.wte(ids)
        prefix = self.prefix(F.normalize(embedding, dim=-1))
        return self.gpt2(inputs_embeds=torch.cat([prefix, words], dim=1), use_cache=False).logits


def scheme(vocabulary: int, lora: bool = True) -> Scheme:
    torch.manual_seed(5)
    return shaken(Scheme(vocabulary, lora), 0.1).eval()


def written(model: nn.Module, file: Path, meta: bool = True, more: dict[Any, Any] | None = None) -> Path:
    content: dict[str, Any] = {"model": {**model.state_dict(), **(more or {})}, "cfg": CFG}
    torch.save({**content, "meta": META} if meta else content, file)
    return file


@torch.no_grad()
@pytest.mark.parametrize("meta", [True, False])
@pytest.mark.parametrize("lora", [True, False])
def test_an_imported_checkpoint_computes_what_the_original_computes(
    lora: bool, meta: bool, backbone: OpenClipBackbone, tokenizer: CaptionTokenizer, tmp_path: Path
) -> None:
    model = scheme(tokenizer.vocabulary_size, lora)
    masks = {f"gpt2.transformer.h.{i}.attn.bias": MASK for i in range(BLOCKS)}
    masks["gpt2.transformer.h.0.attn.masked_bias"] = torch.tensor(-1e4)
    file = written(model, tmp_path / "final.pt", meta, masks)
    original = read_original(file)
    captioner = assembled(original, backbone, tokenizer, file)
    embedding = torch.randn(2, 16)
    ids = captioner.encode_captions(["a small pink papule", "two words"]).clamp(min=0)
    prompt = torch.tensor(tokenizer.encode("two words")).expand(2, -1)
    expected = model.logits(embedding, torch.cat([prompt, ids[:, :-1]], dim=1))[:, SLOTS + prompt.shape[1] - 1 :]
    found = captioner.caption_logits(captioner.prefix(embedding), captioner.language_model.transformer.wte(ids))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert isinstance(captioner, Captioner) and not captioner.training
    settings, decoding = original.settings, original.decoding
    assert (settings.backbone.name, settings.mapper, settings.prompt) == ("dermlip", "bottleneck_mlp", "two words")
    assert settings.mapper_settings == {"prefix_length": SLOTS, "hidden": 24, "dropout": 0.05}
    assert (settings.lora is not None) == lora
    assert (decoding.beams, decoding.max_new_tokens, decoding.banned_phrases) == (4, 60, ["follow up"])


def test_every_key_and_no_other_is_accounted_for(
    backbone: OpenClipBackbone, tokenizer: CaptionTokenizer, tmp_path: Path
) -> None:
    model = scheme(tokenizer.vocabulary_size)
    file = written(model, tmp_path / "a.pt")
    # The output layer is the embedding again; everything else arrives.
    assert len(read_original(file).state) == len(model.state_dict()) - 1
    for key, value in {
        "prefix.fc1.weight": "a text", "gpt2.transformer.h.0.ln_1.bias": torch.ones(WIDTH).to_sparse(),
        "prefix.ln.weight": torch.ones(WIDTH, dtype=torch.int8), 7: torch.ones(2),
    }.items():  # fmt: skip
        with pytest.raises(UserError, match=str(key)) as caught:
            read_original(written(model, tmp_path / "b.pt", more={key: value}))
        assert "\n" not in str(caught.value)
    for key, message in {
        "gpt2.transformer.h.x.ln_1.bias": "the key gpt2.transformer.h.x.ln_1.bias is not",
        "gpt2.transformer.h.4.ln_1.bias": "lacks gpt2.transformer.h.3.ln_1.weight",
        "prefix.fc3.weight": "the key prefix.fc3.weight is not",
        "clip.visual": "the key clip.visual is not",
        "gpt2.transformer.h.1.attn.bias": "is not GPT-2's causal mask",
        "gpt2.lm_head.weight": "not tied",
    }.items():
        with pytest.raises(UserError, match=message):
            read_original(written(model, tmp_path / "b.pt", more={key: torch.zeros(3, 3)}))
    file = written(model, tmp_path / "c.pt", more={"gpt2.transformer.h.0.attn.c_other": torch.zeros(3)})
    with pytest.raises(UserError, match=r"the key gpt2\.transformer\.h\.0\.attn\.c_other is not of the original"):
        assembled(read_original(file), backbone, tokenizer, file)
    content = torch.load(tmp_path / "a.pt", weights_only=True)
    del content["model"]["gpt2.transformer.h.2.mlp.c_fc.A.weight"]
    torch.save(content, tmp_path / "d.pt")
    with pytest.raises(UserError, match=r"d\.pt lacks gpt2\.transformer\.h\.2\.mlp\.c_fc\.A\.weight: it is cut"):
        assembled(read_original(tmp_path / "d.pt"), backbone, tokenizer, tmp_path / "d.pt")


def test_a_damage_to_any_key_is_one_line_with_file_and_key(
    backbone: OpenClipBackbone, tokenizer: CaptionTokenizer, tmp_path: Path
) -> None:
    state = Scheme(tokenizer.vocabulary_size, blocks=2).state_dict()
    state |= {"gpt2.transformer.h.0.attn.bias": MASK, "gpt2.transformer.h.0.attn.masked_bias": torch.tensor(-1e4)}
    file = tmp_path / "final.pt"
    taken, seen = set(), 0
    for key, what, damaged in damages(state):
        torch.save({"model": damaged, "cfg": CFG, "meta": META}, file)
        try:
            assembled(read_original(file), backbone, tokenizer, file)
            taken.add((key, what))
        except UserError as error:
            line = str(error)
            assert "\n" not in line and str(file) in line and key in line, (key, what, line)
        seen += 1
    # What the file holds twice, or holds for older versions of transformers, may be left out of it.
    twice = ("gpt2.lm_head.weight", "gpt2.transformer.h.0.attn.bias", "gpt2.transformer.h.0.attn.masked_bias")
    assert taken == {(key, "missing") for key in twice} and seen > 4 * len(state)


def test_a_cfg_that_says_nonsense_is_one_line(tmp_path: Path) -> None:
    state = scheme(300).state_dict()
    for place, key, value in (
        *(("cfg", key, "many") for key in ("gen_beams", "gen_max_new", "min_new_tokens", "repetition_penalty")),
        *(("cfg", key, [2]) for key in ("no_repeat_ngram_size", "length_penalty", "prefix_dropout_p", "CLIP_PRESET")),
        *(("meta", key, 7) for key in ("gpt2_name", "clip_repo", "prompt", "cliche_phrases")),
        ("cfg", "repetition_penalty", -1.0), ("cfg", "min_new_tokens", 70), ("cfg", "length_penalty", float("nan")),
        ("meta", "cliche_phrases", "follow up"),
    ):  # fmt: skip
        content: dict[str, Any] = {"model": state, "cfg": dict(CFG), "meta": dict(META)}
        content[place][key] = value
        torch.save(content, tmp_path / "a.pt")
        with pytest.raises(UserError) as caught:
            read_original(tmp_path / "a.pt")
        line = str(caught.value)
        assert "\n" not in line and str(tmp_path / "a.pt") in line and key in line


@pytest.mark.parametrize(("heads", "message"), [(3, "--heads=3 does not divide the width of 128"), (0, "--heads=0")])
def test_heads_that_do_not_divide_the_width_are_refused(heads: int, message: str, tmp_path: Path) -> None:
    file = written(scheme(300), tmp_path / "a.pt")
    assert (read_original(file).language_model.n_head, read_original(file, 4).language_model.n_head) == (2, 4)
    with pytest.raises(UserError, match=message):
        read_original(file, heads)


def test_another_tower_or_tokenizer_is_refused(
    backbone: OpenClipBackbone, tokenizer: CaptionTokenizer, tmp_path: Path
) -> None:
    file = written(scheme(tokenizer.vocabulary_size + 1), tmp_path / "a.pt")
    with pytest.raises(UserError, match=r"knows \d+ tokens .* and the tokenizer has"):
        assembled(read_original(file), backbone, tokenizer, file)
    with pytest.raises(UserError, match="16 dimensions and the tower gives 17"):
        assembled(read_original(file), SimpleNamespace(embed_dim=17), tokenizer, file)  # type: ignore[arg-type]


def test_files_that_are_none_of_its_checkpoints_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.pt").write_text("hello")
    with (tmp_path / "code.pt").open("wb") as file:
        pickle.dump({"model": print}, file, protocol=2)
    torch.save({"weights": {}}, tmp_path / "other.pt")
    for name in ("text.pt", "code.pt", "other.pt"):
        with pytest.raises(UserError, match="is not a checkpoint of the original captioner") as caught:
            read_original(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="known are moxeeeem/dermlip-gpt2-captioner"):
        load_original("someone/else")
