"""Shape and type of a protocol: how ``task=explanations`` judges explainers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from clip_xai.ranges import Checked, setting

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
