"""Evidence on all maps of a page: p-values corrected together, and how many maps of each method hold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from clip_xai.data.vocabulary import GROUPS
from clip_xai.explanations.lesion_maps import cells_of, finite
from clip_xai.explanations.map_evidence import corrected, kinds_of
from clip_xai.explanations.store import Result
from clip_xai.metrics.intervals import FEWEST, mean_interval
from clip_xai.report.explained import title_of
from clip_xai.report.map_evidence import ALPHA, BLIND, MapEvidence
from clip_xai.report.pages import Table
from clip_xai.text import counted


@dataclass(frozen=True)
class _Row:
    """One judged map: of which method, what it is about, and whose photograph it is."""

    method: str
    what: str
    group: str
    found: MapEvidence


@dataclass(frozen=True)
class PageEvidence:
    """The evidence of a run with q-values over all of its maps.

    Attributes:
        judged: By file and question.
        rows: The maps one by one.
        photographs: How many have a map with evidence asked of it.
        groups: What groups of photographs are called: ``patients``.
    """

    judged: dict[tuple[str, str], tuple[MapEvidence, ...]] = field(default_factory=dict)
    rows: tuple[_Row, ...] = ()
    photographs: int = 0
    groups: str = GROUPS[1]

    @classmethod
    def of(cls, results: Iterable[tuple[Path, Result]], groups: str = GROUPS[1]) -> PageEvidence:
        """Correct the p-values of all maps of a run together; ``groups`` is what its groups are called."""
        keys, raw, places = [], [], []
        for place, result in results:
            for name, answer in result.answers.items():
                if answer.evidence:
                    keys.append((place.name, name))
                    raw.append(answer.evidence)
                    group = result.photograph.group or result.photograph.name
                    places.append((kinds_of(answer, words=True), group))
        found = corrected(raw)
        rows = tuple(
            _Row(one.method, kinds[one.item], group, one)
            for answer, (kinds, group) in zip(found, places, strict=True)
            for one in answer
        )
        return cls(dict(zip(keys, found, strict=True)), rows, len({place for place, _ in keys}), groups)

    def on(self, place: Path, result: Result) -> Result:
        """Return a result whose evidence has the page's q-values."""
        answers = {
            name: replace(answer, evidence=self.judged.get((place.name, name), answer.evidence))
            for name, answer in result.answers.items()
        }
        return replace(result, answers=answers)

    def measure(self, seed: int = 0) -> list[dict[str, Any]]:
        """Return the share of maps with evidence by method and kind of thing, clustered by group."""
        found = []
        for pair in dict.fromkeys((row.method, row.what) for row in self.rows):
            rows = [row for row in self.rows if (row.method, row.what) == pair]
            groups = [row.group for row in rows]
            gains = np.array([row.found.gain for row in rows])
            shares = {
                "evidence": [row.found.holds for row in rows],
                "beats_random": [row.found.beats_random for row in rows],
                "beats_blind": [row.found.beats_blind for row in rows],
            }
            measured: dict[str, Any] = {"method": pair[0], "what": pair[1]}
            for name, values in shares.items():
                share = mean_interval(np.array(values, dtype=float), groups, seed=seed, span=(0.0, 1.0), share=True)
                measured[name] = finite(asdict(share))
            measured["gain"] = finite(asdict(mean_interval(gains, groups, seed=seed)))
            found.append(measured | {"calibrated": all(row.found.calibrated for row in rows)})
        return found

    @property
    def words(self) -> str:
        """The verdicts of the run in a sentence."""
        held = sum(row.found.holds for row in self.rows)
        rough = sum(not row.found.calibrated for row in self.rows)
        said = f"evidence: {held} of {counted(len(self.rows), 'map')} of {counted(self.photographs, 'photograph')}; "
        said += f"{len(self.rows) - held} {BLIND}"
        if rough:
            said += f". Uncalibrated: {rough} (calibrate: python -m clip_xai.studies.evidence)"
        return said

    def table(self, measured: Sequence[dict[str, Any]]) -> Table | None:
        """The shares for a reader; None where no evidence was asked."""
        if not measured:
            return None
        names = ("evidence", "beats_random", "beats_blind", "gain")
        rows = tuple(
            (
                title_of(row["method"]),
                row["what"],
                *(cells_of(row[name])[0] for name in names),
                str(row["evidence"]["n"]),
                "yes" if row["calibrated"] else "no",
            )
            for row in measured
        )
        head = ("method", "explained", "has evidence", "beats random maps", "beats blind maps", "mean gain", "n",
                "calibrated")  # fmt: skip
        note = (
            f"Share of maps [95 % interval over {self.groups}]. Gain (symmetric relevance gain): mean score while "
            "the coldest places are deleted first less that while the hottest are, in three steps of whole cells, "
            "deleted to the photograph's mean colour. A map has evidence if its gain beats random maps as smooth as "
            f"itself (q up to {ALPHA:g} over all maps of this page, Benjamini-Hochberg) and every map without any "
            "model on the same photograph: the centre, colour contrast, edges and, where it was measured, the "
            f"method's own mean map. Every other map is {BLIND}. Uncalibrated p-values are ranks among one "
            "photograph's own random maps and too coarse for a long page. Under "
            f"{FEWEST} {self.groups} only shares have an interval."
        )
        return Table("Does the map owe anything to the model?", head, rows, note)
