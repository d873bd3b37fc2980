"""Explainers by their relevance gain on a model's validation photographs, where nobody judged them by true effects.

Scenes that are drawn again say whether a map is right. Where that was not measured for a model, what is left is
whether its score follows the heat: the symmetric relevance gain, beside the same method at random weights. It is kept
beside the checkpoint as ``explainer_gains.json``, for each kind of thing that was asked.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch

from clip_xai.errors import UserError
from clip_xai.explanations.causes.weights import RANDOM, TRAINED
from clip_xai.explanations.explainer_ranking import ExplainerRanking, MethodJudged, read_beside
from clip_xai.explanations.measures.cost import Seconds
from clip_xai.explanations.measures.faithfulness import RelevanceGain
from clip_xai.explanations.measures.photographs import PhotographAsker, all_maps
from clip_xai.explanations.measures.pictures import MapMeasures
from clip_xai.explanations.measures.summary import EVERY, summarised
from clip_xai.explanations.photographs import Photograph
from clip_xai.explanations.questions import with_prompt
from clip_xai.metrics.intervals import FEWEST
from clip_xai.models.backbones.blueprint import random_twin
from clip_xai.models.retrieval import Retrieval
from clip_xai.progress import track
from clip_xai.text import counted
from clip_xai.xai.explainer import Explainer
from clip_xai.xai.targets.base import CAPTION, needing

log = logging.getLogger(__name__)
FILE = "explainer_gains.json"
PHOTOGRAPHS = 32
#: Those of ``xai=judged``.
CANDIDATES = (
    *("gradcam", "layercam", "attention_rollout", "attention_gradient", "gradeclip", "legrad", "saliency"),
    *("input_x_gradient", "integrated_gradients", "occlusion"),
)
_MEASURE, _TIMED = RelevanceGain("mean"), 2
_MARKS = (0.1, 0.3, 0.7, 0.9)
_OF_TEXTS = ("contrast", "class", "logit", "similarity")


@dataclass(frozen=True)
class GainRanking(ExplainerRanking):
    """Explainers of a model by relevance gain on its validation photographs; ``scenes`` counts photographs."""

    file: ClassVar[str] = FILE
    measure: ClassVar[str] = "relevance gain"
    picture: ClassVar[str] = "validation photograph"
    fails: ClassVar[str] = "gains more than at random weights"

    @staticmethod
    def kinds_asked(targets: Collection[str]) -> list[str]:
        """Return what targets are about: the words of a caption, or a text, a contrast of texts, a class."""
        of_caption = needing(CAPTION)
        found = [CAPTION if name in of_caption else name if name in _OF_TEXTS else "similarity" for name in targets]
        return list(dict.fromkeys(found))

    def covers(self, targets: Collection[str]) -> bool:
        """Tell whether all that is asked was measured."""
        return set(self.kinds_asked(targets)) <= set(self.kinds)

    def beside(self, known: GainRanking | None) -> GainRanking:
        """Return it with the kinds that another one of the same model has and this one does not."""
        return self if known is None else replace(self, kinds={**known.kinds, **self.kinds})


def gains_beside(place: Path | None, model: Mapping[str, str]) -> GainRanking | None:
    """Return what was measured before of this very model, if it lies beside its checkpoint."""
    return read_beside(GainRanking, place, model)


def cost_in_words(methods: int, photographs: int) -> str:
    """Say what is measured, before it is."""
    return (
        f"the explainers of this model were not judged by true effects: {counted(methods, 'method')} and "
        f"{'itself' if methods == 1 else 'themselves'} at random weights are measured by their relevance gain on "
        f"{counted(photographs, 'validation photograph')} first"
    )


def measured_gains(
    asker: PhotographAsker,
    photographs: Sequence[Photograph],
    methods: Sequence[Explainer],
    model: Mapping[str, str],
    retrieval: Retrieval | None = None,
) -> GainRanking:
    """Measure explainers on photographs; each gain is held against the same method's at random weights.

    Args:
        asker: The model, and what is asked of it.
        photographs: Of the validation split; a captioner's of another patient than those that are explained.
        methods: The explainers.
        model: Fingerprints of the model.
        retrieval: Makes the captioner's prompts, where it retrieves any.

    Raises:
        UserError: There are too few photographs for an interval.
    """
    _require_enough(photographs)
    torch.manual_seed(asker.seed)
    device = next(asker.backbone.parameters()).device
    twin = random_twin(asker.backbone).to(device)
    by_name = {method.name: method for method in methods}
    rows: list[dict[str, Any]] = []
    left_out: dict[str, None] = {}
    measured: list[Photograph] = []
    for photograph in track(photographs, "Relevance gain of explainers"):
        try:
            pixels = asker.backbone.preprocess.read(photograph.path)[None].to(device)
            with with_prompt(asker.captioner, retrieval, pixels, photograph.group or None):
                picture = asker.asked(photograph)
                maps, why = all_maps(picture, methods, twin, asker.seed)
                own = {method: found for method, found in maps.items() if method[1] in (TRAINED, RANDOM)}
                again = [Seconds()] if len(measured) < _TIMED else []
                rows += MapMeasures([_MEASURE], again, by_name, _MARKS, asker.seed).of(picture, own).rows
        except UserError as error:
            left_out[str(error)] = None
            continue
        measured.append(photograph)
        left_out |= dict.fromkeys(why)
    for said in left_out:
        log.warning("%s", said)
    if len(measured) < len(photographs):
        log.warning("left out of the relevance gain: %d of %d", len(photographs) - len(measured), len(photographs))
        _require_enough(measured)
    for row in rows:
        row["target"] = row["target"] if row["target"] in _OF_TEXTS else CAPTION
    seconds = {
        name: [row["value"] for row in rows if (row["measure"], row["method"]) == (Seconds.name, name)]
        for name in by_name
    }
    kinds: dict[str, list[MethodJudged]] = {}
    for one in summarised(rows, [_MEASURE], asker.seed):
        name, weights = one.method
        if weights == TRAINED and one.target != EVERY:
            low, high = (None if bound != bound else bound for bound in (one.mean.low, one.mean.high))
            leads, taken = one.above_random is not None and one.above_random[1], seconds[name]
            judged = MethodJudged(name, by_name[name].settings, one.mean.value, low, high, leads,
                                  sum(taken) / len(taken) if taken else None)  # fmt: skip
            kinds.setdefault(one.target, []).append(judged)
    for found in kinds.values():
        found.sort(key=lambda one: -(one.value if one.low is None else one.low))
    return GainRanking(model, len(measured), kinds)


def _require_enough(photographs: Sequence[Photograph]) -> None:
    groups = {photograph.group or str(photograph.path) for photograph in photographs}
    if len(groups) < FEWEST:
        raise UserError(
            f"xai=best: {counted(len(groups), 'patient or lesion', 'patients or lesions')} in the validation split "
            f"are too few to choose by ({FEWEST} are needed): choose xai=NAME"
        )
