"""Heat maps of one scene and the controls beside them, and how much of each lies on each part."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clip_xai.explanations.blind_maps import NAMES, blind_maps
from clip_xai.explanations.causes.scene_targets import SceneQuestion
from clip_xai.explanations.map_evidence import heat_of
from clip_xai.metrics.localisation import lay_over
from clip_xai.models.backbones.base import VisionBackbone
from clip_xai.xai.explainer import Explainer, explain_apart
from clip_xai.xai.perturbation_bank import PerturbationBank
from clip_xai.xai.random_fields import LENGTHS, gaussian_fields
from clip_xai.xai.target import Target

CONTROL = "control: "
EFFECTS, NEGATED, CONSTANT = f"{CONTROL}true effects", f"{CONTROL}true effects negated", f"{CONTROL}constant"
FIELDS = tuple(f"{CONTROL}random field, length {length:g}" for length in LENGTHS)
BLIND = tuple(f"{CONTROL}{name}" for name in NAMES)
REVERSED = f"{CONTROL}true effects, large and small reversed"
CONTROLS = (EFFECTS, CONSTANT, *FIELDS, *BLIND, NEGATED, REVERSED)


@dataclass(frozen=True)
class Maps:
    """Maps of one scene.

    Attributes:
        values: Method -> map of each thing asked, by its number, ``[h, w]``.
        seconds: Method -> seconds that they took.
        left_out: Why a method has no map of something, a sentence each.
    """

    values: dict[str, dict[int, Tensor]]
    seconds: dict[str, float]
    left_out: tuple[str, ...]


def explained(question: SceneQuestion, methods: Sequence[Explainer], backbone: VisionBackbone) -> Maps:
    """Explain all that is asked about a scene, each method by itself, so that its seconds are its own.

    Methods that mask the picture share one stream of masked pictures among what they are asked.

    Args:
        question: What is asked.
        methods: The methods.
        backbone: The model's tower, or its twin at random weights; what stands behind the tower stays as trained.
    """
    values: dict[str, dict[int, Tensor]] = {}
    seconds: dict[str, float] = {}
    left_out: list[str] = []
    pixels = question.drawn.pixels[None].to(question.asker.device)
    targets = question.targets()
    for method in methods:
        bank, started = PerturbationBank(backbone, pixels), time.perf_counter()
        for target, rows in targets:
            heats, why = explained_target(method, backbone, target, bank)
            left_out += why
            for row, number in rows:
                if row < len(heats):
                    values.setdefault(method.name, {})[number] = heats[row]
        seconds[method.name] = time.perf_counter() - started
    return Maps(values, seconds, tuple(dict.fromkeys(left_out)))


def explained_target(
    method: Explainer, backbone: VisionBackbone, target: Target, bank: PerturbationBank
) -> tuple[list[Tensor], list[str]]:
    """Return the maps of one target's scores by one method, ``[h, w]`` each, or none and why.

    Args:
        method: The method.
        backbone: The tower.
        target: What is explained.
        bank: The picture, ``[1, 3, S, S]``; what was read of it masked is shared.
    """
    reason = method.refusal(backbone, target)
    if reason is not None:
        return [], [f"{method.name} {reason}."]
    _, found, failed = explain_apart([method], backbone, bank.pixels, target, bank)
    heats = [heat_of(one, row) for one in found for row in range(len(target.labels))]
    return [heat.nan_to_num() for heat in heats if heat is not None], failed


def controls(question: SceneQuestion, effects: NDArray[np.floating], seed: int = 0) -> dict[str, dict[int, Tensor]]:
    """Return maps that never saw the model, and those made of the effects that they are held against.

    Args:
        question: What is asked.
        effects: Each part's effect on each of T things asked, ``[n, T]``.
        seed: With the scene's, the seed of random maps.
    """
    grid, things = question.asker.backbone.grid, range(len(question.asked))
    own = (seed + question.drawn.scene.seed) % 2**31
    found: dict[str, dict[int, Tensor]] = {}
    truth = [effect_map(question.drawn.masks, effects[:, number]) for number in things]
    found[EFFECTS] = dict(enumerate(truth))
    found[CONSTANT] = {number: torch.ones(grid) for number in things}
    for name, length in zip(FIELDS, LENGTHS, strict=True):
        found[name] = dict(enumerate(gaussian_fields(len(question.asked), grid, length, own)))
    blind = blind_maps(question.drawn.pixels[None], question.asker.backbone.preprocess, grid)
    found |= {name: dict.fromkeys(things, one) for name, one in zip(BLIND, blind, strict=True)}
    found[NEGATED] = {number: -one for number, one in enumerate(truth)}
    sizes = np.abs(effects)
    reversed_sizes = 1.01 * sizes.max(axis=0, initial=0.0) - sizes
    found[REVERSED] = {number: effect_map(question.drawn.masks, reversed_sizes[:, number]) for number in things}
    return found


def effect_map(masks: Tensor, effects: NDArray[np.floating]) -> Tensor:
    """Return a map whose mass inside each part's mask is the part's effect, ``[S, S]``, also where masks overlap.

    The least such map, as a weighted sum of the masks ``sum_j a_j m_j`` with ``(M M^T) a = effects``.

    Args:
        masks: bool ``[n, S, S]``.
        effects: ``[n]``.
    """
    flat = masks.flatten(1).double()
    weights = torch.linalg.lstsq(flat @ flat.T, torch.from_numpy(np.asarray(effects))[:, None], driver="gelsd").solution
    return (weights * flat).sum(dim=0).view(masks.shape[1:])


def masses(maps: Mapping[int, Tensor], masks: Tensor, things: int) -> NDArray[np.float64]:
    """Return how much of each map lies on each part: ``[T, n, 2]``, signed and of the positive places alone.

    Maps are laid over the tower's square, bilinear between the centres of cells, and summed over its pixels.

    Args:
        maps: By the number of what they explain; NaN where there is none.
        masks: bool ``[n, S, S]``.
        things: T.
    """
    found = np.full((things, len(masks), 2), np.nan)
    if not maps or not len(masks):
        return found
    numbers = list(maps)
    size = int(masks.shape[-1])
    laid = torch.cat([lay_over(maps[number][None].float(), size).double() for number in numbers]).flatten(1)
    flat = masks.flatten(1).double()
    both = torch.stack([laid @ flat.T, laid.clamp(min=0) @ flat.T], dim=-1)
    found[numbers] = both.numpy()
    return found
