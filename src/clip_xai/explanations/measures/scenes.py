"""A drawn scene as a picture whose maps are measured: what is asked, where heat ought to lie, what else to ask."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from clip_xai.data.synthetic.parts import sample_scene
from clip_xai.explanations.causes.scene_targets import STRUCTURE, Asker, SceneQuestion
from clip_xai.explanations.causes.scenes import DrawnScene, fresh_seeds
from clip_xai.explanations.measures.pictures import OTHERS, AskedPicture, AskedThing, Others
from clip_xai.xai.perturbation_bank import PerturbationBank
from clip_xai.xai.slots import DIAGNOSIS, slots_of
from clip_xai.xai.target import CaptionTarget, ContrastTarget, Target

_ELSEWHERE = 2**19  # added to the number of a fresh scene: those whose captions are asked of others


def asked_scene(question: SceneQuestion, seed: int = 0) -> AskedPicture:
    """Return a scene and what is asked about it.

    Args:
        question: Both.
        seed: Of the other texts and scenes.
    """
    asker, scene = question.asker, question.drawn.scene
    about = {"picture": str(scene.seed), "diagnosis": scene.diagnosis, "size": scene.size}
    about["tone"] = str(scene.fitzpatrick)
    return AskedPicture(
        bank=PerturbationBank(asker.backbone, question.drawn.pixels[None].to(asker.device)),
        group=str(scene.seed),
        about=about,
        targets=question.targets(),
        things=[
            AskedThing(one.name, one.label, _region(question, number)) for number, one in enumerate(question.asked)
        ],
        others=lambda target: _others(asker, target, seed),
    )


def _region(question: SceneQuestion, number: int) -> Tensor:
    """Where heat ought to lie: on the structure that is named, else on the lesion."""
    asked = question.asked[number]
    if asked.name == STRUCTURE:
        names = [part.name for part in question.drawn.players]
        return question.drawn.masks[names.index(asked.label)]
    return question.drawn.lesion


def _others(asker: Asker, target: Target, seed: int) -> Others:
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
