"""Whether one heat map may be believed on its very photograph, as finished numbers and in words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from clip_xai.report.explained import number

ALPHA = 0.05
BLIND = "no better than a map that never saw the model"


@dataclass(frozen=True)
class MapEvidence:
    """What the score says of one map of one photograph.

    Attributes:
        method: Name of the method.
        item: Which item of the answer is scored.
        gain: Symmetric relevance gain of the map: area (least relevant deleted first) less area (most relevant first).
        p_value: Of random fields as smooth as the map, one-sided.
        calibrated: Whether it comes from the fields of many photographs; else from its rank among this one's.
        length: Correlation length of those fields, as a share of the side; NaN of a flat map, which has no order.
        spread: Standard deviation of their gains on this photograph.
        blind: Gains of maps that never saw the model on this photograph, by name.
        left_out: Which of those are not there, and why; empty where all are.
        q_value: The p-value corrected for all maps of the page (Benjamini-Hochberg); NaN before that is done.
    """

    method: str
    item: int
    gain: float
    p_value: float
    calibrated: bool
    length: float
    spread: float
    blind: Mapping[str, float]
    left_out: str = ""
    q_value: float = math.nan

    @property
    def best_blind(self) -> tuple[str, float]:
        """The map without model that gains most, and its gain."""
        return max(self.blind.items(), key=lambda one: one[1])

    @property
    def beats_random(self) -> bool:
        """Whether it gains more than random fields as smooth, all maps of the page counted."""
        return self.q_value <= ALPHA

    @property
    def beats_blind(self) -> bool:
        """Whether it gains more than every map that never saw the model."""
        return self.gain > self.best_blind[1]

    @property
    def holds(self) -> bool:
        """Whether the map has evidence: it beats both."""
        return self.beats_random and self.beats_blind

    @property
    def verdict(self) -> str:
        """The one line under the heat map."""
        name, best = self.best_blind
        calibration = "" if self.calibrated else ", uncalibrated"
        if self.holds:
            return (
                f"Evidence: gain {number(self.gain)}; random maps as smooth ±{number(self.spread)} "
                f"(q {_probability(self.q_value)}{calibration}), {name} {number(best)}."
            )
        if math.isnan(self.length):
            return f"{BLIND.capitalize()}: the map is flat and ranks nothing."
        why = []
        if not self.beats_random:
            q_value = f"(q {_probability(self.q_value)}{calibration})"
            why.append(f"it does not stand out from random maps as smooth {q_value}")
        if not self.beats_blind:
            why.append(f"{name} gains {number(best)}, this map {number(self.gain)}")
        return f"{BLIND.capitalize()}: {'; '.join(why)}."

    def rows(self) -> list[tuple[str, str]]:
        """The numbers behind the verdict, for a table of two columns."""
        found = [("this map's gain", number(self.gain))]
        if not math.isnan(self.length):
            smooth = f"random maps as smooth (length {self.length:.0%} of the side)"
            found.append((smooth, f"0 ± {number(self.spread)}"))
        found += [(name, number(gain)) for name, gain in self.blind.items()]
        of = "fields of many photographs" if self.calibrated else "rank among this photograph's fields, uncalibrated"
        found.append((f"p ({of})", _probability(self.p_value)))
        found.append(("q (all maps of this page)", _probability(self.q_value)))
        return found + ([("not compared with", self.left_out)] if self.left_out else [])


def _probability(value: float) -> str:
    return "not known" if math.isnan(value) else f"{value:.3f}" if value >= 0.001 else f"{value:.1e}"
