"""Heat maps of classes beside the boxes and masks of those findings: collected by photograph, measured at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clip_xai.data.preprocess import Geometry
from clip_xai.data.vocabulary import Vocabulary, load_vocabulary
from clip_xai.explanations.lesion_maps import cells_of, finite
from clip_xai.metrics.findings import MEASURES, TOLERANCE, best_point_hits, finding_rows, usual_places
from clip_xai.metrics.intervals import mean_interval
from clip_xai.metrics.localisation import centre_maps, lay_over, random_maps
from clip_xai.models.backbones.base import VisionBackbone
from clip_xai.report.assemble import Answer
from clip_xai.report.explained import title_of
from clip_xai.report.pages import Table

ALL = "all findings"
TITLES = {
    "pointing": "pointing game",
    "pointing_tolerant": f"within {TOLERANCE:g} px",
    "energy": "energy inside",
    "iou_otsu": "IoU (Otsu)",
    "iou_tuned": "IoU (tuned)",
}
USUAL, BEST, CENTRE, RANDOM = "control: usual place", "control: best point", "control: centre", "control: random"
CONTROLS = {
    RANDOM: "Control: random map",
    CENTRE: "Control: centre of the picture",
    USUAL: "Control: usual place (boxes of others)",
    BEST: "Upper bound: best constant point, chosen on these boxes",
}


@dataclass
class FindingMaps:
    """Maps of classes and the places of those findings, in the order they came.

    Attributes:
        maps: Grids by finding and method.
        masks: The finding's places in the model's pixels, bool, by finding, one a photograph.
        owners: For each map the number of its mask.
        groups: The groups (patients), by finding.
        tolerances: How far 15 pixels of the photograph are in the model's pixels, by finding.
        vocabulary: Says what a group is: a patient, a lesion.
    """

    maps: dict[tuple[str, str], list[Tensor]] = field(default_factory=dict)
    owners: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    masks: dict[str, list[Tensor]] = field(default_factory=dict)
    groups: dict[str, list[str]] = field(default_factory=dict)
    tolerances: dict[str, list[float]] = field(default_factory=dict)
    count: int = 0
    vocabulary: Vocabulary = field(default_factory=load_vocabulary)

    def add(
        self, backbone: VisionBackbone, geometry: Geometry, places: Mapping[str, NDArray[np.bool_]],
        answers: Sequence[Answer], group: str,
    ) -> dict[str, str]:  # fmt: skip
        """Take one photograph; return its own measurements, by method and finding, as text.

        Args:
            backbone: The tower.
            geometry: What it saw of the photograph.
            places: Where each finding is, bool, of the photograph's size.
            answers: What the methods say; items that are called like a finding are measured.
            group: The patient.
        """
        size = backbone.preprocess.image_size
        tolerance = TOLERANCE * size / (geometry.right - geometry.left)
        shown = {}
        for finding, place in places.items():
            mask = geometry.locate(torch.from_numpy(place), size) >= 0.5
            owner = len(self.masks.get(finding, ()))
            taken = False
            for answer in answers:
                for attribution in answer.attributions:
                    rows = answer.rows(attribution)
                    named = [item for item in rows if answer.items[item].label == finding]
                    if attribution.kind != "image" or not named:
                        continue
                    values = attribution.values[0, named[0] - rows.start].float().cpu()
                    self._keep(finding, attribution.method, values, owner)
                    taken = True
                    found = finding_rows(lay_over(values[None], size), mask[None], [group], [tolerance])
                    shown[f"{title_of(attribution.method)}, {finding}"] = _text(found)
            if taken:
                self.masks.setdefault(finding, []).append(mask)
                self.groups.setdefault(finding, []).append(group)
                self.tolerances.setdefault(finding, []).append(tolerance)
                self._keep(finding, RANDOM, random_maps(1, backbone.grid, self.count)[0], owner)
                self._keep(finding, CENTRE, centre_maps(1, backbone.grid)[0], owner)
                self.count += 1
        return shown

    def measure(self, seed: int = 0) -> list[dict[str, Any]]:
        """Return one row for each method and control and finding, and of all findings together, with intervals."""
        rows: dict[tuple[str, str], tuple[dict[str, Tensor], list[str], Tensor]] = {}
        for finding, kept in self.masks.items():
            masks, groups, tolerances = torch.stack(kept), self.groups[finding], self.tolerances[finding]
            share = masks.flatten(1).float().mean(dim=1)
            size = (masks.shape[-2], masks.shape[-1])
            for (owner, method), maps in self.maps.items():
                if owner != finding:
                    continue
                which = self.owners[owner, method]
                own_groups, near = [groups[one] for one in which], [tolerances[one] for one in which]
                found = finding_rows(lay_over(torch.stack(maps), size), masks[which], own_groups, near)
                rows[method, finding] = found, own_groups, share[which]
            rows[USUAL, finding] = finding_rows(usual_places(masks, groups), masks, groups, tolerances), groups, share
            best = {name: torch.full((len(masks),), float("nan")) for name in MEASURES}
            rows[BEST, finding] = best | {"pointing": best_point_hits(masks)}, groups, share
        measured = []
        for method in dict.fromkeys(method for method, _ in rows):
            parts = [rows[method, finding] for finding in self.masks if (method, finding) in rows]
            names = [finding for finding in self.masks if (method, finding) in rows]
            if len(names) > 1:
                together = {name: torch.cat([part[0][name] for part in parts]) for name in MEASURES}
                everyone, share = [group for part in parts for group in part[1]], torch.cat([part[2] for part in parts])
                measured.append(_measured(method, ALL, together, everyone, share, seed))
            measured += [_measured(method, name, *part, seed) for name, part in zip(names, parts, strict=True)]
        order = {method: place for place, method in enumerate(CONTROLS)}
        return sorted(measured, key=lambda row: order.get(row["method"], -1))

    def table(self, measured: Sequence[dict[str, Any]]) -> Table | None:
        """The measurements for a reader; None where nothing was measured."""
        if not measured:
            return None
        rows, groups = [], self.vocabulary.groups[1]
        for row in measured:
            title = CONTROLS.get(row["method"]) or title_of(row["method"])
            cells = [cells_of(row.get(name))[0] for name in TITLES]
            rows.append((title, row["finding"], *cells, f"{row['chance']:.3f}", str(row["n"])))
        note = (
            f"Value [95 % interval over {groups}], measured on the square that the model saw; n: findings of which it "
            "saw something. Pointing game: the hottest pixel lies in a box of the finding, or no further from it than "
            f"{TOLERANCE:g} pixels of the photograph. Energy: share of the positive heat inside. IoU: of what lies "
            "above the map's own Otsu threshold, and of the map from 0 to 1 above the threshold that was best on the "
            f"other half of the {groups}. The usual place is the mean of all boxes of the finding but those of the "
            f"same {self.vocabulary.groups[0]}: its hottest pixel is the best constant point, chosen without it. A map "
            "that does not beat it says nothing about the picture."
        )
        head = ("method", "finding", *TITLES.values(), "box's share", "n")
        return Table("Does the heat lie in the boxes?", head, tuple(rows), note)

    def _keep(self, finding: str, method: str, values: Tensor, owner: int) -> None:
        self.maps.setdefault((finding, method), []).append(values)
        self.owners.setdefault((finding, method), []).append(owner)


def _measured(
    method: str, finding: str, values: Mapping[str, Tensor], groups: Sequence[str], share: Tensor, seed: int
) -> dict[str, Any]:
    seen = share > 0
    row: dict[str, Any] = {"method": method, "finding": finding, "n": int(seen.sum())}
    row["chance"] = float(share[seen].mean()) if seen.any() else 0.0
    row["empty_masks"] = int((~seen).sum())
    for name in MEASURES:
        scores = values[name].numpy()
        counted = np.flatnonzero(~np.isnan(scores))
        if len(counted):
            members = [groups[int(one)] for one in counted]
            hits = name.startswith("pointing")
            row[name] = finite(asdict(mean_interval(scores[counted], members, seed=seed, span=(0.0, 1.0), share=hits)))
    return row


def _text(rows: Mapping[str, Tensor]) -> str:
    values = {name: float(rows[name][0]) for name in MEASURES}
    if np.isnan(values["pointing"]):
        return "the model saw nothing of the finding"
    hit = "hit" if values["pointing"] >= 1 else "miss" if values["pointing"] <= 0 else f"{values['pointing']:.2f}"
    energy = "undefined (no positive heat)" if np.isnan(values["energy"]) else f"{values['energy']:.2f}"
    return f"pointing {hit}, energy {energy}, IoU {values['iou_otsu']:.2f}"
