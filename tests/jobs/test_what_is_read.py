"""What of a text or a tower's folder is used: cut captions are counted, and stage 0 hands its folder's ways on."""

from __future__ import annotations

import csv
import json
import logging
from pathlib import Path

import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import CLIPConfig, CLIPModel

from clip_xai.errors import UserError
from clip_xai.jobs.evaluate import evaluate
from clip_xai.jobs.train import train
from clip_xai.models.backbones.backbone_builder import build_backbone
from clip_xai.models.tokenizer import CaptionTokenizer
from clip_xai.tasks.captions.written import cut_for_clip
from tests.support.small_captioner import small_captioner
from tests.support.small_runs import draw, of_data, settings

VISION = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
PROCESSOR = {
    "do_resize": True, "size": {"shortest_edge": 32}, "do_center_crop": True, "crop_size": {"height": 32, "width": 32},
    "image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.4, 0.3], "resample": 3, "do_rescale": True,
    "do_normalize": True, "rescale_factor": 1 / 255, "image_processor_type": "CLIPImageProcessor",
}  # fmt: skip


def test_captions_longer_than_what_is_learned_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = draw(tmp_path / "data")
    with (root / "mine" / "captions.csv").open(encoding="utf-8") as file:
        captions = [row["caption"] for row in csv.DictReader(file)]
    run = settings("train", tmp_path, tmp_path / "run", *of_data(root, max_tokens=4))
    with caplog.at_level(logging.WARNING):
        train(run)
    [line] = [record.getMessage() for record in caplog.records if "data.max_tokens" in record.getMessage()]
    tokenizer = CaptionTokenizer.load(tmp_path / "run" / "export")
    lengths = {text: len(tokenizer.encode(text)) + 1 for text in captions}
    assert min(lengths.values()) > 4, "all must be cut, whichever patients train"
    trained = json.loads((tmp_path / "run" / "metrics.json").read_text())["train_photographs"]
    assert line.startswith(f"{trained} captions longer than data.max_tokens=4")
    assert line.endswith(f"the longest has {max(lengths.values())} tokens")
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        train(settings("train", tmp_path, tmp_path / "whole", *of_data(root, max_tokens=max(lengths.values()))))
    assert not any("data.max_tokens" in record.getMessage() for record in caplog.records)


def test_captions_that_clip_reads_in_part_are_counted() -> None:
    captioner = small_captioner()
    context = captioner.backbone.text_tower.context_length  # type: ignore[union-attr]
    short, long = "a red spot", "a green spot, " * 20
    assert len(captioner.tokenizer.encode(short)) + 2 <= context < len(captioner.tokenizer.encode(long))
    said = cut_for_clip(captioner, [short, long, long])
    assert list(said.values()) == ["2 of 3"] and cut_for_clip(captioner, [short]) == {}


def test_the_evaluation_says_of_how_many_captions_clip_reads_the_beginning(tmp_path: Path) -> None:
    root = draw(tmp_path / "data")
    train(settings("train", tmp_path, tmp_path / "run", *of_data(root)))
    judged = settings(
        "evaluate", tmp_path, tmp_path / "judged", f"ckpt={tmp_path / 'run'}", "bootstrap=20",
        "generation.max_new_tokens=90", "generation.min_new_tokens=90", "generation.whole_sentences=false",
    )  # fmt: skip
    found = evaluate(judged)["settings"]
    rows = json.loads((tmp_path / "judged" / "metrics.json").read_text())["settings"]
    assert found["captions of which CLIPScore reads the beginning alone"].endswith("of 4")
    assert rows["captions of which CLIPScore reads the beginning alone"] in (tmp_path / "judged/index.html").read_text()


@torch.no_grad()
def test_stage_0_hands_the_folders_preprocessing_and_tokenizer_on(tmp_path: Path) -> None:
    """A tower with a vocabulary and a processor of its own, trained for a step and read back by its file alone."""
    folder, root = tmp_path / "hers", draw(tmp_path / "data")
    folder.mkdir()
    torch.manual_seed(0)
    words = CaptionTokenizer.train(["A brown macule.", "A red scaly plaque."] * 3, 300)
    words.save(folder)
    own = Tokenizer.from_file(str(folder / "tokenizer.json"))
    end = own.id_to_token(words.eos_id)
    own.post_processor = TemplateProcessing(single=f"$A {end}", special_tokens=[(end, words.eos_id)])
    own.save(str(folder / "tokenizer.json"))
    text = {
        **VISION, "vocab_size": words.vocabulary_size, "max_position_embeddings": 20, "eos_token_id": words.eos_id,
        "bos_token_id": words.eos_id, "pad_token_id": words.eos_id,
    }  # fmt: skip
    config = {"vision_config": {**VISION, "image_size": 32, "patch_size": 8}, "text_config": text, "projection_dim": 16}
    CLIPModel(CLIPConfig.from_dict(config)).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    chosen = ["backbone=hf", f"backbone.pretrained={folder}"]
    short = ["stage=0", "stage.learning_rate=1e-3", *chosen, *of_data(root)]
    train(settings("train", tmp_path, tmp_path / "run", *short))
    file = tmp_path / "run" / "backbone" / "model.safetensors"
    before = build_backbone("hf", "hf", str(folder))
    for place in (file, file.parent):
        after = build_backbone("hf", "hf", str(place))
        assert after.preprocess == before.preprocess and after.preprocess.mean == (0.1, 0.2, 0.3)
        photograph = Image.open(root / "mine" / "p00.jpg")
        assert torch.equal(after.preprocess(photograph), before.preprocess(photograph))
        assert torch.equal(after.tokenize(["A red plaque."]), before.tokenize(["A red plaque."]))
        assert not torch.equal(after.encode_text(["A red plaque."]), before.encode_text(["A red plaque."]))
    with pytest.raises(UserError, match=r"backbone\.quick_gelu: .*tower\.json says how"):
        build_backbone("mine", "ViT-B-16", str(file), quick_gelu=True)
