"""Towers that differ in one thing, and the table that is made of what their explainers score."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from clip_xai.data.synthetic.scene import render, sample_scene
from clip_xai.errors import UserError
from clip_xai.models.assets import TINY_CLIP, TINY_GPT2
from clip_xai.models.backbones.backbone_builder import build_backbone, tiny_backbone
from clip_xai.models.backbones.open_clip_vit import OpenClipBackbone
from clip_xai.models.tokenizer import CaptionTokenizer
from clip_xai.studies import towers
from clip_xai.studies.pretrain import TRAINING_SEEDS, Recipe, clip_config, rendered, save_backbone
from clip_xai.studies.towers import TOWERS, Plan, leading, lines, recipe_of


def test_each_tower_differs_from_the_shipped_one_in_one_thing() -> None:
    shipped = asdict(recipe_of("as shipped", Plan()))
    assert len(TOWERS) <= 8
    for name in TOWERS:
        own = asdict(recipe_of(name, Plan(seed=3)))
        assert sum(own[key] != shipped[key] for key in own) == (1 if name == "as shipped" else 2)  # the seed, too
    assert {key: 4 * value for key, value in towers.QUARTER.items() if key in ("scenes", "steps")} == {
        key: getattr(Recipe(), key) for key in ("scenes", "steps")
    }
    with pytest.raises(UserError, match="no tower 'deep'; choose one of as shipped"):
        recipe_of("deep", Plan())


def test_crowded_scenes_are_the_first_that_show_so_much(tmp_path: Path) -> None:
    recipe = Recipe(scenes=3, image_size=96, least_parts=7)
    found = rendered("train", recipe, tmp_path, workers=1)
    wanted, seed = [], TRAINING_SEEDS
    while len(wanted) < 3:
        scene = sample_scene(seed)
        shown = [*scene.structures, *scene.distractors, *scene.marks]
        wanted += [seed] if len(shown) >= 7 else []
        seed += 1
    assert [scene.seed for scene in found.scenes] == wanted != [TRAINING_SEEDS + step for step in range(3)]
    assert not np.array_equal(found.pixels[0], rendered("train", replace(recipe, least_parts=0), tmp_path, 1).pixels[0])


@pytest.mark.parametrize("name", ["mean of patches", "two blocks", "one head"])
def test_a_tower_of_its_own_sizes_is_read_back(name: str, tmp_path: Path) -> None:
    recipe = recipe_of(name, Plan())
    tokenizer = CaptionTokenizer.load(TINY_GPT2)
    torch.manual_seed(0)
    trained = tiny_backbone(clip_config(recipe, tokenizer.vocabulary_size, 0.0), tokenizer).eval()
    save_backbone(trained, recipe, {"diagnosis": 0.5}, tmp_path / "clip")
    assert json.loads((tmp_path / "recipe.json").read_text())["recipe"]["readout"] == recipe.readout
    read = build_backbone("tiny", "tiny", str(tmp_path / "clip" / "model.safetensors"))
    assert isinstance(read, OpenClipBackbone) and len(read.image_tower.blocks) == recipe.layers
    pixels = torch.from_numpy(np.stack([render(sample_scene(5)).image[:96, :96]] * 2)).permute(0, 3, 1, 2) / 255
    # Weights are kept in half precision.
    with torch.no_grad():
        assert torch.allclose(read.encode_image(pixels), trained.encode_image(pixels), rtol=2e-2, atol=2e-3)
        if name == "mean of patches":
            tokens = trained.model.visual.transformer(trained.model.visual._embeds(pixels))[:, 1:]
            pooled = trained.model.visual.ln_post(tokens.mean(1)) @ trained.model.visual.proj
            afterwards = trained.model.visual.ln_post(tokens).mean(1) @ trained.model.visual.proj
            own = trained.encode_image(pixels)
            assert torch.allclose(own, pooled, atol=1e-5) or torch.allclose(own, afterwards, atol=1e-5)


def test_a_configuration_that_says_no_sizes_is_refused(tmp_path: Path) -> None:
    shutil.copy(TINY_CLIP / "model.safetensors", tmp_path)
    (tmp_path / "open_clip_config.json").write_text('{"preprocess_cfg": {}}')
    with pytest.raises(UserError, match="has no model_cfg with embed_dim, vision_cfg and text_cfg"):
        build_backbone("tiny", "tiny", str(tmp_path / "model.safetensors"))


def test_the_table_says_value_lead_and_interval() -> None:
    row = {"target": "contrast", "method": "gradcam", "value": 0.66, "low": 0.6, "high": 0.7, "lead_value": 0.1}
    row |= {"lead_low": 0.02, "lead_high": 0.18, "leads": True, "groups": 40, "diagnosis": 0.9, "position": 0.99}
    table = pd.DataFrame(
        [
            row | {"tower": "as shipped"},
            row | {"tower": "two blocks", "leads": False, "lead_low": None, "lead_high": None},
        ]
    )
    head, _, first, second = lines(table, ("gradcam", "gradeclip")).splitlines()
    assert head == "| tower | zero-shot diagnosis | gradcam: contrast | gradeclip: contrast |"
    assert first == "| as shipped | 0.900 | **0.66 (+0.10 [+0.02, +0.18])** | – |"
    assert second == "| two blocks | 0.900 | 0.66 (+0.10) | – |"
    assert leading(table, ("gradcam",))["gradcam"].to_dict() == {"as shipped": 1, "two blocks": 0}
