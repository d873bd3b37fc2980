"""The terms that travel with a captioner, and what must not be pushed."""

from __future__ import annotations

import doctest
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import clip_xai.models.terms
from clip_xai.data.sources import SOURCES
from clip_xai.errors import UserError
from clip_xai.jobs.export import main
from clip_xai.models.backbones.catalogue import CATALOGUE
from clip_xai.models.backbones.source import BackboneSource
from clip_xai.models.captioner import Captioner
from clip_xai.models.card import CardFacts
from clip_xai.models.export import export_captioner, push_to_hub
from clip_xai.models.retrieval import CaptionIndex
from clip_xai.models.terms import forbids_derivatives, merged_terms, require_pushable
from clip_xai.models.weights import CaptionerSettings, build_captioner, save_captioner
from clip_xai.runs.lineage import Learned, Lineage
from tests.support.hub import LoopbackHub

SETTINGS = CaptionerSettings(
    backbone=BackboneSource("tiny", "tiny", "embedded:tiny"), mapper="linear_patch", language_model_pretrained=None
)
PANDERM = BackboneSource("dermlip_panderm", "PanDerm-base-w-PubMed-256", "hf-hub:redlessone/PanDerm")
STAGE_0 = Lineage(steps=("stage 0 on dermacap, split stratified: 9 photographs of 9 groups", "stage 1 on dermacap"))


@pytest.fixture(scope="module")
def built() -> Captioner:
    torch.manual_seed(0)
    return build_captioner(SETTINGS).eval()


def test_examples_run() -> None:
    found = doctest.testmod(clip_xai.models.terms, optionflags=doctest.IGNORE_EXCEPTION_DETAIL)
    assert found.attempted and not found.failed


def test_one_published_tower_forbids_derivatives() -> None:
    assert [name for name, entry in CATALOGUE.items() if forbids_derivatives(entry.licence)] == ["dermlip_panderm"]


@pytest.mark.parametrize("step", ["stage 0 on mine", "stage contrastive on mine", "contrastive on mine"])
@pytest.mark.parametrize("name", ["dermlip_panderm", "open_clip"])
def test_a_changed_tower_without_derivatives_is_refused_by_any_name(name: str, step: str) -> None:
    changed = Lineage(steps=("stage 1 on mine", step)).packed()
    with pytest.raises(UserError, match=r"is under CC BY-NC-ND 4\.0, which forbids sharing changed weights") as caught:
        require_pushable(replace(PANDERM, name=name), changed)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("step", ["stage 1 on mine", "stage 2 on mine", "adaptation on mine", "stage language on mine"])
def test_an_unchanged_tower_and_a_permissive_one_may_be_pushed(step: str) -> None:
    require_pushable(PANDERM, Lineage(steps=(step,)).packed())
    require_pushable(PANDERM, {})
    require_pushable(SETTINGS.backbone, STAGE_0.packed())


def pretend_panderm(directory: Path) -> None:
    """Let an export say that its tower is PanDerm's: what a push reads is the export alone."""
    config = json.loads((directory / "config.json").read_text())
    config["settings"]["backbone"] |= {"name": PANDERM.name, "architecture": PANDERM.architecture}
    (directory / "config.json").write_text(json.dumps(config))


def test_the_hub_sees_nothing_of_a_changed_tower(built: Captioner, tmp_path: Path) -> None:
    built.provenance = STAGE_0.packed()
    directory = export_captioner(built, SETTINGS, tmp_path / "out", CardFacts("mine"), with_backbone=True)
    pretend_panderm(directory)
    with LoopbackHub() as hub, hub.reachable(tmp_path / "cache"):
        with pytest.raises(UserError, match="leave --push out"):
            push_to_hub(directory, "group/captioner", token="any", endpoint=hub.endpoint)
        assert not hub.requests


def test_the_command_refuses_before_it_writes(
    built: Captioner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    built.provenance = STAGE_0.packed()
    save_captioner(built, SETTINGS, tmp_path / "run" / "export")
    monkeypatch.setitem(CATALOGUE, "tiny", replace(CATALOGUE["tiny"], licence="CC BY-ND 4.0"))
    command = [str(tmp_path / "run"), "--to", str(tmp_path / "out"), "--runs-root", str(tmp_path)]
    assert main([*command, "--push", "group/captioner"]) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and "is under CC BY-ND 4.0" in lines[0] and not (tmp_path / "out").exists()
    assert main(command) == 0  # for oneself


def test_terms_of_tower_data_and_index_are_printed_and_on_the_card(
    built: Captioner, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    learned = [Learned("skincap", 24, 20), Learned("hers", 7, 7), Learned("ham10000", 5, 5, rendered=5)]
    built.provenance = Lineage(steps=("stage 1 on hers",)).with_learned(learned).packed()
    retrieving = replace(SETTINGS, retrieved_captions=1, prompt="", retrieval_template="Like: {captions} So:")
    index = CaptionIndex(torch.randn(2, 128), ["a nevus.", "a wart."], ["p1", "p2"])
    export_captioner(built, retrieving, tmp_path / "run" / "export", CardFacts("mine"), index=index)
    assert main([str(tmp_path / "run"), "--to", str(tmp_path / "out"), "--runs-root", str(tmp_path)]) == 0
    printed = capsys.readouterr()
    assert printed.out.strip() == str(tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text().partition("## Licence")[2]
    for part, terms in (
        ("tower tiny (embedded:tiny)", "MIT"),
        ("data skincap", f"{SOURCES['skincap'].licence}; {SOURCES['skincap'].terms}"),
        ("data hers", "no licence stated"),
        ("data ham10000, rendered", "MIT, drawn by this package"),
        ("retrieval.safetensors", "holds 2 training captions: the terms of all data above bind it"),
    ):
        assert f"{part}: {terms}" in printed.err.splitlines()
        assert f"- **{part}**: {terms}" in card
    assert str(tmp_path) not in card


def test_a_published_language_model_is_named() -> None:
    settings = replace(SETTINGS, language_model="gpt2", language_model_pretrained="openai-community/gpt2")
    assert "language model gpt2 (openai-community/gpt2)" in merged_terms(settings, {})
