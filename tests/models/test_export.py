from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from huggingface_hub import HfApi
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerFast

from clip_xai.errors import UserError
from clip_xai.jobs.export import SAW_RENDERED_ALONE, main
from clip_xai.models.backbones.backbone_builder import BackboneSource, build_backbone
from clip_xai.models.backbones.blueprint import random_twin
from clip_xai.models.backbones.open_clip_models import build_model
from clip_xai.models.captioner import Captioner
from clip_xai.models.card import CardFacts
from clip_xai.models.export import FILES, export_captioner, from_pretrained, push_to_hub
from clip_xai.models.retrieval import INDEX, CaptionIndex
from clip_xai.models.settings import REPORTED
from clip_xai.models.weights import (
    TOWER,
    CaptionerSettings,
    build_captioner,
    load_captioner,
    load_retrieval,
    load_settings,
    save_captioner,
)
from clip_xai.runs.lineage import Learned, Lineage
from tests.support.captions import log_prob
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
    torch.testing.assert_close(log_prob(one, one.read(pixels), ids), log_prob(other, other.read(pixels), ids))
    assert one.prompt == other.prompt and not other.training


@pytest.mark.parametrize("with_backbone", [None, True])
def test_what_goes_out_comes_in(with_backbone: bool | None, built: Captioner, tmp_path: Path) -> None:
    export_captioner(built, SETTINGS, tmp_path, FACTS, with_backbone)
    assert {file.name for file in tmp_path.iterdir()} == {*FILES, *([TOWER] if with_backbone else [])}
    same(built, from_pretrained(tmp_path))
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["holds_backbone"] == bool(with_backbone)
    tokens = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    text = "a 2 mm papule, scaly."
    assert tokens(text)["input_ids"] == built.tokenizer.encode(text)
    assert tokens.eos_token_id == tokens.pad_token_id == built.tokenizer.eos_id


def test_a_tower_in_the_directory_is_complete_or_refused(built: Captioner, tmp_path: Path) -> None:
    export_captioner(built, SETTINGS, tmp_path, FACTS, with_backbone=True)
    state = load_file(tmp_path / "model.safetensors")
    key = next(key for key in state if key.startswith("backbone."))
    save_file({name: value for name, value in state.items() if name != key}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="missing"):
        from_pretrained(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_neither_go_out_nor_come_in(built: Captioner, tmp_path: Path, value: float) -> None:
    from safetensors.torch import load_file, save_file

    from clip_xai.models.weights import save_captioner

    name, weight = next(iter(built.mapper.named_parameters()))
    whole = weight.detach().clone()
    with torch.no_grad():
        weight.view(-1)[0] = value
    try:
        for write in (
            lambda: save_captioner(built, SETTINGS, tmp_path / "bad"),
            lambda: export_captioner(built, SETTINGS, tmp_path / "bad", FACTS),
        ):
            with pytest.raises(UserError, match=rf"NaN or infinite values in 1 of \d+ tensors, such as mapper\.{name}"):
                write()
            assert not (tmp_path / "bad" / "model.safetensors").exists()
    finally:
        with torch.no_grad():
            weight.copy_(whole)
    save_captioner(built, SETTINGS, tmp_path / "old")
    state = load_file(tmp_path / "old" / "model.safetensors")
    state[f"mapper.{name}"].view(-1)[0] = value
    save_file(state, tmp_path / "old" / "model.safetensors")
    with pytest.raises(UserError, match=r"model\.safetensors holds NaN or infinite values"):
        load_captioner(tmp_path / "old")


def test_the_card_says_what_the_model_is_and_what_it_is_worth(built: Captioner, tmp_path: Path) -> None:
    card = (export_captioner(built, SETTINGS, tmp_path / "card", FACTS) / "README.md").read_text()
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
    bare = (export_captioner(built, SETTINGS, tmp_path / "bare", CardFacts("bare")) / "README.md").read_text()
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


RETRIEVING = replace(SETTINGS, prompt="", retrieved_captions=2, retrieval_template="Like: {captions} So:")


def index_of_three() -> CaptionIndex:
    embeddings = torch.randn(3, 128, generator=torch.Generator().manual_seed(5))
    return CaptionIndex(embeddings, ["a nevus.", "a wart.", "a burn."], ["p1", "p2", "p3"])


def test_the_index_of_captions_travels_with_the_weights(built: Captioner, tmp_path: Path) -> None:
    index = index_of_three()
    directory = export_captioner(built, RETRIEVING, tmp_path / "export", FACTS, index=index)
    with LoopbackHub() as hub, hub.reachable(tmp_path / "cache"):
        push_to_hub(directory, "group/captioner", token="any", endpoint=hub.endpoint)
        assert set(hub.files("group/captioner")) - {".gitattributes"} == {*FILES, INDEX}
        with built.prompted(""):
            same(built, from_pretrained("group/captioner"))
        [taken] = (tmp_path / "cache").rglob(INDEX)
    assert CaptionIndex.load(taken).captions == index.captions
    card = (directory / "README.md").read_text()
    assert "captions of its 2 nearest training" in card and "keeps 3 training captions" in card
    # What the card tells to type runs, and says what the captioner says behind these prompts.
    code = card.split("```python\n")[1].split("```")[0].replace("DIRECTORY OR ORGANISATION/MODEL", str(directory))
    code = code.replace("DIRECTORY/", f"{directory}/").replace("print(", "said.append(")
    said: list[str] = []
    exec(code, {"photograph": Image.new("RGB", (120, 100), "brown"), "said": said})
    pixels = built.backbone.preprocess(Image.new("RGB", (120, 100), "brown"))[None]
    retrieval = load_retrieval(load_settings(directory), directory)
    assert retrieval is not None and retrieval.template == "Like: {captions} So:"
    prompts = retrieval.prompts(built.backbone.encode_image(pixels))
    assert prompts[0].startswith("Like: a ") and prompts[0].count("a ") == 2
    assert said == [built.generate(built.read(pixels), REPORTED, prompts=prompts)[0].text]


def test_an_index_goes_with_retrieving_settings_and_with_no_others(built: Captioner, tmp_path: Path) -> None:
    for settings, index in ((RETRIEVING, None), (SETTINGS, index_of_three())):
        with pytest.raises(ValueError, match="do not fit"):
            export_captioner(built, settings, tmp_path / "no", FACTS, index=index)
    assert not (tmp_path / "no").exists()


def test_exports_from_before_retrieval_still_load(built: Captioner, tmp_path: Path) -> None:
    directory = export_captioner(built, SETTINGS, tmp_path, FACTS)
    config = json.loads((directory / "config.json").read_text())
    assert config["settings"].pop("retrieved_captions") == 0 and config["settings"].pop("retrieval_template")
    (directory / "config.json").write_text(json.dumps(config))
    same(built, load_captioner(directory))
    assert load_settings(directory) == SETTINGS and load_retrieval(SETTINGS, directory) is None
    with pytest.raises(UserError, match="there is no index of training captions"):
        load_retrieval(RETRIEVING, directory)


def test_what_is_no_export_is_not_uploaded(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="export first"):
        push_to_hub(tmp_path, "group/captioner")


def test_the_command_takes_the_index_along(built: Captioner, tmp_path: Path) -> None:
    export_captioner(built, RETRIEVING, tmp_path / "run" / "export", FACTS, index=index_of_three())
    assert main([str(tmp_path / "run"), "--to", str(tmp_path / "out"), "--runs-root", str(tmp_path)]) == 0
    assert CaptionIndex.load(tmp_path / "out" / INDEX).captions == index_of_three().captions
    assert load_settings(tmp_path / "out") == RETRIEVING


def test_the_command_exports_a_run_with_its_evaluation(
    built: Captioner, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, judged = tmp_path / "runs" / "train" / "one", tmp_path / "runs" / "evaluate" / "two"
    learned = [Learned("skincap", 24, 20), Learned("hers <i>", 7, 7), Learned("ham10000", 5, 5, rendered=5)]
    built.provenance = Lineage(steps=("stage 1 on hers",)).with_learned(learned).packed()
    save_captioner(built, SETTINGS, run / "export")
    (run / ".hydra").mkdir()
    (run / ".hydra" / "config.yaml").write_text("data: {synthetic: null}\nstage: {epochs: 3, sources: [skincap]}\n")
    (run / "metrics.json").write_text('{"val/loss": 1.25}')
    judged.mkdir(parents=True)
    (judged / "metrics.json").write_text(json.dumps({"settings": {"captioner": str(run / "export")}}))
    told = f"\n\n- captioner: {run / 'export'}\n- <script>alert(1)</script>\n"
    (judged / "evaluation.md").write_text((FACTS.evaluation or "") + told)
    broken = tmp_path / "runs" / "evaluate" / "three"
    broken.mkdir()
    (broken / "metrics.json").write_text("")
    command = [str(run), "--to", str(tmp_path / "out"), "--runs-root", str(tmp_path / "runs")]
    assert main(command) == 0
    card = (tmp_path / "out" / "README.md").read_text()
    for said in (
        "| BLEU | 3 | 1.5 | 2.5 |",
        "**val/loss**: 1.25",
        "**epochs**: 3",
        "**run 1**: stage 1 on hers",
        "**SkinCAP**: 24 photographs of 20 patients or lesions; ",
        "**hers &lt;i&gt;**: 7 photographs of 7 patients or lesions; no licence stated",
        "**ham10000, rendered**: 5 photographs of 5 patients or lesions, all drawn by this package",
        "captioner: one/export",
    ):
        assert said in card
    assert "PAD-UFES" not in card and str(tmp_path) not in card and "<script>" not in card
    assert "language" not in yaml.safe_load(card.split("---")[1])  # nobody says whose language her captions are in
    same(built, from_pretrained(tmp_path / "out"))
    assert main(command) == 0
    assert main([*command, "--licence", "mit"]) == 1
    said = capsys.readouterr().err.strip()
    assert "licence=other, and now licence=mit" in said and f"--to={tmp_path / 'out_2'}" in said


def test_a_card_finds_the_evaluation_of_a_demo_and_says_what_was_rendered(built: Captioner, tmp_path: Path) -> None:
    root = tmp_path / "demo" / "now"
    run, judged = root / "train" / "stage2", root / "evaluate"
    built.provenance = Lineage(steps=("stage 1",)).with_learned([Learned("ham10000", 1, 1, rendered=1)]).packed()
    save_captioner(built, SETTINGS, run / "export")
    (run / "metrics.json").write_text('{"val/loss": 0.14145775139331818}')
    judged.mkdir()
    (judged / "metrics.json").write_text(json.dumps({"settings": {"captioner": str(run / "export")}}))
    (judged / "evaluation.md").write_text(FACTS.evaluation or "")
    assert main([str(run), "--to", str(tmp_path / "out"), "--runs-root", str(tmp_path / "demo")]) == 0
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| BLEU | 3 | 1.5 | 2.5 |" in card and "**val/loss**: 0.1415\n" in card
    assert card.index(SAW_RENDERED_ALONE) < card.index("## Model")
    assert "**ham10000, rendered**: 1 photograph of 1 patient or lesion, all drawn" in card
    built.provenance = None


def test_training_captions_are_never_made_public(built: Captioner, tmp_path: Path) -> None:
    export_captioner(built, RETRIEVING, tmp_path, FACTS, index=index_of_three())
    with pytest.raises(UserError, match="captions of the training data"):
        push_to_hub(tmp_path, "group/captioner", private=False)


def test_what_stands_in_the_card_cannot_speak_for_it(built: Captioner, tmp_path: Path) -> None:
    licence = "mit\nlanguage: xx\n---\n# Free for all"
    facts = CardFacts("a <b>name</b>\n## Limits", licence, {"x | y": "<img src=z>"}, {"k": "a\n## b"}, language="en")
    card = (export_captioner(built, SETTINGS, tmp_path / "out", facts) / "README.md").read_text()
    header = yaml.safe_load(card.split("\n---\n")[0].removeprefix("---\n"))
    assert header["license"] == licence and header["language"] == "en"
    assert "<b>" not in card and "<img" not in card and "\n# Free" not in card.split("\n---\n", 1)[1]
    assert card.count("\n## Limits") == 1 and "\n## b" not in card


def own_clip(folder: Path) -> Path:
    """A CLIP of one's own in open_clip's format: other sizes than any in the catalogue, and another preprocessing."""
    vision = {"image_size": 32, "patch_size": 8, "width": 32, "layers": 2, "head_width": 8}
    text = {"context_length": 20, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2}
    model_cfg = {"embed_dim": 16, "quick_gelu": True, "vision_cfg": vision, "text_cfg": text}
    folder.mkdir()
    preprocess = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.2], "interpolation": "bilinear", "resize_mode": "squash"}
    written = {"model_cfg": model_cfg, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(written))
    torch.manual_seed(3)
    save_file(build_model(model_cfg, True, "mine").state_dict(), folder / "open_clip_model.safetensors")
    return folder


def test_a_captioner_on_a_clip_of_ones_own_travels_with_it(tmp_path: Path) -> None:
    folder = own_clip(tmp_path / "mine")
    source = BackboneSource("dermlip", "ViT-B-16", str(folder), image_size=48)
    settings = CaptionerSettings(source, "linear_patch", language_model_pretrained=None)
    captioner = build_captioner(settings).eval()
    photograph = Image.effect_noise((70, 50), 80).convert("RGB")
    seen = captioner.backbone.preprocess(photograph)
    directory = export_captioner(captioner, settings, tmp_path / "out", CardFacts("mine"))
    folder.rename(tmp_path / "elsewhere")
    taken = from_pretrained(directory)
    assert torch.equal(taken.backbone.preprocess(photograph), seen) and seen.shape[-1] == 48
    texts = ["a nevus", "melanoma on the arm"]
    assert torch.equal(taken.backbone.encode_text(texts), captioner.backbone.encode_text(texts))
    same(captioner, taken)
    for file in directory.iterdir():
        assert str(tmp_path).encode() not in file.read_bytes(), file.name
    again = export_captioner(taken, load_settings(directory), tmp_path / "again", CardFacts("mine"))
    same(captioner, from_pretrained(again))


def test_an_export_that_does_not_come_back_is_not_left(
    built: Captioner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from clip_xai.models import export

    def spoiled(captioner: Captioner, settings: CaptionerSettings, directory: Path, with_backbone: bool) -> None:
        save_captioner(captioner, settings, directory, with_backbone)
        state = load_file(directory / "model.safetensors")
        key = next(key for key in state if key.startswith("mapper."))
        save_file(state | {key: state[key] + 1}, directory / "model.safetensors")

    monkeypatch.setattr(export, "save_captioner", spoiled)
    with pytest.raises(UserError, match="does not load unchanged"):
        export_captioner(built, SETTINGS, tmp_path / "out", FACTS)
    assert not list(tmp_path.iterdir())


def test_a_twin_is_the_same_architecture_at_other_weights(tmp_path: Path) -> None:
    tower = build_backbone("dermlip", "ViT-B-16", str(own_clip(tmp_path / "mine")), image_size=48)
    twin = random_twin(tower)
    assert twin.grid == tower.grid == (6, 6) and twin.variant == tower.variant == "quick_gelu"
    assert twin.preprocess == tower.preprocess and twin.fingerprint != tower.fingerprint
    assert torch.equal(twin.tokenize(["a nevus"]), tower.tokenize(["a nevus"]))
    shapes = {key: value.shape for key, value in tower.state_dict().items()}
    assert {key: value.shape for key, value in twin.state_dict().items()} == shapes


def test_no_patient_is_named_in_what_is_handed_on(built: Captioner, tmp_path: Path) -> None:
    index = index_of_three()
    directory = export_captioner(built, RETRIEVING, tmp_path / "out", FACTS, index=index)
    taken = CaptionIndex.load(directory / INDEX)
    assert taken.captions == index.captions and taken.groups == ["#1", "#2", "#3"]
    held = (directory / INDEX).read_bytes()
    assert not any(group.encode() + b"\0" in held for group in index.groups)


def test_a_public_repository_gets_no_training_captions_and_nothing_by_accident(
    built: Captioner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    monkeypatch.setattr(HfApi, "create_repo", lambda self, name, **settings: sent.append(name))
    monkeypatch.setattr(HfApi, "repo_info", lambda self, name: SimpleNamespace(private=False))
    with_index = export_captioner(built, RETRIEVING, tmp_path / "index", FACTS, index=index_of_three())
    with pytest.raises(UserError, match=r"is public, and retrieval\.safetensors holds captions"):
        push_to_hub(with_index, "group/captioner")
    plain = export_captioner(built, SETTINGS, tmp_path / "plain", FACTS)
    with pytest.raises(UserError, match="is already public: add --public"):
        push_to_hub(plain, "group/captioner")
    assert not sent
