"""Captioners that learned a shortcut: a captioner that is trained further on scenes in which an artefact cheats.

The tower stays as it is, and all strengths start from the same weights, see the same scenes in the same order and learn
from the same texts: which of the scenes show the artefact is all that differs. A tenth of the batches are whole
captions, the others the conclusion alone, which is what is explained: nothing stands before the diagnosis there, so
that all that moves it comes from the picture.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.optim import AdamW

from clip_xai.data.preprocess import Preprocess
from clip_xai.data.synthetic.describe import describe
from clip_xai.data.synthetic.planted import (
    Picture,
    ShortcutScene,
    planted_in,
    shortcut_scene,
    with_artefact,
    without_artefact,
)
from clip_xai.data.synthetic.pool import rendering_pool
from clip_xai.explanations.causes.scene_targets import Asker
from clip_xai.models.captioner import Captioner
from clip_xai.progress import track
from clip_xai.training.optimisation import learning_rate_factor

CONCLUSION = "This is most likely {}."
UNCLEAR = 0.5  # share of scenes whose lesion does not tell which diagnosis it is
TRAINING_SEEDS = 2**60  # seeds above all that are judged
PER_SEED, _TRIES, _STEP = 2**20, 32, 2**14
_FEW = 64  # scenes that are drawn in this process
_WORDINGS, _CONCLUSIONS = 3, 0.9


@dataclass(frozen=True)
class Recipe:
    """How a captioner learns.

    Attributes:
        epochs: Passes over the scenes.
        rate: Largest learning rate.
        batch_size: Scenes in a step.
        decay: Weight decay.
    """

    epochs: int = 30
    rate: float = 3e-3
    batch_size: int = 32
    decay: float = 0.01


@dataclass(frozen=True)
class CheatingData:
    """Scenes to train with, read by the tower once without the artefact and once with it.

    Attributes:
        artefact: Its name.
        scenes: N scenes.
        reads: What the mapper reads without and with the artefact, ``[2, N, ...]``.
        passed_over: Scenes that were drawn and not taken, because the tower's square does not show the artefact.
    """

    artefact: str
    scenes: list[ShortcutScene] = field(repr=False)
    reads: Tensor = field(repr=False)
    passed_over: int = 0

    @classmethod
    def drawn(cls, asker: Asker, artefact: str, count: int, seed: int, unclear: float = UNCLEAR) -> CheatingData:
        """Draw so many training scenes in both ways.

        Args:
            asker: The model whose tower reads them.
            artefact: The artefact.
            count: N.
            seed: Seed of the scenes.
            unclear: Share of scenes whose lesion does not tell which diagnosis it is.
        """
        scenes, reads, passed_over = [], [], 0
        first = TRAINING_SEEDS + seed * PER_SEED
        for found in visible_scenes(first, count, artefact, asker.backbone.preprocess, unclear):
            read = asker.encoded([pixels_of(one, asker.backbone.preprocess) for one in found.pictures])[1]
            assert read is not None
            scenes.append(found.scene)
            reads.append(read.cpu())
            passed_over += found.passed_over
        return cls(artefact, scenes, torch.stack(reads, dim=1), passed_over)


@dataclass(frozen=True)
class VisibleScene:
    """A scene whose artefact the tower's square shows.

    Attributes:
        scene: The scene.
        pictures: Drawn without the artefact and with it.
        passed_over: Scenes before it that were not taken, because the square does not show theirs.
    """

    scene: ShortcutScene
    pictures: tuple[Picture, Picture]
    passed_over: int


def visible_scenes(
    first: int, count: int, artefact: str, preprocess: Preprocess, unclear: float = UNCLEAR
) -> Iterator[VisibleScene]:
    """Draw scenes of which every fourth shows the diagnosis of the shortcut, and whose artefact can be seen.

    Args:
        first: Seed of the first scene.
        count: How many, at most 2^14.
        artefact: The artefact.
        preprocess: The tower's.
        unclear: Share of scenes whose lesion does not tell which diagnosis it is.
    """
    numbers, draw = range(count), partial(_visible, first, artefact=artefact, preprocess=preprocess, unclear=unclear)
    if count < _FEW:
        yield from map(draw, numbers)
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    with rendering_pool(max(1, min(cores, 8))) as pool:
        yield from track(pool.map(draw, numbers, chunksize=8), f"Scenes with and without {artefact}", count)


def _visible(first: int, number: int, artefact: str, preprocess: Preprocess, unclear: float) -> VisibleScene:
    for attempt in range(_TRIES):
        # Seeds of other attempts lie behind those of all numbers, and before those of another seed.
        scene = shortcut_scene(first + number + attempt * _STEP, number, unclear)
        dirty = with_artefact(scene.scene, artefact)
        if bool(located(dirty, preprocess).any()):
            return VisibleScene(scene, (without_artefact(scene.scene, artefact), dirty), attempt)
    raise ValueError(f"in {_TRIES} scenes the tower's square never shows {artefact}")


def located(picture: Picture, preprocess: Preprocess) -> Tensor:
    """Return where the tower's square shows the artefact, bool ``[S, S]``."""
    geometry = preprocess.geometry(picture.mask.shape[1], picture.mask.shape[0])
    return geometry.locate(torch.from_numpy(picture.mask), preprocess.image_size) >= 0.5


def pixels_of(picture: Picture, preprocess: Preprocess) -> Tensor:
    """Return a picture as a tower reads it, ``[3, S, S]``."""
    return preprocess(Image.fromarray(picture.image))


def innocent_captioner(captioner: Captioner, data: CheatingData, recipe: Recipe, seed: int = 0) -> Captioner:
    """Train a copy of a captioner on scenes none of which shows the artefact."""
    return _trained(captioner, data, [False] * len(data.scenes), recipe, [seed, 2], "Without the artefact")


def cheating_captioner(
    captioner: Captioner, data: CheatingData, p: float, recipe: Recipe | None = None, seed: int = 0, lot: int = 0
) -> Captioner:
    """Train a copy of a captioner on scenes in which the artefact goes with a diagnosis at strength p.

    Args:
        captioner: What it starts from; left as it is, and its tower is shared.
        data: The scenes.
        p: 0 to 1.
        recipe: How it learns.
        seed: Seed of the order, the wording and dropout, the same for every strength.
        lot: Another one draws anew which scenes have the artefact, and the order: a second captioner of the same kind.
    """
    has = planted_in(data.scenes, data.artefact, p, lot)
    return _trained(captioner, data, has, recipe or Recipe(), [seed, lot], f"{data.artefact.capitalize()}, p = {p:g}")


def learned_parts(captioner: Captioner) -> list[torch.nn.Module]:
    """Return what learns: all but the tower."""
    return [captioner.mapper, captioner.language_model]


def _trained(
    captioner: Captioner, data: CheatingData, has: list[bool], recipe: Recipe, seeds: list[int], said: str
) -> Captioner:
    device = next(captioner.parameters()).device
    learner = copy.deepcopy(captioner, {id(captioner.backbone): captioner.backbone})
    count = len(has)
    reads = data.reads[torch.tensor(has, dtype=torch.long), torch.arange(count)]
    learned = [parameter for part in learned_parts(learner) for parameter in part.parameters()]
    generator = np.random.default_rng(seeds)
    steps = recipe.epochs * -(-count // recipe.batch_size)
    optimiser = AdamW(learned, lr=recipe.rate, weight_decay=recipe.decay)
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
        torch.manual_seed(int(generator.integers(2**31)))
        for part in learned_parts(learner):
            part.requires_grad_(True).train()
        for step, rows in enumerate(track(_batches(count, recipe, generator), said, steps)):
            for group in optimiser.param_groups:
                group["lr"] = recipe.rate * learning_rate_factor(step, max(1, steps // 20), steps)
            tokens = learner.encode_captions(_texts([data.scenes[row] for row in rows], generator))
            optimiser.zero_grad()
            learner.loss(reads[rows].to(device), tokens[:, : learner.room()]).backward()
            torch.nn.utils.clip_grad_norm_(learned, 1.0)
            optimiser.step()
    for part in learned_parts(learner):
        part.requires_grad_(False).eval()
    return learner


def _batches(count: int, recipe: Recipe, generator: np.random.Generator) -> list[list[int]]:
    found: list[list[int]] = []
    for _ in range(recipe.epochs):
        order = generator.permutation(count).tolist()
        found += [order[start : start + recipe.batch_size] for start in range(0, count, recipe.batch_size)]
    return found


def _texts(scenes: list[ShortcutScene], generator: np.random.Generator) -> list[str]:
    if generator.random() < _CONCLUSIONS:
        return [CONCLUSION.format(scene.diagnosis) for scene in scenes]
    return [describe(scene.stated, _WORDINGS)[int(generator.integers(_WORDINGS))] for scene in scenes]
