"""Measure scene by scene; what a run's directory holds already is not measured again."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clip_xai.config.protocol_settings import ProtocolConfig
from clip_xai.config.schemas import EvaluateConfig
from clip_xai.data.synthetic.parts import Scene, sample_scene
from clip_xai.explanations.causes.choosing import choices
from clip_xai.explanations.causes.followed import WordFollower
from clip_xai.explanations.causes.mechanisms import Given, given
from clip_xai.explanations.causes.one_scene import SceneCauses, causes_of
from clip_xai.explanations.causes.scene_targets import Asker
from clip_xai.explanations.causes.scenes import DrawnScene, fresh_seeds
from clip_xai.explanations.causes.several import several_pictures
from clip_xai.explanations.causes.skin_tones import scenes_on_every_skin, tone_rows
from clip_xai.explanations.causes.store import load_rows, load_scene, place_of, save_rows, save_scene
from clip_xai.explanations.ledger import LedgerSettings
from clip_xai.explanations.ledger_plan import SAMPLES
from clip_xai.explanations.measures.protocol import PictureMeasures
from clip_xai.explanations.questions import with_prompt
from clip_xai.models.backbones.base import VisionBackbone
from clip_xai.models.backbones.blueprint import random_twin
from clip_xai.progress import track
from clip_xai.runs.instantiate import decoding
from clip_xai.tasks.task import Opened
from clip_xai.text import counted
from clip_xai.xai.explainer import Explainer

log = logging.getLogger(__name__)
_ELSEWHERE = 2**18  # added to the number of a fresh scene
SEVERAL, TONES = "several", "tones"


@dataclass(frozen=True)
class Gathered:
    """All that was measured.

    Attributes:
        scenes: Fresh scenes, drawn again without their parts.
        choices: Words that compete on pictures of several lesions and on mosaics, a row each with method and weights.
        tones: Scenes on skin of six types, a row for each type and attribute, and for two types and each method.
        tones_left_out: Scenes whose lesion cannot be seen on every skin.
        mechanisms: What each method gave where causes are known in closed form.
    """

    scenes: list[SceneCauses]
    choices: list[dict[str, Any]]
    tones: list[dict[str, Any]]
    tones_left_out: int
    mechanisms: list[Given]

    @property
    def measured(self) -> list[dict[str, Any]]:
        """Values of every measured map of the scenes, a row each."""
        return [row for scene in self.scenes for row in scene.measured]

    @property
    def curves(self) -> list[dict[str, Any]]:
        """Insertion and deletion curves of the measured maps, a row for each point."""
        return [row for scene in self.scenes for row in scene.curves]


def asker_of(config: EvaluateConfig, model: Opened) -> Asker:
    """Return how scenes are put to the model."""
    return Asker(model.backbone, model.captioner, decoding(config.generation), config.protocol.samples, config.seed)


def prompted(model: Opened, drawn: DrawnScene, asker: Asker) -> AbstractContextManager[None]:
    """Return the block in which the captioner has the prompt that is retrieved for a scene, if it retrieves any."""
    return with_prompt(model.captioner, model.retrieval, drawn.pixels[None].to(asker.device), None)


def gather(config: EvaluateConfig, model: Opened, methods: Sequence[Explainer]) -> Gathered:
    """Measure fresh scenes, pictures of several lesions and known mechanisms, one by one.

    Args:
        config: All settings.
        model: The model.
        methods: What explains it.
    """
    asker = asker_of(config, model)
    torch.manual_seed(config.seed)
    twin = random_twin(model.backbone).to(asker.device) if config.protocol.twin else None
    scenes = _scenes(config, model, asker, methods, twin)
    competing = _choices(config, asker, methods, twin)
    on_every_skin = scenes_on_every_skin(config.protocol.tones, config.seed)
    tones = _tones(config, model, asker, methods, on_every_skin.scenes)
    return Gathered(scenes, competing, tones, on_every_skin.left_out, given(methods))


def _scenes(
    config: EvaluateConfig, model: Opened, asker: Asker, methods: Sequence[Explainer], twin: VisionBackbone | None
) -> list[SceneCauses]:
    found, protocol, follower, measured_now = [], config.protocol, None, False
    if protocol.ledger and model.captioner is not None and model.retrieval is None:
        follower = WordFollower.of(asker, LedgerSettings(protocol.ledger, SAMPLES, seed=config.seed))

    def elsewhere(count: int) -> list[Tensor]:
        """Scenes that no other part of a run draws."""
        apart = fresh_seeds(count + _ELSEWHERE, config.seed)[_ELSEWHERE:]
        return [DrawnScene.of(sample_scene(one), model.backbone.preprocess).pixels for one in apart]

    measures = PictureMeasures.of(protocol, methods, asker.backbone, elsewhere, config.seed)
    seeds = fresh_seeds(protocol.scenes, config.seed)
    if left := sum(not place_of(Path(config.run_dir), number).is_file() for number in range(len(seeds))):
        log.info(
            "protocol=%s: %s of %d to draw and explain by %s; how long that takes is said after the first",
            protocol.name, counted(left, "scene"), len(seeds), counted(len(methods), "method"),
        )  # fmt: skip
    for number, seed in enumerate(track(seeds, "Drawing scenes again")):
        place = place_of(Path(config.run_dir), number)
        known = load_scene(place)
        if known is None:
            started = time.perf_counter()
            drawn = DrawnScene.of(sample_scene(seed), model.backbone.preprocess)
            with prompted(model, drawn, asker):
                known = causes_of(asker, drawn, methods, twin, config.seed, follower, measures.at(number))
            save_scene(known, place)
            if not measured_now:
                log.info("%s", estimate(protocol, number, time.perf_counter() - started, sum(known.seconds.values())))
            measured_now = True
        found.append(known)
    return found


def estimate(protocol: ProtocolConfig, done: int, seconds: float, of_maps: float) -> str:
    """Say how long all that is left will take at most, from the first scene that was measured.

    Args:
        protocol: Says how much there is.
        done: Number of that scene: so many were there already.
        seconds: What it took.
        of_maps: What its maps of the trained model took: of pictures of several lesions, of mosaics and of scenes on
            six skins little else is made.
    """
    towers = 2 if protocol.twin else 1
    left = (protocol.scenes - done - 1) * seconds + (2 * protocol.several * towers + 2 * protocol.tones) * of_maps
    names = (
        f"{counted(protocol.scenes - done - 1, 'more scene')}, {counted(2 * protocol.several, 'picture')} of several "
        f"lesions and mosaics, {counted(protocol.tones, 'scene')} in six tones"
    )
    return f"protocol={protocol.name}: about {left / 60:.0f} minutes at most are left: {names}"


def _choices(
    config: EvaluateConfig, asker: Asker, methods: Sequence[Explainer], twin: VisionBackbone | None
) -> list[dict[str, Any]]:
    if not config.protocol.several:
        return []
    preprocess, grid = asker.backbone.preprocess, asker.backbone.grid
    pictures = several_pictures(config.protocol.several, preprocess, grid, config.seed)
    found = []
    for picture in track(pictures, "Several lesions and mosaics"):
        place = Path(config.run_dir) / SEVERAL / f"{picture.seed}.json"
        known = load_rows(place)
        if known is None:
            known = choices(asker, picture, methods, twin, config.seed)
            save_rows(known, place)
        found += known
    return found


def _tones(
    config: EvaluateConfig, model: Opened, asker: Asker, methods: Sequence[Explainer], scenes: Sequence[Scene]
) -> list[dict[str, Any]]:
    found = []
    for scene in track(scenes, "The same scenes on six Fitzpatrick types") if scenes else ():
        place = Path(config.run_dir) / TONES / f"{scene.seed}.json"
        known = load_rows(place)
        if known is None:
            with prompted(model, DrawnScene.of(scene, model.backbone.preprocess), asker):
                known = tone_rows(asker, scene, methods, config.seed)
            save_rows(known, place)
        found += known
    return found
