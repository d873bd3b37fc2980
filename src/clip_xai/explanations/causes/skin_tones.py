"""Skin tone as an intervention: the very same scene on skin of Fitzpatrick types I to VI, every other field fixed.

What is said of the lesion ought to stay: every change is one that skin tone alone made. On photographs no study can say
so, because people of different skin have different lesions in different light.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from clip_xai.data.lexicon import read_attribute, read_diagnosis, read_structures
from clip_xai.data.synthetic.describe import facets
from clip_xai.data.synthetic.parts import Scene, on_skin, sample_scene, skin_types
from clip_xai.data.synthetic.profiles import SKIN_TONES, TONE
from clip_xai.data.vocabulary import Vocabulary
from clip_xai.explanations.causes.maps import explained_target
from clip_xai.explanations.causes.scene_targets import Asker, SceneQuestion
from clip_xai.explanations.causes.scenes import DrawnScene, fresh_seeds
from clip_xai.metrics.localisation import localisation_rows
from clip_xai.models.captioner import Caption
from clip_xai.xai.explainer import Explainer
from clip_xai.xai.perturbation_bank import PerturbationBank
from clip_xai.xai.relevance_gain import relevance_gains
from clip_xai.xai.target import CaptionTarget, Target

TYPES = tuple(SKIN_TONES)
LIGHTEST, DARKEST = TYPES[0], TYPES[-1]
#: What is said of a lesion and ought to stay. Its colour is reported beside them: it looks another way on other skin.
STAYING = ("diagnosis", "structures", "position", "size", "border", "shape", "view")
REPORTED = ("colour", TONE)


@dataclass(frozen=True)
class Tones:
    """Fresh scenes whose lesion can be seen on skin of every type.

    Attributes:
        scenes: So many.
        left_out: How many were drawn whose colour does not stand out on every skin.
    """

    scenes: list[Scene]
    left_out: int


def scenes_on_every_skin(count: int, seed: int = 0) -> Tones:
    """Return the first fresh scenes whose lesion can be seen on every skin."""
    found: list[Scene] = []
    tried = 0
    for one in fresh_seeds(20 * count + 20, seed):
        if len(found) == count:
            break
        scene, tried = sample_scene(one), tried + 1
        if skin_types(scene) == TYPES:
            found.append(scene)
    return Tones(found, tried - len(found))


def stated(text: str, vocabulary: Vocabulary) -> dict[str, str]:
    """Return what a caption says, by attribute; an empty text where it says nothing of it."""
    found = {name: read_attribute(text, name, vocabulary) or "" for name in (*STAYING[2:], *REPORTED)}
    found["diagnosis"] = read_diagnosis(text, vocabulary) or ""
    return found | {"structures": ", ".join(sorted(read_structures(text, vocabulary)))}


def tone_rows(asker: Asker, scene: Scene, methods: Sequence[Explainer], seed: int = 0) -> list[dict[str, Any]]:
    """Measure one scene on skin of every type.

    Args:
        asker: The model.
        scene: One that can be seen on all of them.
        methods: What explains the whole caption, or of a CLIP by itself the contrast, on the lightest and the darkest.
        seed: Seed of the order of equal places.

    Returns:
        A row for each type and attribute (``said``, ``right``, of captions), and for each of the two types and method
        (``auprc`` on the lesion, ``gain``).
    """
    rows: list[dict[str, Any]] = []
    for fitzpatrick in TYPES:
        drawn = DrawnScene.of(on_skin(scene, fitzpatrick), asker.backbone.preprocess)
        pooled, read = asker.encoded([drawn.pixels])
        known: dict[str, Any] = {"scene": scene.seed, "type": fitzpatrick}
        caption: Caption | None = None
        if read is not None:
            [caption] = asker.written(read)
            truth = facets(drawn.scene)
            truth["structures"] = "" if truth["structures"] == "none" else ", ".join(sorted(drawn.scene.structures))
            for name, value in stated(caption.text, asker.vocabulary).items():
                right = value == truth[name]
                rows.append(known | {"attribute": name, "said": value, "right": right})
        elif asker.texts is not None:
            nearest = asker.diagnoses[int(asker.texts.score(pooled)[0].argmax())]
            right = asker.vocabulary.agree(nearest, scene.diagnosis)
            rows.append(known | {"attribute": "diagnosis", "said": nearest, "right": right})
        if fitzpatrick in (LIGHTEST, DARKEST):
            rows += [known | row for row in _map_rows(asker, drawn, caption, methods, seed)]
    return rows


def _map_rows(
    asker: Asker, drawn: DrawnScene, caption: Caption | None, methods: Sequence[Explainer], seed: int
) -> list[dict[str, Any]]:
    target = _target(asker, drawn, caption)
    if target is None:
        return []
    bank = PerturbationBank(asker.backbone, drawn.pixels[None].to(asker.device))
    maps: dict[str, Tensor] = {}
    for method in methods:
        heats = explained_target(method, asker.backbone, target, bank)[0]
        if heats:
            maps[method.name] = heats[0]
    if not maps:
        return []
    stacked = torch.stack(list(maps.values()))
    found = localisation_rows(stacked, drawn.lesion[None].expand(len(maps), -1, -1))["auprc"]
    gains = relevance_gains(bank, target, stacked, seed=seed)[:, 0]
    rows = zip(maps, found.tolist(), gains.tolist(), strict=True)
    return [{"method": name, "auprc": auprc, "gain": gain} for name, auprc, gain in rows]


def _target(asker: Asker, drawn: DrawnScene, caption: Caption | None) -> Target | None:
    """The whole caption where there is one, else the contrast of the scene's diagnosis."""
    if asker.captioner is not None:
        if caption is None or not caption.text.strip():
            return None
        return CaptionTarget.whole(asker.captioner, caption.token_ids)
    return SceneQuestion.of(asker, drawn).contrast
