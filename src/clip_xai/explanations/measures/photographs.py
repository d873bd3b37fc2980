"""A photograph of any model that ``explain.py`` opens as a picture whose maps are measured, and those maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from clip_xai.data.images import number_of, read_image
from clip_xai.errors import UserError
from clip_xai.explanations.blind_maps import NAMES, blind_maps
from clip_xai.explanations.causes.maps import CONTROL, FIELDS
from clip_xai.explanations.causes.weights import BLIND, RANDOM, TRAINED
from clip_xai.explanations.map_evidence import heat_of
from clip_xai.explanations.measures.pictures import OTHERS, AskedPicture, AskedThing, Method, Others
from clip_xai.explanations.photographs import Photograph
from clip_xai.explanations.questions import TargetSpecification, ask, in_brief
from clip_xai.models.backbones.base import VisionBackbone
from clip_xai.models.backbones.classifier import VisionClassifier
from clip_xai.models.backbones.clip import CLIPBackbone
from clip_xai.models.captioner import Captioner
from clip_xai.models.settings import REPORTED, Decoding
from clip_xai.report.explained import LOG_PROBABILITY, MARGIN_SUFFIX
from clip_xai.xai.explainer import Explainer, explain_apart
from clip_xai.xai.perturbation_bank import PerturbationBank
from clip_xai.xai.random_fields import LENGTHS, gaussian_fields
from clip_xai.xai.target import CaptionTarget, ClassifierTarget, SimilarityTarget, Target
from clip_xai.xai.targets.question import Question


@dataclass
class PhotographAsker:
    """A model, what is asked of it, and how photographs are put to it.

    Attributes:
        backbone: The tower.
        question: What is asked.
        captioner: The captioner, where there is one.
        decoding: How captions are written; None for how they are evaluated.
        seed: Seed of random maps and other texts.
        captions: Captions of earlier photographs, which are asked of later ones; by group.
    """

    backbone: VisionBackbone
    question: Question
    captioner: Captioner | None = None
    decoding: Decoding | None = None
    seed: int = 0
    captions: dict[str, list[int]] = field(default_factory=dict)

    def asked(self, photograph: Photograph) -> AskedPicture:
        """Return a photograph and what is asked about it; single words of a caption beside its whole are not.

        Raises:
            UserError: It cannot be read, or nothing can be asked.
        """
        picture = read_image(photograph.path)
        geometry = self.backbone.preprocess.geometry(picture.width, picture.height)
        device = next(self.backbone.parameters()).device
        pixels = self.backbone.preprocess.read(photograph.path)[None].to(device)
        caption = None
        if self.captioner is not None:
            with torch.no_grad():
                caption = self.captioner.generate(self.captioner.read(pixels), self.decoding or REPORTED)[0]
            if not caption.text.strip():
                raise UserError(f"{photograph.name}: its caption is empty, so that nothing is asked about it")
        question = in_brief(self.question) or self.question
        region = photograph.outline(picture.height, picture.width)
        known = None
        if region is not None:
            size = self.backbone.preprocess.image_size
            known = geometry.locate(torch.from_numpy(region), size) >= 0.5
        things: list[AskedThing] = []
        targets: list[tuple[Target, list[tuple[int, int]]]] = []
        for asked in ask(question, self.backbone, self.captioner, caption, pixels).values():
            rows = []
            for row, what in _kinds(asked).items():
                rows.append((row, len(things)))
                things.append(AskedThing(what, asked.target.labels[row], known))
            targets.append((asked.target, rows))
        others = [ids for group, ids in self.captions.items() if group != photograph.group][-OTHERS:]
        if caption is not None:
            self.captions[photograph.group] = list(caption.token_ids)
        about: dict[str, Any] = {"picture": str(photograph.path)}
        about |= {name: photograph.facts.get(name, "") for name in ("source", "diagnosis")}
        share = float("nan") if known is None else float(known.float().mean())
        return AskedPicture(
            PerturbationBank(self.backbone, pixels), photograph.group or str(photograph.path),
            about | {"region_share": share}, targets, things, lambda target: self._others(target, others),
        )  # fmt: skip

    def _others(self, target: Target, captions: Sequence[Sequence[int]]) -> Others:
        """Other texts, classes or captions beside a target."""
        if isinstance(target, CaptionTarget) and self.captioner is not None:
            return [(CaptionTarget.whole(self.captioner, ids), 0) for ids in captions]
        if isinstance(target, ClassifierTarget) and isinstance(self.backbone, VisionClassifier):
            free = [number for number in range(len(self.backbone.classes)) if number not in target.classes]
            chosen = [free[place] for place in _drawn(len(free), self.seed)]
            return [(ClassifierTarget.of(self.backbone, [number], target.kind), 0) for number in chosen]
        if isinstance(target, SimilarityTarget) and isinstance(self.backbone, CLIPBackbone):
            words = self.question.vocabulary
            texts = [words.comparison.replace("{}", name) for name in words.diagnoses]
            free_texts = [text for text in texts if text not in (target.texts or target.labels)]
            chosen_texts = [free_texts[place] for place in _drawn(len(free_texts), self.seed)]
            return [(SimilarityTarget.from_texts(self.backbone, [text]), 0) for text in chosen_texts]
        return []


def _kinds(asked: TargetSpecification) -> dict[int, str]:
    """What kind of thing each score is about; single words of a caption beside its whole are not there."""
    labels, name = asked.target.labels, asked.target.name
    if asked.score_name == LOG_PROBABILITY:
        wholes = {row: labels[row] for row, span in enumerate(asked.spans) if span is None} or dict(enumerate(labels))
        return {row: "diagnosis" if label.startswith("diagnosis: ") else label for row, label in wholes.items()}
    what = "contrast" if asked.score_name.endswith(MARGIN_SUFFIX) else "similarity"
    return dict.fromkeys(range(len(labels)), name if name in ("class", "logit") else what)


def _drawn(count: int, seed: int) -> list[int]:
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()[:OTHERS]


def all_maps(
    asked: AskedPicture, methods: Sequence[Explainer], twin: VisionBackbone | None = None, seed: int = 0
) -> tuple[dict[Method, dict[int, Tensor]], list[str]]:
    """Return the maps of everything asked, of the model, at random weights and without any model.

    Args:
        asked: The picture.
        methods: What explains it.
        twin: The tower at random weights; None to leave it out. What stands behind the tower stays as trained.
        seed: Seed of random maps.

    Returns:
        By method and weights, the map of each thing asked by its number; and why methods were left out.
    """
    found: dict[Method, dict[int, Tensor]] = {}
    left_out: list[str] = []
    pixels, own = asked.bank.pixels, asked.bank.backbone
    towers: list[tuple[str, VisionBackbone]] = [(TRAINED, own), *([] if twin is None else [(RANDOM, twin)])]
    for weights, tower in towers:
        bank = asked.bank if tower is own else PerturbationBank(tower, pixels)
        for target, rows in asked.targets:
            able = [method for method in methods if method.refusal(tower, target) is None]
            left_out += [f"{one.name} {one.refusal(tower, target)}." for one in methods if one not in able]
            able, answers, failed = explain_apart(able, tower, pixels, target, bank) if able else ([], [], [])
            left_out += failed
            for method, attribution in zip(able, answers, strict=True):
                for row, number in rows:
                    heat = heat_of(attribution, row)
                    if heat is not None:
                        found.setdefault((method.name, weights), {})[number] = heat.nan_to_num()
    for name, maps in controls(asked, seed).items():
        found[name, BLIND] = dict(enumerate(maps))
    return found, list(dict.fromkeys(left_out))


def controls(asked: AskedPicture, seed: int = 0) -> Mapping[str, list[Tensor]]:
    """Return maps that never saw the model, one for each thing asked: random fields, centre, contrast, edges."""
    backbone, things = asked.bank.backbone, len(asked.things)
    number = (seed + number_of(asked.about["picture"])) % 2**31
    found = {
        name: list(gaussian_fields(things, backbone.grid, length, number))
        for name, length in zip(FIELDS, LENGTHS, strict=True)
    }
    blind = blind_maps(asked.bank.pixels, backbone.preprocess, backbone.grid)
    return found | {f"{CONTROL}{name}": [one] * things for name, one in zip(NAMES, blind, strict=True)}
