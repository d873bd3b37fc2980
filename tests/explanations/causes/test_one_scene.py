"""Effects and verdicts of scenes: against a slow loop that draws and scores one picture at a time."""

from __future__ import annotations

import itertools
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clip_xai.data.synthetic.parts import LESION, only, parts_of, reach, sample_scene, surroundings_anew, without
from clip_xai.data.synthetic.scene import render
from clip_xai.explanations.causes.maps import CONTROLS, EFFECTS, REVERSED
from clip_xai.explanations.causes.measures import PLACE, measure
from clip_xai.explanations.causes.one_scene import BLIND, RANDOM, TRAINED, causes_of
from clip_xai.explanations.causes.scene_targets import CONTRAST, Asker, SceneQuestion
from clip_xai.explanations.causes.scenes import FRESH, DrawnScene, fresh_seeds
from clip_xai.explanations.causes.store import load_scene, save_scene
from clip_xai.models.backbones.base import VisionBackbone
from clip_xai.models.backbones.blueprint import random_twin
from clip_xai.models.backbones.tower import Features, ImageTower
from clip_xai.xai.examples import example
from clip_xai.xai.methods import AttentionRollout, GradCam
from clip_xai.xai.targets.similarity import CutTextWarning


@pytest.fixture(scope="module")
def asker() -> Asker:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CutTextWarning)
        return Asker(example()[0])


def few_parts(preprocess) -> DrawnScene:  # type: ignore[no-untyped-def]
    scenes = map(sample_scene, fresh_seeds(100))
    return DrawnScene.of(next(scene for scene in scenes if len(parts_of(scene)) == 4), preprocess)


def test_effects_of_the_contrast_are_those_of_a_slow_loop(asker: Asker, tmp_path: Path) -> None:
    drawn = few_parts(asker.backbone.preprocess)
    found = causes_of(asker, drawn, [GradCam(), AttentionRollout()], random_twin(asker.backbone), seed=3)
    assert found.names == (CONTRAST,) and found.seed >= FRESH
    names, target = [part.name for part in drawn.players], SceneQuestion.of(asker, drawn).contrast
    assert target is not None and len(names) == 3

    def score(kept: list[str]) -> float:
        picture = Image.fromarray(render(only(drawn.scene, [LESION, *drawn.hidden, *kept])).image)
        with torch.no_grad():
            embedding = asker.backbone.encode_image(asker.backbone.preprocess(picture)[None])
        return float(target.score(embedding)[0, 0])

    slow = np.zeros(3)
    orders = list(itertools.permutations(range(3)))
    for order in orders:
        kept: list[str] = []
        for part in order:
            before = score(kept)
            kept.append(names[part])
            slow[part] += (score(kept) - before) / len(orders)
    np.testing.assert_allclose(found.effects[:, 0], slow, atol=1e-5)
    assert found.whole[0] == pytest.approx(score(names), abs=1e-5) and found.bare[0] == pytest.approx(
        score([]), abs=1e-5
    )
    assert np.isnan(found.anew).all()
    weights = {name: {method for method, of in found.masses if of == name} for name in (TRAINED, RANDOM, BLIND)}
    assert weights[TRAINED] == weights[RANDOM] == {"gradcam", "attention_rollout"} and weights[BLIND] == set(CONTROLS)
    assert set(found.seconds) == {"gradcam", "attention_rollout"}
    save_scene(found, tmp_path / "scene.npz")
    again = load_scene(tmp_path / "scene.npz")
    assert again is not None
    for name, value in vars(again).items():
        if name == "masses":
            assert list(value) == list(found.masses)
            assert all(np.array_equal(value[one], found.masses[one], equal_nan=True) for one in value)
        elif isinstance(value, np.ndarray):
            np.testing.assert_array_equal(value, getattr(found, name))
        elif name != "coalitions":
            assert value == getattr(found, name)
    np.testing.assert_array_equal(again.effects, found.effects)
    (tmp_path / "cut.npz").write_bytes((tmp_path / "scene.npz").read_bytes()[:300])
    assert load_scene(tmp_path / "cut.npz") is None and load_scene(tmp_path / "none.npz") is None


def test_a_scene_is_cut_into_parts_that_the_square_shows(asker: Asker) -> None:
    drawn = few_parts(asker.backbone.preprocess)
    assert drawn.masks.any(dim=(1, 2)).all() and len(drawn.masks) == len(drawn.players) == 3
    whole = np.ones(3, bool)
    torch.testing.assert_close(drawn.draw(whole), drawn.pixels)
    for number, part in enumerate(drawn.players):
        present = whole.copy()
        present[number] = False
        alone = asker.backbone.preprocess(Image.fromarray(render(without(drawn.scene, part.name)).image))
        torch.testing.assert_close(drawn.draw(present), alone)


def test_what_lies_around_a_lesion_is_drawn_anew_and_the_lesion_stays() -> None:
    scene = sample_scene(FRESH + 4)
    again = surroundings_anew(scene, 5)
    assert (again.structures, again.outline, again.seed) == (scene.structures, scene.outline, scene.seed)
    assert again.marks != scene.marks and again.skin != scene.skin
    before, after = (render(one, 96, 128, parts=True) for one in (scene, again))
    np.testing.assert_array_equal(before.lesion_mask, after.lesion_mask)
    for name, mask in before.structure_masks.items():
        np.testing.assert_array_equal(mask, after.structure_masks[name])


def test_fresh_seeds_start_alike_and_are_above_those_of_every_data_set() -> None:
    assert fresh_seeds(3, 7) == fresh_seeds(5, 7)[:3] and not set(fresh_seeds(9, 7)) & set(fresh_seeds(9, 8))
    assert min(fresh_seeds(1)) >= 2**48


class RegionTower(ImageTower):
    """Looks at one region alone: its mean red is the picture's embedding, beside a constant."""

    width, embed_dim, family, supports = 2, 2, "convolutional", frozenset()

    def __init__(self, image_size: int, grid: tuple[int, int], region: torch.Tensor) -> None:
        self.image_size, self.grid, self.region = image_size, grid, region

    def features(self, pixels: torch.Tensor) -> Features:
        """Return the mean red of the region."""
        red = pixels[:, 0][:, self.region].mean(dim=1)
        return Features(torch.stack([red, torch.ones_like(red)], dim=1), pixels.new_zeros(len(pixels), 4, 2))

    def project(self, tokens: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def trace(self, *arguments, **options):  # type: ignore[no-untyped-def]
        raise NotImplementedError


def test_where_one_planted_part_alone_decides_it_has_the_whole_effect() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CutTextWarning)
        blind = Asker(example()[0])
    preprocess = blind.backbone.preprocess
    drawn = few_parts(preprocess)
    scene = render(drawn.scene, parts=True)
    geometry = preprocess.geometry(scene.image.shape[1], scene.image.shape[0])
    reaches = [
        geometry.locate(torch.from_numpy(reach(scene, part.name)), preprocess.image_size) for part in drawn.players
    ]
    chosen = max(range(3), key=lambda part: int(drawn.masks[part].sum()))
    others = torch.stack([one for part, one in enumerate(reaches) if part != chosen]).amax(dim=0)
    # A pixel beside another part mixes with it when the picture is scaled.
    beside = torch.nn.functional.max_pool2d(others[None, None], 5, 1, 2)[0, 0]
    region = drawn.masks[chosen] & (beside < 1e-6)
    assert region.any()
    tower = RegionTower(preprocess.image_size, (2, 2), region)
    blind.backbone = VisionBackbone(torch.nn.Linear(1, 1), tower, preprocess, "region")
    assert blind.texts is not None
    generator = torch.Generator().manual_seed(0)
    blind.texts.text_embeddings = torch.randn(len(blind.diagnoses), 2, generator=generator)
    found = causes_of(blind, drawn, [])
    effects = found.effects[:, 0]
    assert abs(effects[chosen]) > 1e-3
    np.testing.assert_allclose(effects[[part for part in range(3) if part != chosen]], 0, atol=1e-5)
    assert effects.sum() == pytest.approx(found.whole[0] - found.bare[0], abs=1e-6)
    measured = measure([found])
    scores = {method: measured.values[PLACE][number, 0] for number, method in enumerate(measured.methods)}
    assert scores[EFFECTS, BLIND] == 1 and scores[REVERSED, BLIND] == 0
