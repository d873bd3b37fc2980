"""Measures of every map of a drawn scene: methods on the model and at random weights, and controls without a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from clip_xai.data.synthetic.parts import sample_scene
from clip_xai.explanations.causes.scene_targets import STRUCTURE, Asker, SceneQuestion
from clip_xai.explanations.causes.scenes import DrawnScene, fresh_seeds
from clip_xai.explanations.causes.weights import TRAINED
from clip_xai.explanations.measures.base import Measure, PhotographMaps
from clip_xai.xai.explainer import Explainer
from clip_xai.xai.perturbation_bank import PerturbationBank
from clip_xai.xai.slots import DIAGNOSIS, slots_of
from clip_xai.xai.target import CaptionTarget, ContrastTarget, Target

Method = tuple[str, str]  # its name, and the weights that its maps were made with
OTHERS = 2  # random texts, or captions of other scenes, beside each thing asked
_ELSEWHERE = 2**19  # added to the number of a fresh scene: those whose captions are asked of others


@dataclass(frozen=True)
class MeasuredScene:
    """Values of the maps of one scene.

    Attributes:
        rows: One for each thing asked, measure, method and weights that has a value.
        left_out: Measures that are not defined, and why, a sentence each.
    """

    rows: tuple[dict[str, Any], ...] = ()
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class SceneMeasures:
    """What is measured of the maps of a scene.

    Attributes:
        every: Measures of every map.
        again: What methods are asked again for, on the trained model alone: sanity, agreement, cost.
        explainers: The methods by name.
        marks: Shares at which curves are read; none for the protocols' own.
        seed: Seed of orders, sets and noise.
    """

    every: Sequence[Measure]
    again: Sequence[Measure]
    explainers: Mapping[str, Explainer]
    marks: tuple[float, ...] = ()
    seed: int = 0

    def of(self, question: SceneQuestion, maps: Mapping[Method, Mapping[int, Tensor]]) -> MeasuredScene:
        """Measure all maps of one scene. Maps at random weights are held against the trained model, as all others are.

        Args:
            question: What was asked about the scene.
            maps: By method and weights, the map of each thing asked by its number, ``[h, w]``.
        """
        asker, scene = question.asker, question.drawn.scene
        bank = PerturbationBank(asker.backbone, question.drawn.pixels[None].to(asker.device))
        explainers = {_key((name, TRAINED)): one for name, one in self.explainers.items()}
        rows: list[dict[str, Any]] = []
        left_out: list[str] = []
        for target, things in question.targets():
            streams: dict[object, Any] = {}
            others = _others(asker, target, self.seed) if self.again else []
            for row, number in things:
                own = {_key(method): found[number] for method, found in maps.items() if number in found}
                region = _region(question, number)
                asked = PhotographMaps(
                    bank, target, row, own, str(scene.seed), region, explainers, others, self.seed, self.marks, streams
                )
                about = {
                    "scene": scene.seed, "target": question.asked[number].name, "label": question.asked[number].label,
                    "diagnosis": scene.diagnosis, "size": scene.size, "skin_type": scene.fitzpatrick,
                }  # fmt: skip
                for measure in (*self.every, *self.again):
                    reason = measure.refusal(asked)
                    if reason is not None:
                        left_out.append(f"{measure.key} of the {about['target']} is not measured: {reason}.")
                        continue
                    for key, value in measure.of(asked).items():
                        name, weights = _method(key)
                        said = {"measure": measure.key, "method": name, "weights": weights, "value": value}
                        rows.append(about | said)
        return MeasuredScene(tuple(rows), tuple(dict.fromkeys(left_out)))


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
