"""Measures of every map of a drawn scene: methods on the model and at random weights, and controls without a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from clip_xai.data.synthetic.parts import sample_scene
from clip_xai.explanations.causes.maps import CONSTANT, EFFECTS, NEGATED, controls, explained
from clip_xai.explanations.causes.one_scene import BLIND, RANDOM, TRAINED
from clip_xai.explanations.causes.scene_targets import STRUCTURE, Asker, SceneQuestion
from clip_xai.explanations.causes.scenes import DrawnScene, fresh_seeds
from clip_xai.explanations.measures.base import Measure, PhotographMaps
from clip_xai.models.backbones.base import VisionBackbone
from clip_xai.xai.explainer import Explainer
from clip_xai.xai.perturbation_bank import PerturbationBank
from clip_xai.xai.slots import DIAGNOSIS, slots_of
from clip_xai.xai.target import CaptionTarget, ContrastTarget, Target

Method = tuple[str, str]  # its name, and the weights that its maps were made with
OTHERS = 3  # random texts, or captions of other scenes, beside each thing asked
_ELSEWHERE = 2**19  # added to the number of a fresh scene: those whose captions are asked of others


@dataclass(frozen=True)
class MeasuredScene:
    """Values of the maps of one scene.

    Attributes:
        rows: One for each thing asked, measure, method and weights that has a value.
        left_out: Measures that are not defined, and why, a sentence each.
    """

    rows: list[dict[str, Any]]
    left_out: tuple[str, ...]


def measured_scene(
    asker: Asker,
    drawn: DrawnScene,
    methods: Sequence[Explainer],
    measures: Sequence[Measure],
    again: Sequence[Measure] = (),
    twin: VisionBackbone | None = None,
    steps: int = 24,
    seed: int = 0,
) -> MeasuredScene:
    """Measure all maps of one scene.

    Maps at random weights are held against the trained model, as all others are.

    Args:
        asker: The model.
        drawn: The scene.
        methods: What explains it.
        measures: What is measured of every map.
        again: What methods are asked again for, on the trained model alone: sanity, agreement, cost.
        twin: The tower at random weights; None to leave it out.
        steps: Points of curves, at most.
        seed: Seed of orders, sets and random maps.
    """
    question = SceneQuestion.of(asker, drawn)
    maps = _all_maps(question, methods, twin, seed)
    bank = PerturbationBank(asker.backbone, drawn.pixels[None].to(asker.device))
    by_name = {_key((method.name, TRAINED)): method for method in methods}
    rows: list[dict[str, Any]] = []
    left_out: list[str] = []
    for target, things in question.targets():
        streams: dict[object, Any] = {}
        others = _others(asker, target, seed) if again else []
        for row, number in things:
            mask = _region(question, number)
            asked = PhotographMaps(
                bank, target, row, maps[number], str(drawn.scene.seed), mask, by_name, others, seed, steps, streams
            )
            about = {
                "scene": drawn.scene.seed, "target": question.asked[number].name, "label": question.asked[number].label,
                "diagnosis": drawn.scene.diagnosis, "size": drawn.scene.size, "skin_type": drawn.scene.fitzpatrick,
            }  # fmt: skip
            for measure in (*measures, *again):
                reason = measure.refusal(asked)
                if reason is not None:
                    left_out.append(f"{measure.key} of the {about['target']} is not measured: {reason}.")
                    continue
                for key, value in measure.of(asked).items():
                    name, weights = _method(key)
                    rows.append(about | {"measure": measure.key, "method": name, "weights": weights, "value": value})
    return MeasuredScene(rows, tuple(dict.fromkeys(left_out)))


def _all_maps(
    question: SceneQuestion, methods: Sequence[Explainer], twin: VisionBackbone | None, seed: int
) -> list[dict[str, Tensor]]:
    """Every map of each thing asked."""
    found: list[dict[str, Tensor]] = [{} for _ in question.asked]
    sources: list[tuple[str, Mapping[str, Mapping[int, Tensor]]]] = [
        (TRAINED, explained(question, methods, question.asker.backbone).values)
    ]
    if twin is not None:
        sources.append((RANDOM, explained(question, methods, twin).values))
    # Effects of parts, of which some controls are made, are not asked here.
    nothing = torch.zeros(len(question.drawn.players), len(question.asked)).double().numpy()
    blind = controls(question, nothing, seed)
    sources.append((BLIND, {name: own for name, own in blind.items() if name not in (EFFECTS, NEGATED, CONSTANT)}))
    for weights, values in sources:
        for name, own in values.items():
            for number, heat in own.items():
                found[number][_key((name, weights))] = heat
    return found


def _region(question: SceneQuestion, number: int) -> Tensor:
    """Where heat ought to lie: on the structure that is named, else on the lesion."""
    asked = question.asked[number]
    if asked.name == STRUCTURE:
        names = [part.name for part in question.drawn.players]
        return question.drawn.masks[names.index(asked.label)]
    return question.drawn.lesion


def _others(asker: Asker, target: Target, seed: int) -> list[tuple[Target, int]]:
    """Other things to ask of the same picture: pairs of other diagnoses, or the captions of other scenes."""
    found: list[tuple[Target, int]] = []
    if isinstance(target, ContrastTarget) and asker.texts is not None:
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(asker.diagnoses), generator=generator).tolist()
        free = [number for number in order if asker.diagnoses[number] not in target.labels]
        for first, second in list(pairwise(free))[:OTHERS]:
            labels = [asker.diagnoses[first], asker.diagnoses[second]]
            embeddings = asker.texts.text_embeddings[[first, second]]
            found.append((ContrastTarget(embeddings, labels, target.kind, target.logit_scale), 0))
    elif isinstance(target, CaptionTarget) and asker.captioner is not None:
        for scene_seed in fresh_seeds(OTHERS + _ELSEWHERE, seed)[_ELSEWHERE:]:
            drawn = DrawnScene.of(sample_scene(scene_seed), asker.backbone.preprocess)
            _, read = asker.encoded([drawn.pixels])
            assert read is not None
            [caption] = asker.written(read)
            # A diagnosis is set beside that of another caption, or beside all of one that states none.
            stated = any(slot.kind == DIAGNOSIS for slot in slots_of(asker.captioner, caption.token_ids))
            if caption.text.strip():
                make = CaptionTarget.span if stated else CaptionTarget.whole
                found.append((make(asker.captioner, caption.token_ids), 0))
    return found


def _key(method: Method) -> str:
    return "\t".join(method)


def _method(key: str) -> Method:
    name, weights = key.split("\t")
    return name, weights
