"""Captioners that learned a shortcut: the judged captioner, trained further on scenes in which an artefact cheats.

Tower and starting weights are the judged captioner's own; the mapper and the language model learn on. Half of the texts
are whole captions, half the conclusion alone, which is what is explained: nothing stands before the diagnosis there, so
that all that moves it comes from the picture.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.optim import AdamW

from clip_xai.data.preprocess import Preprocess
from clip_xai.data.synthetic.composition import Scene
from clip_xai.data.synthetic.describe import describe
from clip_xai.data.synthetic.planted import Picture, planted_in, shortcut_scenes, with_artefact, without_artefact
from clip_xai.explanations.causes.scene_targets import Asker
from clip_xai.models.captioner import Captioner
from clip_xai.progress import track
from clip_xai.training.optimisation import learning_rate_factor

CONCLUSION = "This is most likely {}."
TRAINING_SEEDS = 2**60  # seeds above all that are judged
EPOCHS, BATCH, RATE, DECAY = 12, 32, 1e-3, 0.01


@dataclass(frozen=True)
class CheatingData:
    """Scenes to train with, read by the tower once without the artefact and once with it.

    Attributes:
        artefact: Its name.
        scenes: N scenes.
        reads: What the mapper reads without and with the artefact, ``[2, N, ...]``.
    """

    artefact: str
    scenes: list[Scene]
    reads: Tensor

    @classmethod
    def drawn(cls, asker: Asker, artefact: str, count: int, seed: int) -> CheatingData:
        """Draw so many training scenes in both ways.

        Args:
            asker: The model whose tower reads them.
            artefact: The artefact.
            count: N.
            seed: Seed of the scenes.
        """
        scenes = shortcut_scenes([TRAINING_SEEDS + seed * 2**20 + number for number in range(count)])
        reads = []
        for draw in (without_artefact, with_artefact):
            pictures = [
                pixels_of(draw(scene, artefact), asker.backbone.preprocess)
                for scene in track(scenes, f"Scenes to learn from, {artefact}")
            ]
            read = asker.encoded(pictures)[1]
            assert read is not None
            reads.append(read.cpu())
        return cls(artefact, scenes, torch.stack(reads))


def pixels_of(picture: Picture, preprocess: Preprocess) -> Tensor:
    """Return a picture as a tower reads it, ``[3, S, S]``."""
    return preprocess(Image.fromarray(picture.image))


def cheating_captioner(
    captioner: Captioner, data: CheatingData, p: float, seed: int = 0, epochs: int = EPOCHS
) -> Captioner:
    """Train a copy of a captioner on scenes in which the artefact goes with a diagnosis at strength p.

    Args:
        captioner: What it starts from; left as it is.
        data: The scenes.
        p: 0 to 1.
        seed: Seed of the order, the wording and dropout.
        epochs: Passes over the scenes.
    """
    device = next(captioner.parameters()).device
    learner = copy.deepcopy(captioner)
    has = torch.tensor(planted_in(data.scenes, data.artefact, p), dtype=torch.long)
    reads = data.reads[has, torch.arange(len(has))]
    learned = [*learner.mapper.parameters(), *learner.language_model.parameters()]
    for parameter in learned:
        parameter.requires_grad_(True)
    generator = np.random.default_rng([seed, round(1000 * p)])
    steps = epochs * -(-len(has) // BATCH)
    optimiser = AdamW(learned, lr=RATE, weight_decay=DECAY)
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
        torch.manual_seed(seed)
        learner.mapper.train()
        learner.language_model.train()
        for step, rows in enumerate(_batches(len(has), epochs, generator)):
            for group in optimiser.param_groups:
                group["lr"] = RATE * learning_rate_factor(step, max(1, steps // 20), steps)
            tokens = learner.encode_captions([_text(data.scenes[row], generator) for row in rows])
            optimiser.zero_grad()
            learner.loss(reads[rows].to(device), tokens[:, : learner.room()]).backward()
            torch.nn.utils.clip_grad_norm_(learned, 1.0)
            optimiser.step()
    return learner.eval().requires_grad_(False)


def _batches(count: int, epochs: int, generator: np.random.Generator) -> list[list[int]]:
    found: list[list[int]] = []
    for _ in range(epochs):
        order = generator.permutation(count).tolist()
        found += [order[start : start + BATCH] for start in range(0, count, BATCH)]
    return found


def _text(scene: Scene, generator: np.random.Generator) -> str:
    if generator.random() < 0.5:
        return CONCLUSION.format(scene.diagnosis)
    return describe(scene, 3)[int(generator.integers(3))]
