"""The programs that make the embedded weights write none that are not numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from clip_xai.errors import UserError
from clip_xai.models.assets import TINY_GPT2
from clip_xai.models.tokenizer import CaptionTokenizer
from clip_xai.studies import pretrain
from clip_xai.studies.pretrain import Recipe

RECIPE = Recipe(
    scenes=8, test_scenes=4, layers=1, text_layers=1, steps=3, warmup=1, batch_size=4, whole_captions=2,
    learning_rate=1e30, language_steps=4, language_batch=2, language_rate=1e30,
)  # fmt: skip


def test_a_language_model_that_diverges_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = CaptionTokenizer.load(TINY_GPT2)
    monkeypatch.setattr(pretrain, "TINY_GPT2", tmp_path)
    with pytest.raises(UserError, match="the language model holds NaN"):
        pretrain.train_language_model(RECIPE, tokenizer)
    assert not list(tmp_path.iterdir())


def test_a_tower_that_diverges_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrain, "TINY_CLIP", tmp_path / "clip")
    with pytest.raises(UserError, match=r"the training loss is nan at step [23]"):
        pretrain.train_clip(RECIPE, CaptionTokenizer.load(TINY_GPT2), tmp_path / "work", workers=1, every=100)
    assert not (tmp_path / "clip").exists()
