"""Captioners of which it is known what their words owe to the picture: trained on rendered scenes, for a study.

Captions state what a scene draws, its diagnosis, and the age and sex of a patient that are drawn by lot: nothing in the
picture tells them. In one language the diagnosis stands before the description, in the other behind it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import lightning
import numpy as np
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from clip_xai.data.lexicon import read_diagnosis
from clip_xai.data.synthetic.describe import describe, facets
from clip_xai.data.synthetic.parts import Scene, sample_scene
from clip_xai.data.synthetic.pool import rendering_pool
from clip_xai.data.synthetic.scene import render
from clip_xai.data.vocabulary import DEFAULT, FOLDER, Vocabulary, load_vocabulary
from clip_xai.explanations.causes.scenes import fresh_seeds
from clip_xai.explanations.other_patients import read_in_batches
from clip_xai.files import replacing, write_text
from clip_xai.models.backbones.source import BackboneSource
from clip_xai.models.captioner import Captioner
from clip_xai.models.weights import CaptionerSettings, build_captioner, save_captioner
from clip_xai.progress import track
from clip_xai.training.optimisation import Optimisation, is_decayed, scheduled
from clip_xai.xai.slots import DIAGNOSIS, STRUCTURES

AGE, SEX = "age", "sex"
# Unequal, so that their base rates cover those of what is drawn.
AGES = {"infant": 0.05, "teenage": 0.12, "young": 0.2, "middle-aged": 0.26, "elderly": 0.37}
SEXES = ("male", "female")
ORDERS = FIRST, LAST = "diagnosis first", "diagnosis last"
VOCABULARY = f"{DEFAULT}_and_patients.yaml"
_REFERENCES = 4
_SETTINGS = CaptionerSettings(BackboneSource("tiny", "tiny", "embedded:tiny"), "resampler", {"prefix_length": 32})


@dataclass(frozen=True)
class Recipe:
    """How the captioners are trained.

    Attributes:
        scenes: Scenes that they learn from.
        epochs: How often each is seen.
        batch_size: Scenes in a step.
        seed: Of scenes, patients and training.
        optimisation: Of mapper and language model together; the tower stays frozen.
    """

    scenes: int = 3000
    epochs: int = 4
    batch_size: int = 16
    seed: int = 0
    optimisation: Optimisation = field(default_factory=lambda: Optimisation(learning_rate=2e-3))


@dataclass(frozen=True)
class Pictures:
    """Scenes as the tower reads them.

    Attributes:
        scenes: The scenes.
        read: What the mapper reads of them, ``[N, S, W]``.
    """

    scenes: tuple[Scene, ...]
    read: Tensor

    def truth(self, row: int, kind: str) -> tuple[str, ...] | None:
        """Return what a scene draws of a kind; None for age and sex, which it does not draw."""
        found = facets(self.scenes[row]).get(kind)
        if found is None:
            return None
        return tuple(self.scenes[row].structures) if kind == STRUCTURES else (found,)

    def right(self, row: int, kind: str, value: str, vocabulary: Vocabulary) -> bool:
        """Tell whether a scene draws what a caption states."""
        there = self.truth(row, kind) or ()
        return any(value == one or (kind == DIAGNOSIS and vocabulary.agree(value, one)) for one in there)


def vocabulary_with_patients(folder: Path) -> Vocabulary:
    """Write the vocabulary of skin with age and sex of patients as a file of one's own, and read it."""
    content = yaml.safe_load((FOLDER / f"{DEFAULT}.yaml").read_text(encoding="utf-8"))
    content["attributes"][AGE] = {name: [f"{name} patient", name] for name in AGES}
    content["attributes"][SEX] = {name: [name] for name in SEXES}
    place = folder / VOCABULARY
    folder.mkdir(parents=True, exist_ok=True)
    write_text(place, yaml.safe_dump(content, allow_unicode=True, sort_keys=False))
    return load_vocabulary(str(place))


def patient(lot: np.random.Generator) -> str:
    """Draw the sentence about a patient."""
    age, sex = str(lot.choice(list(AGES), p=list(AGES.values()))), str(lot.choice(SEXES))
    return f"{age.capitalize()} {sex} patient."


def captions_of(scene: Scene, order: str) -> list[str]:
    """Return captions of a scene that state the same facts, without a patient.

    Args:
        scene: The scene.
        order: ``diagnosis first`` or ``diagnosis last``.
    """
    found = []
    for caption in describe(scene, _REFERENCES):
        body, _, clause = caption.removesuffix(".").rpartition(". ")
        parts = (f"{clause}.", f"{body}.") if order == FIRST else (f"{body}.", f"{clause}.")
        found.append(" ".join(parts))
    return found


def pictures(count: int, seed: int, captioner: Captioner, kept: Path) -> Pictures:
    """Draw scenes that no data set and no training of this package holds, and read them with the captioner's tower.

    Args:
        count: How many.
        seed: Another one gives other scenes.
        captioner: Any captioner on the tower.
        kept: A folder that keeps what was read, so that no scene is drawn twice.
    """
    seeds = fresh_seeds(count, seed)
    scenes, place = tuple(sample_scene(one) for one in seeds), kept / f"{count}_of_{seed}.safetensors"
    if place.is_file():
        return Pictures(scenes, load_file(place)["read"])
    workers = max(1, min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1, 8))
    with rendering_pool(workers) as pool:
        drawn = list(track(pool.map(_drawn, seeds, chunksize=16), "Scenes", count))
    pixels = [captioner.backbone.preprocess(Image.fromarray(image)) for image in drawn]
    read = read_in_batches(captioner, pixels, 64)
    kept.mkdir(parents=True, exist_ok=True)
    with replacing(place) as unfinished:
        save_file({"read": read}, unfinished)
    return Pictures(scenes, read)


def _drawn(seed: int) -> np.ndarray:
    return render(sample_scene(seed)).image


def untrained(vocabulary: Vocabulary) -> Captioner:
    """Return a captioner on the embedded tower that has learned nothing of these captions."""
    captioner = build_captioner(_SETTINGS).eval()
    captioner.provenance |= vocabulary.packed()
    return captioner


def trained(place: Path, order: str, seen: Pictures, recipe: Recipe, vocabulary: Vocabulary) -> Captioner:
    """Train mapper and language model on captions of one language.

    Args:
        place: Where the captioner is written to.
        order: ``diagnosis first`` or ``diagnosis last``.
        seen: The scenes that it learns from.
        recipe: How.
        vocabulary: What its captions are read with.
    """
    lightning.seed_everything(recipe.seed, verbose=False)
    captioner = untrained(vocabulary)
    told = recipe.optimisation
    learning = [captioner.mapper, captioner.language_model]
    named = [pair for part in learning for pair in part.named_parameters()]
    groups = [
        {"params": [one for name, one in named if is_decayed(name, one) is decayed],
         "weight_decay": told.weight_decay if decayed else 0.0}
        for decayed in (True, False)
    ]  # fmt: skip
    references = [captions_of(scene, order) for scene in seen.scenes]
    steps = recipe.epochs * (len(references) // recipe.batch_size)
    plan = scheduled(groups, told, steps)
    optimiser, schedule = plan["optimizer"], plan["lr_scheduler"]["scheduler"]
    lot = np.random.default_rng(recipe.seed)
    captioner.train()
    captioner.backbone.eval()
    for rows in track(_batches(len(references), recipe, lot), f"Training, {order}", steps):
        # A patient anew each time that a scene is seen: one that stays could be learned by heart, and then the picture
        # would decide age and sex after all.
        texts = [f"{patient(lot)} {references[row][lot.integers(_REFERENCES)]}" for row in rows]
        loss = captioner.loss(seen.read[rows], captioner.encode_captions(texts))
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([one for _, one in named], 1.0)
        optimiser.step()
        schedule.step()
    save_captioner(captioner.eval(), _SETTINGS, place)
    return captioner


def _batches(count: int, recipe: Recipe, lot: np.random.Generator) -> list[list[int]]:
    size = recipe.batch_size
    orders = [lot.permutation(count) for _ in range(recipe.epochs)]
    return [order[start : start + size].tolist() for order in orders for start in range(0, count - size + 1, size)]


def accuracy(captions: Sequence[str], tested: Pictures, vocabulary: Vocabulary) -> float:
    """Return the share of captions whose diagnosis is the scene's."""
    hits = [
        (said := read_diagnosis(text, vocabulary)) is not None and tested.right(row, DIAGNOSIS, said, vocabulary)
        for row, text in enumerate(captions)
    ]
    return float(np.mean(hits))
