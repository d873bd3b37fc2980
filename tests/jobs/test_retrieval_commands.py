"""Retrieved captions as a user types them: training, evaluating, explaining, handing on."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors import safe_open
from transformers import GPT2Config, GPT2LMHeadModel

from clip_xai.models.assets import TINY_GPT2
from clip_xai.models.retrieval import CaptionIndex
from clip_xai.models.tokenizer import CaptionTokenizer
from tests.jobs.test_commands import home, newest, typed, works

__all__ = ["home"]
pytestmark = pytest.mark.slow
FAST = "debug=fast logger=csv"


def roomy(folder: Path) -> Path:
    """A small GPT-2 in the transformers format with positions for two more captions."""
    tokenizer = CaptionTokenizer.load(TINY_GPT2)
    torch.manual_seed(0)
    end = tokenizer.eos_id
    config = GPT2Config(
        vocab_size=tokenizer.vocabulary_size, n_positions=256, n_embd=128, n_layer=4, n_head=4,
        bos_token_id=end, eos_token_id=end, pad_token_id=end,
    )  # fmt: skip
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save(folder)
    return folder


def test_retrieved_captions_from_training_to_explanations(home: Path) -> None:
    folder = roomy(home / "roomy")
    told = f"language_model.pretrained={folder} language_model.retrieved_captions=2 callbacks.score_captions=1"
    works(home, f"python train.py {told} {FAST}")
    [run_dir] = newest(home, "train")
    export = run_dir / "export"
    index = CaptionIndex.load(export / "retrieval.safetensors")
    assert len(index.captions) == 16  # what debug=fast trains on
    settings = json.loads((export / "config.json").read_text())["settings"]
    assert settings["retrieved_captions"] == 2 and "{captions}" in settings["retrieval_template"]
    with (run_dir / "csv" / "sample_captions.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 2

    brief = "logger=csv data.limit=8 bootstrap=20 generation.max_new_tokens=8"
    works(home, f"python evaluate.py ckpt={run_dir} {brief}")
    [evaluated] = newest(home, "evaluate")
    assert len(pd.read_parquet(evaluated / "captions.parquet")) == 8
    assert "retrieved captions in each prompt" in (evaluated / "evaluation.md").read_text()

    explain = 'python explain.py xai=token_gradxinput logger=csv samples=2 generation.max_new_tokens=8 "target=caption"'
    for ckpt in (str(run_dir), str(run_dir / "checkpoints" / "last.ckpt")):
        works(home, f"{explain} ckpt='{ckpt}'")
        [explained] = newest(home, "explain")
        for file in sorted((explained / "results").glob("*.safetensors")):
            with safe_open(file, "pt") as stored:
                known = json.loads(stored.metadata()["result"])
            prompt = known["photograph"]["facts"]["prompt"]
            assert sum(caption in prompt for caption in index.captions) == 2
            assert known["answers"][0]["attributions"][0]["tokens"][0][:2] == ["image", "prompt"]

    works(home, f"python train.py {told} stage=2 {FAST}")
    [second] = newest(home, "train")
    assert (second / "export" / "retrieval.safetensors").is_file()

    works(home, f"python -m clip_xai.jobs.export {second} --to handed_on")
    assert (home / "handed_on" / "retrieval.safetensors").is_file()


def test_what_the_tiny_language_model_has_no_room_for_is_one_line(home: Path) -> None:
    before = list(home.glob("runs/train/*/run.json"))
    done = typed(home, f"python train.py language_model.retrieved_captions=2 {FAST}")
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1 and "128 positions: lower language_model.retrieved_captions" in last
    assert "Traceback" not in done.stderr and list(home.glob("runs/train/*/run.json")) == before
