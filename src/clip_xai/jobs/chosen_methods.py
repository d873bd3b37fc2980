"""Which explainers ``explain`` asks: those that are named, and for ``xai=best`` those that can be believed."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from clip_xai.config.schemas import ExplainConfig
from clip_xai.explanations.explainer_ranking import JUDGE, ExplainerRanking, best_explainers, ranking_beside
from clip_xai.explanations.gain_ranking import CANDIDATES, PHOTOGRAPHS, cost_in_words, gains_beside, measured_gains
from clip_xai.explanations.measures.photographs import PhotographAsker
from clip_xai.explanations.photographs import Photograph
from clip_xai.runs.instantiate import decoding, device_of, explainers_of
from clip_xai.runs.judged import judged
from clip_xai.runs.records import evenly
from clip_xai.tasks.task import Opened
from clip_xai.xai.explainer import Explainer, explainers
from clip_xai.xai.targets.question import Question

log = logging.getLogger(__name__)
VALIDATION = "val"


def ranking_of(config: ExplainConfig, place: Path | None, model: Opened, question: Question) -> ExplainerRanking | None:
    """Return the ranking of the model's explainers: by true effects, else by relevance gain on validation photographs.

    Gains that lie beside the checkpoint are taken; for ``xai=best`` they are measured and kept there.

    Raises:
        UserError: They have to be measured and there are not enough photographs.
    """
    judged_before = ranking_beside(place, model.fingerprints)
    if judged_before is not None or place is None:
        return judged_before
    known = gains_beside(place, model.fingerprints)
    if not config.xai.best or (known is not None and known.covers(question.names)):
        return known
    on = judged(replace(config, ckpt=str(place), split=VALIDATION))
    photographs = [Photograph.of(record) for record in evenly(on.records, PHOTOGRAPHS)]
    methods = [explainers[name]() for name in CANDIDATES]
    log.info("xai=best: %s", cost_in_words(len(methods), len(photographs)))
    (model.captioner or model.backbone).to(device_of(config.trainer))
    asker = PhotographAsker(model.backbone, question, model.captioner, decoding(config.generation), config.seed)
    found = measured_gains(asker, photographs, methods, model.fingerprints, model.retrieval).beside(known)
    log.info("%s: xai=best chooses by it until %s was run", found.save(place), JUDGE)
    return found


def methods_of(config: ExplainConfig, ranking: ExplainerRanking | None, question: Question) -> list[Explainer]:
    """Return the explainers: those named, and for ``xai=best`` those to be believed for what is asked.

    Raises:
        UserError: None is asked for, or ``xai=best`` cannot choose.
    """
    if not config.xai.best:
        return explainers_of(config.xai)
    found = {method.name: method for method in best_explainers(ranking, question.names)}
    if any(settings is not None for name, settings in vars(config.xai).items() if name != "best"):
        found |= {method.name: method for method in explainers_of(config.xai)}
    return list(found.values())
