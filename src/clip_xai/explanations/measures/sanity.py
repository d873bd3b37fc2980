"""Sanity: does the map need what the model knows, and what it is asked?"""

from __future__ import annotations

import torch
from torch import Tensor

from clip_xai.explanations.measures.base import Measure, PhotographMaps
from clip_xai.xai.map_likeness import rank_correlation
from clip_xai.xai.sanity import NOISY, Randomisation, randomisation, text_likeness
from clip_xai.xai.stability import reseeded


class SanityMeasure(Measure):
    """A measure that asks methods again with random parameters."""

    noisy = 0
    steps = False

    def randomised(self, asked: PhotographMaps, name: str) -> Randomisation:
        """Return what random parameters do to a method's maps; run once for all measures that read it."""
        key = ("randomised", name, self.noisy, self.steps)
        if key not in asked.streams:
            bank = asked.bank
            asked.streams[key] = randomisation(
                asked.explainers[name],
                bank.backbone,
                bank.pixels,
                asked.target,
                noisy=self.noisy,
                steps=self.steps,
                seed=asked.seed,
            )
        return asked.streams[key]

    def value(self, found: Randomisation, row: int) -> float:
        """Read the measure off."""
        raise NotImplementedError

    def of(self, asked: PhotographMaps) -> dict[str, float]:
        """Return the value of each method that can be asked again; see the base class."""
        able = [name for name in asked.explainers if name in asked.maps]
        return {name: self.value(self.randomised(asked, name), asked.row) for name in able}


class RandomisedAtOnce(SanityMeasure):
    """Spearman's correlation of a map with the one that all-random parameters give."""

    name = "randomised"
    title = "likeness at random parameters"
    falling = True
    span = (-1.0, 1.0)

    def value(self, found: Randomisation, row: int) -> float:
        """The last step's; its sign does not matter, for a negated map tells of the same places."""
        return abs(float(found.correlations[-1, row]))


class EntropyRise(SanityMeasure):
    """eMPRT: relative rise of the map's entropy when all parameters are random."""

    name = "emprt"
    title = "entropy rise at random parameters (eMPRT)"

    def value(self, found: Randomisation, row: int) -> float:
        """The rise."""
        return float(found.entropy_rise[row])


class RandomisedUpwards(SanityMeasure):
    """Mean likeness of a map (SSIM) to those with parameters random from the input up."""

    name = "bottom_up"
    title = "likeness, random from the input up"
    falling = True
    span = (-1.0, 1.0)
    steps = True

    def value(self, found: Randomisation, row: int) -> float:
        """The mean over the steps."""
        return float(found.similarities[:, row].mean())


class SmoothedUpwards(RandomisedUpwards):
    """sMPRT: the same of maps that were averaged over noisy copies of the photograph first."""

    name = "smprt"
    title = "likeness of smoothed maps, random from the input up (sMPRT)"
    noisy = NOISY


class TextLikeness(Measure):
    """Spearman's correlation of a map with those of random texts or captions; 1 hears no text at all."""

    name = "random_text"
    title = "likeness to maps of other texts"
    falling = True
    span = (-1.0, 1.0)

    def refusal(self, asked: PhotographMaps) -> str | None:
        """There must be other texts."""
        return None if asked.others else "nothing else was asked about the photograph"

    def of(self, asked: PhotographMaps) -> dict[str, float]:
        """Return the mean over the other texts; see the base class."""
        found = {}
        for name in asked.explainers:
            others = self._others(asked, name) if name in asked.maps else []
            if others:
                found[name] = float(text_likeness(asked.maps[name].cpu(), torch.stack(others)))
        return found

    def _others(self, asked: PhotographMaps, name: str) -> list[Tensor]:
        """A method's maps of the other texts; made once for all scores of a target."""
        key = ("others", name)
        if key not in asked.streams:
            explainer, bank = asked.explainers[name], asked.bank
            asked.streams[key] = [
                explainer.explain(bank.backbone, bank.pixels, target).values[0, row].cpu()
                for target, row in asked.others
                if explainer.refusal(bank.backbone, target) is None
            ]
        return asked.streams[key]


class RunToRun(Measure):
    """Spearman's correlation of two runs of a method that draws at random, with two seeds; 1 for one that does not."""

    name = "run_to_run"
    title = "agreement from run to run"
    span = (-1.0, 1.0)

    def of(self, asked: PhotographMaps) -> dict[str, float]:
        """Return the agreement; see the base class."""
        found = {}
        for name, explainer in asked.explainers.items():
            again = reseeded(explainer, getattr(explainer, "seed", 0) + 1)
            if name not in asked.maps:
                continue
            if again is explainer:
                found[name] = 1.0
                continue
            other = again.explain(asked.bank.backbone, asked.bank.pixels, asked.target).values[0, asked.row].cpu()
            found[name] = float(rank_correlation(asked.maps[name].cpu()[None], other[None]))
        return found
