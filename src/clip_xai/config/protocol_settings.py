"""Shape and type of a protocol: how ``task=explanations`` judges explainers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from clip_xai.ranges import Checked, setting

MEASURES = (
    *("relevance_gain/token_drop", "relevance_gain/mean", "insertion/mean", "deletion/mean"),
    *("sensitivity_n/mean", "infidelity/mean", "pointing", "auprc", "energy", "mass", "rank"),
)
AGAIN = ("randomised", "emprt", "random_text", "run_to_run")
VERSION = 1  # raised when the same settings would give other numbers


@dataclass
class ProtocolConfig(Checked):
    """How explainers are judged by causes that are known; the numbers of one protocol and version compare.

    Attributes:
        name: ``default``, ``full``, or that of a file of one's own.
        version: Of what the settings mean; a file of another one is refused.
        scenes: Fresh scenes, drawn from ``seed``; no data set has them.
        samples: Captions drawn of each drawing, for effects on captions written anew.
        ledger: Scenes of other patients by which it is measured what a caption's words rest on, and maps that follow
            the words are judged; 0 for none.
        several: Pictures of several lesions, and as many mosaics, on which the maps of words compete; 0 for none.
        tones: Fresh scenes that are drawn on skin of Fitzpatrick types I to VI, of those whose lesion can be seen on
            all of them; 0 for none.
        twin: Whether every method is asked a second time, with the tower at random weights.
        measured: Of the scenes, so many have all their maps measured: does the score follow the heat, and does the heat
            lie on the lesion or the structure that is named?
        measures: By what; ``python -m clip_xai.explanations.measures`` lists all names.
        curve_shares: Shares of the picture at which curves are read between their ends; none for 24 equal steps.
        again: Of the measured scenes, so many have their methods asked again: with random parameters, of other texts,
            with another seed, against the clock.
        again_measures: By what; ``f_fidelity`` fine-tunes the tower once to patches that are left out.
    """

    prefix: ClassVar[str] = "protocol"

    name: str = "default"
    version: int = setting(VERSION, least=VERSION, most=VERSION)
    scenes: int = setting(40, least=1, most=2**20)
    samples: int = setting(16, least=1)
    ledger: int = setting(32, least=0)
    several: int = setting(8, least=0, most=500)
    tones: int = setting(8, least=0, most=2000)
    twin: bool = True
    measured: int = setting(12, least=0)
    measures: list[str] = field(default_factory=lambda: list(MEASURES))
    curve_shares: list[float] = setting(factory=lambda: [0.1, 0.3, 0.7, 0.9], above=0, below=1)
    again: int = setting(10, least=0)
    again_measures: list[str] = field(default_factory=lambda: list(AGAIN))
