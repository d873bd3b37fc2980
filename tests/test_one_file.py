"""Each kind of thing is added in one new file; these are the examples of the documentation, copied to a directory."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.core.config_store import ConfigStore

from clip_xai.config import schemas
from clip_xai.config.cli import compose_job
from clip_xai.data.manifest import load_manifest
from clip_xai.errors import UserError
from clip_xai.jobs.evaluate import evaluate
from clip_xai.jobs.explain import explain
from clip_xai.jobs.train import train
from clip_xai.registry import registries
from clip_xai.runs.checkpoints import RunCard
from clip_xai.tasks.captions.opened import open_captioner
from tests.support.small_runs import SHORT, add_photograph, of_data

EXAMPLES = Path(__file__).parents[1] / "docs" / "extending" / "examples"
GROUPS = ("xai", "target", "mapper", "backbone", "language_model", "task")
PARTS = ("my_mapper", "my_backbone", "my_language_model", "my_source")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for file in EXAMPLES.glob("*.py"):
        shutil.copy(file, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [one for one in sys.path if one])
    for job, schema in schemas.SCHEMAS.items():
        monkeypatch.setitem(schemas.SCHEMAS, job, schema)
    before = {registry.group: set(registry.registered()) for registry in registries()}
    repository = ConfigStore.instance().repo
    options = {group: set(repository.get(group, {})) for group in GROUPS}
    yield tmp_path
    for registry in registries():
        for name in set(registry.registered()) - before.get(registry.group, set()):
            if registry.module_of(name):
                registry.forget(name)
    for group, known in options.items():
        for name in set(repository.get(group, {})) - known:
            repository[group].pop(name)
    for file in EXAMPLES.glob("*.py"):
        sys.modules.pop(file.stem, None)


def write_table(root: Path, count: int = 12) -> None:
    root.mkdir()
    rng = np.random.default_rng(0)
    rows = ["file,patient,label"]
    for number in range(count):
        add_photograph(root, f"a{number}.jpg", rng)
        rows.append(f"a{number}.jpg,{number},{('melanoma', 'psoriasis')[number % 2]}")
    for mask in root.glob("*.png"):
        mask.unlink()
    (root / "mine_metadata.csv").write_text("\n".join(rows) + "\n")


def test_a_run_of_parts_that_are_one_file_each(place: Path) -> None:
    root, run = place / "photographs", place / "run"
    write_table(root)
    chosen = [f"plugins=[{','.join(PARTS)}]", "mapper=one_layer", "mapper.slots_scale=0.5"]
    chosen += ["backbone=two_convolutions", "language_model=small_llama", *of_data(root)]
    train(compose_job("train", [*SHORT, *chosen, "seed=1", f"runs_root={place}"], run))

    card = RunCard.read(run)
    assert card is not None and set(PARTS) <= set(card.plugins)
    assert {record.source for record in load_manifest(Path(f"{root}_manifest") / "manifest.parquet")} == {"mine"}
    captioner, _ = open_captioner(run / "export")
    assert captioner.mapper.slots_scale == 0.5
    assert type(captioner.language_model).__name__ == "LlamaForCausalLM"
    assert captioner.backbone.grid == (4, 4)

    asked = ["plugins=[my_explainer,my_target]", "xai=quadrants", "xai.quadrants.fill=0.5", "target=embedding_length"]
    asked += ["target.power=2", f"image={root / 'a0.jpg'}", f"ckpt={run}", "trainer=cpu", "logger=csv"]
    explained = compose_job("explain", asked, place / "explained")
    assert explain(explained)["explained"] == 1
    page = (place / "explained" / "index.html").read_text()
    assert '"title":"Quadrants"' in page and "length" in page

    with pytest.raises(UserError, match=r"^target\.power=0: give more than 0$"):
        compose_job("explain", ["plugins=[my_target]", "target=embedding_length", "target.power=0"], run)


def test_a_missing_plugin_of_a_run_is_one_line(place: Path) -> None:
    card = replace(RunCard.now("tiny", "resampler", "tiny", 1), plugins=["my_gone"], data={"name": "x"})
    card.write(place)
    from clip_xai.runs.judged import data_of_run

    with pytest.raises(
        UserError, match=r"was made with plugins=\[my_gone\]; plugins: there is no module my_gone"
    ) as said:
        data_of_run(place / "export")
    assert "\n" not in str(said.value)


def test_a_yaml_file_names_its_plugins(place: Path) -> None:
    (place / "own" / "experiment").mkdir(parents=True)
    (place / "own" / "experiment" / "mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /mapper: one_layer\nplugins: [my_mapper]\nmapper:\n"
        "  slots_scale: 0.25\n"
    )
    config = compose_job("train", ["--config-dir", str(place / "own"), "experiment=mine"], place / "run")
    assert (config.plugins, config.mapper.name) == (["my_mapper"], "one_layer")
    assert (config.mapper.prefix_length, config.mapper.slots_scale) == (4, 0.25)


def test_any_causal_language_model_is_a_folder(tmp_path: Path) -> None:
    from transformers import OPTConfig, OPTForCausalLM

    from clip_xai.models.assets import TINY_GPT2
    from clip_xai.models.language_model import build_language_model
    from clip_xai.models.tokenizer import CaptionTokenizer

    words = CaptionTokenizer.load(TINY_GPT2)
    told = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 48}
    theirs = OPTForCausalLM(OPTConfig(vocab_size=words.vocabulary_size, word_embed_proj_dim=32, **told)).eval()
    theirs.save_pretrained(tmp_path)
    words.save(tmp_path)
    ours, tokenizer = build_language_model("opt", str(tmp_path))
    ids = torch.tensor([tokenizer.encode("a brown macule")])
    assert torch.equal(ours(ids).logits, theirs(ids).logits)


def test_a_task_is_one_file_and_its_yaml(place: Path) -> None:
    root, own = place / "photographs", place / "own" / "task"
    write_table(root, 24)
    own.mkdir(parents=True)
    shutil.copy(EXAMPLES / "brightness.yaml", own)
    told = ["--config-dir", str(own.parent), "task=brightness", "plugins=[my_task,my_source]", *of_data(root)]
    told += ["trainer=cpu", "logger=csv", f"runs_root={place}", "callbacks.progress_bar=false"]
    config = compose_job("train", told, place / "run")
    assert config.mapper is None and config.stage.name == "supervised"
    metrics = train(config)
    assert metrics["train_photographs"] + metrics["val_photographs"] < 24 and metrics["val/loss"] < 0.1
    card = RunCard.read(place / "run")
    assert card is not None and card.task == "brightness" and "my_task" in card.plugins

    asked = [f"ckpt={place / 'run'}", "trainer=cpu", "logger=csv"]
    judged = evaluate(compose_job("evaluate", asked, place / "judged"))
    assert judged["error"]["value"] == json.loads((place / "judged" / "metrics.json").read_text())["error"]["value"]
    assert (place / "judged" / "index.html").is_file()
    with pytest.raises(UserError, match=r"was trained for task=brightness, not for captions"):
        evaluate(compose_job("evaluate", [*asked, "task=captions"], place / "other"))
    with pytest.raises(UserError, match="task=brightness has no explanation"):
        asked += ["xai=gradcam", "target=similarity", "text=a bright photo"]
        explain(compose_job("explain", asked, place / "explained"))
