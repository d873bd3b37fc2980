from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from transformers import PreTrainedTokenizerFast

from clip_xai.errors import UserError
from clip_xai.models.backbones.build import BackboneSource
from clip_xai.models.captioner import Captioner
from clip_xai.models.export import FILES, CardFacts, export_captioner, from_pretrained, push_to_hub
from clip_xai.models.weights import CaptionerSettings, build_captioner
from clip_xai.runs.export import main
from tests.support.hub import LoopbackHub

SETTINGS = CaptionerSettings(
    backbone=BackboneSource("tiny", "tiny", "embedded:tiny"),
    mapper="linear_patch",
    mapper_settings={"pool": 3},
    language_model_pretrained=None,
    prompt="a photo of",
    lora={"rank": 2, "alpha": 4, "dropout": 0.0, "last_blocks": 1, "targets": ["attn.c_attn"]},
)
FACTS = CardFacts(
    "my captioner",
    "cc-by-nc-4.0",
    data={"HAM10000": "CC BY-NC 4.0"},
    training={"epochs": "3"},
    evaluation="# Evaluation\n\n| measure | n | model | blind majority |\n|---|---|---|---|\n| BLEU | 3 | 1.5 | 2.5 |",
)


@pytest.fixture(scope="module")
def built() -> Captioner:
    torch.manual_seed(0)
    captioner = build_captioner(SETTINGS)
    with torch.no_grad():
        for parameter in captioner.language_model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return captioner.eval()


@torch.no_grad()
def same(one: Captioner, other: Captioner) -> None:
    size = one.backbone.preprocess.image_size
    pixels = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    ids = one.encode_captions(["a brown lesion", "melanoma"])
    torch.testing.assert_close(one.log_prob(one.read(pixels), ids), other.log_prob(other.read(pixels), ids))
    assert one.prompt == other.prompt and not other.training


@pytest.mark.parametrize("with_backbone", [None, True])
def test_what_goes_out_comes_in(with_backbone: bool | None, built: Captioner, tmp_path: Path) -> None:
    export_captioner(built, SETTINGS, tmp_path, FACTS, with_backbone)
    assert {file.name for file in tmp_path.iterdir()} == set(FILES)
    same(built, from_pretrained(tmp_path))
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["holds_backbone"] == bool(with_backbone)
    tokens = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    text = "a 2 mm papule, scaly."
    assert tokens(text)["input_ids"] == built.tokenizer.encode(text)
    assert tokens.eos_token_id == tokens.pad_token_id == built.tokenizer.eos_id


def test_a_tower_in_the_directory_is_complete_or_refused(built: Captioner, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    export_captioner(built, SETTINGS, tmp_path, FACTS, with_backbone=True)
    state = load_file(tmp_path / "model.safetensors")
    key = next(key for key in state if key.startswith("backbone."))
    save_file({name: value for name, value in state.items() if name != key}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="missing"):
        from_pretrained(tmp_path)


def test_the_card_says_what_the_model_is_and_what_it_is_worth(built: Captioner, tmp_path: Path) -> None:
    card = (export_captioner(built, SETTINGS, tmp_path, FACTS) / "README.md").read_text()
    header = yaml.safe_load(card.split("---")[1])
    assert header["license"] == "cc-by-nc-4.0" and header["pipeline_tag"] == "image-to-text"
    counts = {
        "tower": sum(p.numel() for p in built.backbone.parameters()),
        "mapper": 128 * built.backbone.width + 128,
        "adapters": 2 * (128 + 3 * 128),
    }
    for part, count in counts.items():
        [row] = [line for line in card.splitlines() if line.startswith(f"| {part} ")]
        assert row.endswith(f"| {count:,} |")
    for said in ("| BLEU | 3 | 1.5 | 2.5 |", "**HAM10000**: CC BY-NC 4.0", "not a medical device", "`a photo of`"):
        assert said in card
    bare = (export_captioner(built, SETTINGS, tmp_path, CardFacts("bare")) / "README.md").read_text()
    assert "Not evaluated: no number is claimed." in bare and "license: other" in bare


def test_up_to_the_hub_and_down_again(built: Captioner, tmp_path: Path) -> None:
    directory = export_captioner(built, SETTINGS, tmp_path / "export", FACTS)
    (directory / "patients.csv").write_text("not to be shared")
    with LoopbackHub() as hub, hub.reachable(tmp_path / "cache"):
        url = push_to_hub(directory, "group/captioner", token="any", endpoint=hub.endpoint)
        revision = hub.revisions("group/captioner")[-1]
        assert revision in url
        assert set(hub.files("group/captioner")) - {".gitattributes"} == set(FILES)
        same(built, from_pretrained("group/captioner"))
        same(built, from_pretrained("group/captioner", revision))
        with pytest.raises(UserError, match=r"name a directory that holds config\.json") as caught:
            from_pretrained("group/nothing")
        assert "\n" not in str(caught.value)


def test_what_is_no_export_is_not_uploaded(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="export first"):
        push_to_hub(tmp_path, "group/captioner")


def test_the_command_exports_a_run_with_its_evaluation(
    built: Captioner, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from clip_xai.models.weights import save_captioner

    run, judged = tmp_path / "runs" / "train" / "one", tmp_path / "runs" / "evaluate" / "two"
    save_captioner(built, SETTINGS, run / "export")
    (run / ".hydra").mkdir()
    (run / ".hydra" / "config.yaml").write_text("data: {synthetic: null}\nstage: {epochs: 3, sources: [skincap]}\n")
    (run / "metrics.json").write_text('{"val/loss": 1.25}')
    judged.mkdir(parents=True)
    (judged / "metrics.json").write_text(json.dumps({"settings": {"captioner": str(run / "export")}}))
    (judged / "evaluation.md").write_text(FACTS.evaluation or "")
    command = [str(run), "--to", str(tmp_path / "out"), "--runs-root", str(tmp_path / "runs")]
    assert main(command) == 0
    card = (tmp_path / "out" / "README.md").read_text()
    for said in ("| BLEU | 3 | 1.5 | 2.5 |", "**val/loss**: 1.25", "**epochs**: 3", "**SkinCAP**"):
        assert said in card
    assert "HAM10000" not in card
    same(built, from_pretrained(tmp_path / "out"))
    assert main(command) == 1
    assert capsys.readouterr().err.strip().endswith("name a new directory with --to")
