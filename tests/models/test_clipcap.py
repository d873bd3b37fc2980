"""Checkpoints made with ClipCap's scheme of keys, against a small copy of its arithmetic."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from clip_xai.errors import UserError
from clip_xai.jobs.export import main
from clip_xai.models.assets import TINY_GPT2
from clip_xai.models.backbones.backbone_builder import build_backbone
from clip_xai.models.backbones.catalogue import CATALOGUE
from clip_xai.models.captioner import Captioner
from clip_xai.models.clipcap import DECODING, assumed, load_clipcap, read_clipcap, towers_of
from clip_xai.models.export import from_pretrained
from clip_xai.models.imported import Imported, assembled
from clip_xai.models.tokenizer import CaptionTokenizer
from clip_xai.models.weights import load_settings
from tests.models.conftest import shaken
from tests.models.damaged_weights import damages

DIM, WIDTH, SLOTS, PLACES = 128, 64, 3, 90  # the embedded CLIP's embedding; a GPT-2 of one head


class Multilayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        size = SLOTS * WIDTH
        self.model = nn.Sequential(nn.Linear(DIM, size // 2), nn.Tanh(), nn.Linear(size // 2, size))

    def forward(self, e: Tensor) -> Tensor:
        return self.model(e)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.to_queries, self.to_keys_values = nn.Linear(WIDTH, WIDTH, bias=False), nn.Linear(WIDTH, 128, bias=False)
        self.project = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        both = self.to_keys_values(x)
        heads = []
        for head in range(8):
            own = slice(8 * head, 8 * head + 8)
            keys, values = both[:, :, :WIDTH][:, :, own], both[:, :, WIDTH:][:, :, own]
            weights = (self.to_queries(x)[:, :, own] @ keys.transpose(1, 2) / 8**0.5).exp()
            heads.append(weights / weights.sum(-1, keepdim=True) @ values)
        return self.project(torch.cat(heads, dim=-1))


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2, self.attn = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH), Attention()
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(WIDTH, 2 * WIDTH), "fc2": nn.Linear(2 * WIDTH, WIDTH)})

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp["fc2"](self.mlp["fc1"](self.norm2(x)).clamp(min=0))


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.prefix_const = nn.Linear(DIM, 2 * WIDTH), nn.Parameter(torch.randn(SLOTS, WIDTH))
        self.transformer = nn.ModuleDict({"layers": nn.ModuleList([Layer(), Layer()])})

    def forward(self, e: Tensor) -> Tensor:
        x = torch.cat([self.linear(e).view(-1, 2, WIDTH), self.prefix_const.repeat(len(e), 1, 1)], dim=1)
        for layer in self.transformer["layers"]:  # type: ignore[union-attr]
            x = layer(x)
        return x[:, 2:]


class ClipCap(nn.Module):
    """Modules of the names that ClipCap gives them."""

    def __init__(self, kind: type[nn.Module], heads: int = 1) -> None:
        super().__init__()
        words = CaptionTokenizer.load(TINY_GPT2).vocabulary_size
        sizes = {"n_positions": PLACES, "n_embd": WIDTH, "n_layer": 2, "n_head": heads}
        self.gpt = GPT2LMHeadModel(GPT2Config(vocab_size=words, bos_token_id=0, eos_token_id=0, **sizes))
        self.clip_project = kind()

    def logits(self, e: Tensor, ids: Tensor) -> Tensor:
        inputs = torch.cat([self.clip_project(e).view(len(e), SLOTS, -1), self.gpt.transformer.wte(ids)], dim=1)
        return self.gpt(inputs_embeds=inputs, use_cache=False).logits


KINDS = {"mlp": Multilayer, "transformer": Transformer}
MASKS = {
    "gpt.transformer.h.0.attn.bias": torch.ones(1, 1, PLACES, PLACES).tril().to(torch.uint8),
    "gpt.transformer.h.0.attn.masked_bias": torch.tensor(-1e4),
}


@pytest.fixture(scope="module")
def tower() -> Any:
    return build_backbone("tiny", "tiny", "embedded:tiny")


@pytest.fixture(scope="module")
def words() -> CaptionTokenizer:
    return CaptionTokenizer.load(TINY_GPT2)


def made(kind: str, heads: int = 1) -> ClipCap:
    torch.manual_seed(4)
    return shaken(ClipCap(KINDS[kind], heads), 0.4).eval()


def written(model: nn.Module, file: Path, more: dict[str, Any] | None = None) -> Path:
    torch.save({**model.state_dict(), **(more or {})}, file)
    return file


def read(file: Path, **settings: Any) -> Imported:
    return read_clipcap(file, "tiny", **settings)


@torch.no_grad()
@pytest.mark.parametrize("heads", [1, 4])
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_an_imported_checkpoint_computes_what_clipcap_computes(
    kind: str, normalize: bool, heads: int, tower: Any, words: CaptionTokenizer, tmp_path: Path
) -> None:
    model = made(kind, heads)
    file = written(model, tmp_path / "weights.pt", MASKS)
    imported = read(file, heads=heads, normalize=normalize)
    captioner = assembled(imported, tower, words, file)
    embedding = 3 * torch.randn(2, DIM)
    ids = torch.randint(0, 90, (2, 6))
    given = embedding / (embedding**2).sum(1, keepdim=True) ** 0.5 if normalize else embedding
    expected = model.logits(given, ids[:, :-1])[:, SLOTS - 1 :]
    found = captioner.caption_logits(captioner.prefix(embedding), captioner.language_model.transformer.wte(ids))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert isinstance(captioner, Captioner) and not captioner.training
    assert len(imported.state) == len(model.state_dict()) - 1  # the output layer is the embedding again
    sizes = {"clip_length": 2, "layers": 2, "heads": 8} if kind == "transformer" else {}
    assert imported.settings.mapper_settings == {"prefix_length": SLOTS, **sizes, "normalize": normalize}
    assert (imported.settings.mapper, imported.settings.prompt) == (f"clipcap_{kind}", "")
    # The same weights that read another embedding are another captioner.
    other = assembled(read(file, heads=heads, normalize=not normalize), tower, words, file)
    assert other.fingerprint() != captioner.fingerprint()


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_greedy_captions_are_clipcaps_and_end_at_the_full_stop(
    kind: str, tower: Any, words: CaptionTokenizer, tmp_path: Path
) -> None:
    (stop,) = words.encode(".")
    model = made(kind)
    with torch.no_grad():  # at random weights a full stop is one token of many
        model.gpt.transformer.wte.weight[stop] *= 6
    file = written(model, tmp_path / "weights.pt")
    imported = read(file)
    captioner = assembled(imported, tower, words, file)
    embedding = 4 * torch.randn(12, DIM)
    longest = 20
    expected = []
    for row in embedding:
        ids: list[int] = []
        while len(ids) < longest and (not ids or ids[-1] != stop):
            ids.append(int(model.logits(row[None], torch.tensor([ids], dtype=torch.long))[0, -1].argmax()))
        expected.append(tuple(ids))
    assert any(len(ids) > 1 and ids[-1] == stop for ids in expected) and len(set(expected)) > 1
    greedy = replace(imported.decoding, beams=1, max_new_tokens=longest)
    ends = {token for token in range(words.vocabulary_size) if words.decode([token]).endswith(".")}
    for ids, caption in zip(expected, captioner.generate(embedding, greedy), strict=True):
        # ClipCap looks at one token; here others that end with a full stop end a caption, too.
        first = next((place for place, token in enumerate(ids) if token in {*ends, words.eos_id}), len(ids))
        assert caption.token_ids == ids[: first + (first < len(ids) and ids[first] in ends)]
    beams = captioner.generate(embedding, replace(imported.decoding, max_new_tokens=longest))
    stopped = [caption for caption in beams if caption.text.endswith(".")]
    assert stopped and all("." not in caption.text[:-1] for caption in stopped)
    assert (DECODING.beams, DECODING.max_new_tokens, DECODING.stop_at, DECODING.length_penalty) == (5, 67, ".", 1.0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_damage_to_any_key_is_one_line_with_file_and_key(
    kind: str, tower: Any, words: CaptionTokenizer, tmp_path: Path
) -> None:
    file = tmp_path / "weights.pt"
    state = {**made(kind).state_dict(), **MASKS}
    taken, seen = set(), 0
    for key, what, damaged in damages(state):
        torch.save(damaged, file)
        try:
            assembled(read(file), tower, words, file)
            taken.add((key, what))
        except UserError as error:
            line = str(error)
            assert "\n" not in line and str(file) in line and key in line, (key, what, line)
        seen += 1
    # What the file holds twice may be left out; nothing but its own rows says how long the transformer's prefix is.
    allowed = {(key, "missing") for key in ("gpt.lm_head.weight", *MASKS)}
    allowed |= {("clip_project.prefix_const", "one more row")} if kind == "transformer" else set()
    assert taken == allowed and seen > 4 * len(state)


@pytest.mark.parametrize("kind", KINDS)
def test_every_key_and_no_other_is_accounted_for(kind: str, tower: Any, words: Any, tmp_path: Path) -> None:
    file = tmp_path / "weights.pt"
    for key, message in {
        "clip_project.other.weight": "the key clip_project.other.weight is not of ClipCap",
        "clip_project.model.4.weight": "the key clip_project.model.4.weight is not of ClipCap",
        "clip_project.transformer.layers.0.attn.to_values.weight": "to_values.weight is not of ClipCap",
        "prefix.fc1.weight": "the key prefix.fc1.weight is not of ClipCap",
        "gpt.transformer.h.0.attn.c_other": "the key gpt.transformer.h.0.attn.c_other is not of ClipCap",
        "gpt.transformer.h.1.attn.bias": "is not GPT-2's causal mask",
        "gpt.lm_head.weight": "lm_head.weight is not tied to gpt.transformer.wte.weight",
        "clip_project.weight": "its mapper is one linear layer",
    }.items():
        written(made(kind), file, {key: torch.zeros(3, 3)})
        with pytest.raises(UserError, match=message) as caught:
            assembled(read(file), tower, words, file)
        assert "\n" not in str(caught.value) and str(file) in str(caught.value)
    (tmp_path / "text.pt").write_text("hello")
    torch.save({"epoch": 3}, tmp_path / "other.pt")
    for name in ("text.pt", "other.pt", "missing.pt"):
        with pytest.raises(UserError, match="it is not a checkpoint of ClipCap"):
            read(tmp_path / name)


def test_the_tower_must_be_said_and_fit(tmp_path: Path) -> None:
    file = written(made("mlp"), tmp_path / "weights.pt")
    for tower, message in (
        (None, "embeddings of 128 dimensions, and does not say of which tower: name it with --tower tiny, or hf or"),
        ("nosuch", "and there is no tower nosuch: choose with --tower tiny, or hf or open_clip with --backbone"),
        ("openai_b32", "and --tower openai_b32 gives 512: choose tiny, or hf or"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            read_clipcap(file, tower)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="--tower open_clip may be any model: say with --backbone"):
        load_clipcap(str(file), "open_clip", str(TINY_GPT2))
    assert "openai_b32" in towers_of(512) and "openai_l14" not in towers_of(512)
    assert towers_of(640) == ["openai_rn50x4"]  # of ClipCap's published transformer
    assert CATALOGUE["openai_rn50x4"].pretrained == "openai"


def test_what_was_assumed_is_one_line(tmp_path: Path) -> None:
    file = written(made("transformer"), tmp_path / "weights.pt")
    line = assumed(read(file), file, None)
    assert "\n" not in line
    assert "As said: tower tiny; assumed: embedding not normalised (--normalize-embedding otherwise), " in line
    assert "heads of GPT-2: 1 (--heads otherwise), heads of the mapper: 8. Use it with generation=clipcap" in line
    line = assumed(read(file, heads=4, normalize=True), file, 4)
    assert "As said: tower tiny, embedding brought to length 1, heads of GPT-2: 4; assumed: heads of the mapper" in line


def test_the_command_imports_it_and_says_how_to_decode(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    file = written(made("transformer"), tmp_path / "weights.pt", MASKS)
    command = [str(file), "--clipcap", "--tokenizer", str(TINY_GPT2), "--to", str(tmp_path / "out")]
    assert main(command) == 1
    assert "name it with --tower tiny" in capsys.readouterr().err
    assert main([*command, "--tower", "tiny", "--normalize-embedding"]) == 0
    [line] = [record.getMessage() for record in caplog.records if record.name.startswith("clip_xai")]
    assert "generation=clipcap" in line and "\n" not in line
    captioner = from_pretrained(tmp_path / "out")
    assert load_settings(tmp_path / "out").mapper_settings["normalize"]
    card = (tmp_path / "out" / "README.md").read_text()
    assert "imported from" in card and "REPORTED" not in card
    (line,) = (line for line in card.splitlines() if line.startswith("print(captioner.generate("))
    assert "Decoding(beams=5, max_new_tokens=67, whole_sentences=False, stop_at='.')" in line
    assert captioner.mapper.normalize and captioner.generate(torch.randn(1, DIM), replace(DECODING, max_new_tokens=9))
    # The same weights meant otherwise are another captioner: nothing is taken for done.
    assert main([*command, "--tower", "tiny"]) == 1
    assert "and now" in capsys.readouterr().err
    for flag in (["--tower", "tiny"], ["--normalize-embedding"], ["--heads", "2"], ["--backbone", "x"]):
        assert main([str(tmp_path), "--to", str(tmp_path / "no"), *flag]) == 1
        assert f"{flag[0]} goes with " in capsys.readouterr().err
    assert main([*command, "--tower", "tiny", "--revision", "abc"]) == 1
    assert "--revision goes with --original alone" in capsys.readouterr().err
