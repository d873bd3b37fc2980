"""What a protocol measures of maps: from its settings to measures, F-Fidelity's tower tuned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clip_xai.config.protocol_settings import ProtocolConfig
from clip_xai.explanations.measures.base import Measure
from clip_xai.explanations.measures.faithfulness import FFidelityGain
from clip_xai.explanations.measures.pictures import MapMeasures
from clip_xai.explanations.measures.table import measures_named
from clip_xai.models.backbones.base import VisionBackbone
from clip_xai.training.dropped_tokens import tuned_to_dropped_tokens
from clip_xai.xai.explainer import Explainer

TUNED_ON = 256  # pictures that F-Fidelity's tower is tuned on, and measured on
_HELD_OUT = 32
# As published, a map takes two thousand pictures; the protocol takes two hundred.
_DRAWS, _SIZES = 10, 10


def measures_of(protocol: ProtocolConfig) -> list[Measure]:
    """Return all measures of a protocol.

    Raises:
        UserError: There is no measure of a name.
    """
    return measures_named([*protocol.measures, *protocol.again_measures])


@dataclass(frozen=True)
class PictureMeasures:
    """What is measured of the pictures of a run, by their number.

    Attributes:
        again: Of the first pictures, whose methods are asked again.
        alone: Of those behind them.
        protocol: Says how many there are of each.
    """

    again: MapMeasures
    alone: MapMeasures
    protocol: ProtocolConfig

    @classmethod
    def of(
        cls,
        protocol: ProtocolConfig,
        methods: Sequence[Explainer],
        backbone: VisionBackbone,
        pictures: Callable[[int], Sequence[Tensor]],
        seed: int,
    ) -> PictureMeasures:
        """Make the measures of a protocol.

        Args:
            protocol: Its settings.
            methods: What explains.
            backbone: The tower; a copy of it is fine-tuned where F-Fidelity is asked for.
            pictures: Gives so many pictures ``[3, S, S]``, none of those that are judged, to tune on.
            seed: Seed of orders, sets and noise.

        Raises:
            UserError: There is no measure of a name.
        """
        every, again = measures_named(protocol.measures), measures_named(protocol.again_measures)
        if protocol.again and any(isinstance(measure, FFidelityGain) for measure in again):
            with torch.random.fork_rng(devices=[]):
                tuned = tuned_to_dropped_tokens(backbone, pictures(TUNED_ON), held_out=_HELD_OUT, seed=seed).backbone
            again = [FFidelityGain(tuned, _DRAWS, _SIZES) if isinstance(one, FFidelityGain) else one for one in again]
        by_name, marks = {method.name: method for method in methods}, tuple(protocol.curve_shares)
        return cls(
            MapMeasures(every, again, by_name, marks, seed), MapMeasures(every, (), by_name, marks, seed), protocol
        )

    def at(self, number: int) -> MapMeasures | None:
        """Return what is measured of the picture with a number, which counts from 0; None for nothing."""
        if number >= self.protocol.measured:
            return None
        return self.again if number < self.protocol.again else self.alone
