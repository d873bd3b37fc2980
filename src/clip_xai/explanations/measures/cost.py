"""What maps cost, and whether those in units of the score add up to what they explain."""

from __future__ import annotations

import torch

from clip_xai.explanations.measures.base import Measure, PhotographMaps
from clip_xai.models.backbones.recording import evaluation_mode
from clip_xai.xai.baselines import Zeros
from clip_xai.xai.cost import Cost, cost_of


class CostMeasure(Measure):
    """One number of what a method costs."""

    falling = True
    part: str

    def of(self, asked: PhotographMaps) -> dict[str, float]:
        """Return it for each method that can be asked again; see the base class."""
        found = {}
        for name, explainer in asked.explainers.items():
            if name not in asked.maps:
                continue
            key = ("cost", name)
            if key not in asked.streams:
                asked.streams[key] = cost_of(explainer, asked.bank.backbone, asked.bank.pixels, asked.target)
            cost: Cost = asked.streams[key]
            found[name] = float(getattr(cost, self.part))
        return found


class Seconds(CostMeasure):
    """Wall time of all scores of the target."""

    name = "seconds"
    title = "seconds"
    part = "seconds"


class Forwards(CostMeasure):
    """Images that went through the tower."""

    name = "forwards"
    title = "forward passes"
    part = "forwards"


class Backwards(CostMeasure):
    """Images whose gradients came back through the tower."""

    name = "backwards"
    title = "backward passes"
    part = "backwards"


class Memory(CostMeasure):
    """How far memory rises."""

    name = "memory"
    title = "peak memory, MiB"
    part = "mebibytes"


class Completeness(Measure):
    """By how much a map misses what the score gains over an empty picture, ``|sum - gain| / |gain|``.

    Of methods whose evidence is in units of the score, the linear ones; the empty picture is the mean colour of the
    tower's training data. Others do not claim to add up and have no value.
    """

    name = "completeness"
    title = "gap of completeness"
    falling = True

    def of(self, asked: PhotographMaps) -> dict[str, float]:
        """Return the gap of each method that is linear in the target; see the base class."""
        bank = asked.bank
        with torch.no_grad(), evaluation_mode(bank.backbone):
            empty = asked.target.score(bank.backbone.features(Zeros()(bank.pixels)).read(asked.target.reads))
        gain = float((bank.whole_scores(asked.target) - empty)[0, asked.row])
        return {
            name: abs(float(asked.maps[name].double().sum()) - gain) / abs(gain) if abs(gain) > 1e-9 else float("nan")
            for name, explainer in asked.explainers.items()
            if name in asked.maps and explainer.linear_in_target
        }
