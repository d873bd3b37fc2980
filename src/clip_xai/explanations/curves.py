"""Insertion and deletion curves of a run: drawn photograph by photograph, measured over all of them at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from clip_xai.data.vocabulary import Vocabulary, load_vocabulary
from clip_xai.explanations.lesion_maps import cells_of, finite, items_to_measure
from clip_xai.metrics.intervals import FEWEST, Interval, bounds, mean_interval, mean_of_sums, resampled_sums
from clip_xai.report.assemble import Answer
from clip_xai.report.curves import MOST_POINTS, Line, picture
from clip_xai.report.explained import title_of
from clip_xai.report.measured_curves import HEAT, RANDOM, REVERSED, CurveRow, MeasuredCurves
from clip_xai.report.pages import Table
from clip_xai.xai.baselines import Baseline
from clip_xai.xai.curve_protocols import PROTOCOLS
from clip_xai.xai.insertion_deletion import insertion_deletion, on_units, random_smooth_maps
from clip_xai.xai.perturbation_bank import PerturbationBank
from clip_xai.xai.target import Target

RANDOM_MAPS = 10
AREAS = {
    "insertion": "insertion",
    "deletion": "deletion",
    "above_random": "insertion above random",
    "below_random": "deletion below random",
    "above_reversed": "insertion above its reverse",
    "relevance_gain": "relevance gain (SRG)",
}


@dataclass(frozen=True)
class CurveSettings:
    """How curves are drawn while photographs are explained.

    Attributes:
        protocol: Name of a protocol.
        random_maps: Random smooth maps beside each answer.
        seed: Seed of those and of the order of equal places.
    """

    protocol: str = "default"
    random_maps: int = RANDOM_MAPS
    seed: int = 0


def measured_curves(
    answer: Answer, bank: PerturbationBank, target: Target, settings: CurveSettings, number: int = 0
) -> MeasuredCurves | None:
    """Draw the curves of every heat map of an answer, but for single words of a caption beside its whole.

    Args:
        answer: What the methods say of one photograph.
        bank: The tower and that photograph.
        target: What the answer is about, with all its scores.
        settings: How.
        number: The photograph's own number: each has random maps of its own.

    Returns:
        The curves; None where no method gives a heat map.
    """
    protocol = PROTOCOLS[settings.protocol]
    side = bank.pixels.shape[-1]
    units = protocol.units(bank.backbone.grid, side)
    items = [item for item, _ in items_to_measure(answer)] or list(range(len(answer.items)))
    maps: list[torch.Tensor] = []
    owners: list[tuple[int, CurveRow]] = []  # which map, and what is read of it
    for attribution in answer.attributions:
        if attribution.kind != "image":
            continue
        rows = answer.rows(attribution)
        asked = [item for item in items if item in rows]
        for item in asked:
            if attribution.text_dependent or item == asked[0]:
                maps.append(on_units(attribution.values[:, item - rows.start].float().cpu(), units, side)[0])
            owners.append((len(maps) - 1, CurveRow(attribution.method, item, HEAT)))
    if not maps:
        return None
    heat = len(maps)
    seed = (settings.seed + number) % 2**31
    for one in random_smooth_maps(settings.random_maps, bank.backbone.grid, seed):
        maps.append(on_units(one[None], units, side)[0])
        owners += [(len(maps) - 1, CurveRow("", item, RANDOM)) for item in items]
    found = insertion_deletion(bank, target, torch.stack(maps), protocol, seed=settings.seed, reverse=heat)
    insertion, deletion, rows_of, areas = [], [], [], []
    backwards = [(place, CurveRow(row.method, row.item, REVERSED)) for place, row in owners if row.order == HEAT]
    for place, row in (*owners, *backwards):
        pair = (
            (found.reversed_insertion, found.reversed_deletion)
            if row.order == REVERSED
            else (found.insertion, found.deletion)
        )
        curves = [part[place, :, row.item] for part in pair]
        insertion.append(curves[0].numpy())
        deletion.append(curves[1].numpy())
        areas.append([float(protocol.areas(curve, found.shares)) for curve in curves])
        rows_of.append(row)
    return MeasuredCurves(
        protocol.name,
        f"{protocol.words}; inserted into {_words(protocol.insertion)}, deleted to {_words(protocol.deletion)}",
        found.score_name,
        tuple(rows_of),
        found.shares.numpy(),
        np.stack(insertion),
        np.stack(deletion),
        np.array(areas),
        found.note,
    )


def _words(baseline: Baseline) -> str:
    words = baseline.words
    return f"the photograph {words}" if words.startswith("blurred") else words


Pair = tuple[str, str, str]  # method, what is explained, order


@dataclass
class RunCurves:
    """Curves of a run in the order they came.

    Attributes:
        areas: By method, what is explained and order: areas of insertion and deletion, of each photograph; of random
            maps their mean.
        heights: The same, of the curves themselves at no more than ``MOST_POINTS`` points.
        groups: The photographs' groups, likewise.
        marks: Which photograph and item each is of, likewise, so that a control is read on the same ones.
        said: The first curves that came, by what is explained: protocol, shares and the score's name.
        photographs: How many came.
        vocabulary: Says what a group is: a patient, a lesion.
    """

    areas: dict[Pair, list[NDArray[np.floating]]] = field(default_factory=dict)
    heights: dict[Pair, list[NDArray[np.floating]]] = field(default_factory=dict)
    groups: dict[Pair, list[str]] = field(default_factory=dict)
    marks: dict[Pair, list[tuple[int, str]]] = field(default_factory=dict)
    said: dict[str, MeasuredCurves] = field(default_factory=dict)
    photographs: int = 0
    vocabulary: Vocabulary = field(default_factory=load_vocabulary)

    def add(self, answers: Sequence[Answer], group: str) -> None:
        """Take one photograph's answers."""
        for answer in answers:
            curves = answer.curves
            if curves is None:
                continue
            names = dict(items_to_measure(answer)) or {item: "word" for item in range(len(answer.items))}
            points = thinned(curves.shares)
            for item, what in names.items():
                self.said.setdefault(what, curves)
                for order in (HEAT, REVERSED, RANDOM):
                    for method in dict.fromkeys(curves.rows[row].method for row in curves.chosen(item, order)):
                        rows = curves.chosen(item, order, method)
                        pair = (method, what, order)
                        both = np.stack([curves.insertion[rows].mean(axis=0), curves.deletion[rows].mean(axis=0)])
                        self.areas.setdefault(pair, []).append(curves.areas[rows].mean(axis=0))
                        self.heights.setdefault(pair, []).append(both[:, points])
                        self.groups.setdefault(pair, []).append(group)
                        self.marks.setdefault(pair, []).append((self.photographs, f"{answer.score_name} {item}"))
        self.photographs += 1

    def measure(self, seed: int = 0) -> list[dict[str, Any]]:
        """Return the areas of every method with intervals over patients, beside random maps and the reversed map."""
        found = []
        for (method, what, order), areas in self.areas.items():
            if order == REVERSED:
                continue
            said = self.said[what]
            groups, own = self.groups[method, what, order], np.stack(areas)
            values = {"insertion": own[:, 0], "deletion": own[:, 1]}
            if order == HEAT:
                random = self._beside(("", what, RANDOM), (method, what, HEAT))
                if random is not None:
                    values |= {"above_random": own[:, 0] - random[:, 0], "below_random": random[:, 1] - own[:, 1]}
                back = self._beside((method, what, REVERSED), (method, what, HEAT))
                if back is not None:
                    values["above_reversed"] = own[:, 0] - back[:, 0]
                    values["relevance_gain"] = back[:, 1] - own[:, 1]
            row: dict[str, Any] = {"method": method or "control: random smooth maps", "what": what}
            row |= {"protocol": said.protocol, "score": said.score_name}
            row |= {name: finite(asdict(mean_interval(value, groups, seed=seed))) for name, value in values.items()}
            found.append(row)
        return sorted(found, key=lambda row: row["method"].startswith("control"))

    def table(self, measured: Sequence[dict[str, Any]]) -> Table | None:
        """The areas for a reader; None where no curve was drawn."""
        if not measured:
            return None
        rows = []
        for row in measured:
            control = row["method"].startswith("control")
            title = "Control: random smooth maps" if control else title_of(row["method"])
            cells = [cells_of(row.get(name))[0] for name in AREAS]
            rows.append((title, row["what"], row["score"], *cells, str(row["insertion"]["n"])))
        notes = dict.fromkeys(
            note for curves in self.said.values() for note in (f"{curves.words}.", curves.note) if note
        )
        protocol, groups = next(iter(self.said.values())).protocol, self.vocabulary.groups[1]
        note = (
            f"Mean area under the curve [95 % interval over {groups}], protocol {protocol}: "
            f"{' '.join(notes)} Insertion is better where it is higher, deletion where it is lower, both only beside "
            "random smooth maps on the same photograph: above 0 in the next two columns the map ranks places better "
            "than chance. The next difference holds a map against its own reverse, coldest places first, and the "
            "symmetric relevance gain does so by deletion: it hardly depends on what stands where the photograph is "
            f"deleted. Behind fewer than {FEWEST} {groups} there is no interval."
        )
        head = ("method", "explained", "score", *AREAS.values(), "n")
        return Table("Does the score follow the heat? Insertion and deletion", head, tuple(rows), note)

    def pictures(self, seed: int = 0) -> dict[str, str]:
        """Draw the mean curves with bands, one SVG for each thing that is explained."""
        drawn = {}
        for what, said in self.said.items():
            panels: list[list[Line]] = [[], []]
            pairs = [pair for pair in self.heights if pair[1] == what and pair[2] != REVERSED]
            for pair in sorted(pairs, key=lambda pair: pair[2] != RANDOM):
                for panel, lines in enumerate(panels):
                    heights = np.stack([one[panel] for one in self.heights[pair]])
                    label = title_of(pair[0]) if pair[0] else "random smooth maps"
                    low, high = _band(heights, self.groups[pair], seed)
                    lines.append(Line(label, heights.mean(axis=0), low, high, control=not pair[0]))
            drawn[what] = picture(said.shares[thinned(said.shares)], panels[0], panels[1], said.score_name)
        return drawn

    def _beside(self, other: Pair, own: Pair) -> NDArray[np.floating] | None:
        """The areas of a control on the very photographs that a method has a map of."""
        known = dict(zip(self.marks.get(other, ()), self.areas.get(other, ()), strict=True))
        if not all(mark in known for mark in self.marks[own]):
            return None
        return np.stack([known[mark] for mark in self.marks[own]])


def thinned(shares: NDArray[np.floating]) -> NDArray[np.int64]:
    """Return which points of a long curve are kept, the first and the last always."""
    count = min(len(shares), MOST_POINTS)
    return np.unique(np.linspace(0, len(shares) - 1, count).round().astype(np.int64))


def _band(
    heights: NDArray[np.floating], groups: Sequence[str], seed: int
) -> tuple[NDArray[np.floating] | None, NDArray[np.floating] | None]:
    """The interval of the mean height at every point; none where there are too few groups."""
    statistics = np.stack([heights.T, np.ones_like(heights.T)], axis=-1)  # [K, n, 2]
    draws = mean_of_sums(resampled_sums(statistics, groups, samples=400, seed=seed))
    means = heights.mean(axis=0)
    found: list[Interval] = [bounds(float(mean), draws[:, at], groups) for at, mean in enumerate(means)]
    low, high = np.array([one.low for one in found]), np.array([one.high for one in found])
    # A point where all photographs agree has no width.
    same = np.isnan(low) & (np.ptp(heights, axis=0) < 1e-9)
    low, high = np.where(same, means, low), np.where(same, means, high)
    return (None, None) if np.isnan(low).any() else (low, high)
