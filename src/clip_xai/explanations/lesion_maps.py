"""Heat maps of a run beside the lesion masks: collected photograph by photograph, measured at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from clip_xai.data.preprocess import Geometry
from clip_xai.data.vocabulary import Vocabulary, load_vocabulary
from clip_xai.explanations.blind_maps import sobel_maps
from clip_xai.metrics.intervals import FEWEST
from clip_xai.metrics.localisation import (
    MEASURES,
    centre_maps,
    colour_contrast_maps,
    localisation,
    localisation_rows,
    random_maps,
)
from clip_xai.models.backbones.base import VisionBackbone
from clip_xai.report.assemble import Answer
from clip_xai.report.explained import LOG_PROBABILITY, MARGIN_SUFFIX, TOTAL_EFFECT, title_of
from clip_xai.report.pages import Table
from clip_xai.text import with_bounds

CONTROLS = {
    "control: random": "Control: random map",
    "control: centre": "Control: centre of the picture",
    "control: colour contrast": "Control: colour contrast",
    "control: Sobel edges": "Control: Sobel edges",
    "control: usual place": "Control: usual place (masks of others)",
}
TRAINED, RANDOM = "trained", "random"  # the weights that a row of a localisation was measured on
TITLES = {"pointing": "pointing game", "auprc": "AUPRC", "energy": "energy inside"}


@dataclass
class LesionMaps:
    """Maps and masks in the order they came.

    Attributes:
        maps: Grids ``[h, w]`` by method and by what was explained.
        masks: For each of them the lesion in the model's pixels, bool ``[S, S]``.
        groups: For each of them the photograph's group.
        numbers: For each of them the photograph's number, in the order they came.
        vocabulary: Says what the masks mark: a lesion, a finding.
    """

    maps: dict[tuple[str, str], list[Tensor]] = field(default_factory=dict)
    masks: dict[tuple[str, str], list[Tensor]] = field(default_factory=dict)
    groups: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    numbers: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    photographs: int = 0
    vocabulary: Vocabulary = field(default_factory=load_vocabulary)

    def add(
        self, backbone: VisionBackbone, picture: Image.Image, geometry: Geometry, mask: NDArray[np.bool_],
        answers: Sequence[Answer], group: str,
    ) -> dict[str, str]:  # fmt: skip
        """Take one photograph; return its own measurements, by method, as text."""
        size = backbone.preprocess.image_size
        lesion = geometry.locate(torch.from_numpy(mask), size) >= 0.5
        square = torch.from_numpy(np.array(backbone.preprocess.square(picture))).permute(2, 0, 1)[None] / 255
        seen: dict[tuple[str, str], Tensor] = {
            ("control: random", "any"): random_maps(1, backbone.grid, self.photographs)[0],
            ("control: centre", "any"): centre_maps(1, backbone.grid)[0],
            ("control: colour contrast", "any"): colour_contrast_maps(square, backbone.grid)[0],
            ("control: Sobel edges", "any"): sobel_maps(square, backbone.grid)[0],
        }
        shown = {
            f"{self.vocabulary.truth.capitalize()}'s share of what the model saw": f"{float(lesion.float().mean()):.2f}"
        }
        for answer in answers:
            for attribution in answer.attributions:
                if attribution.kind != "image":
                    continue
                first = answer.rows(attribution).start
                for row, what in ((item - first, what) for item, what in items_to_measure(answer) if item >= first):
                    what = what if attribution.text_dependent else "any"
                    seen[attribution.method, what] = attribution.values[0, row].cpu()
                    title = title_of(attribution.method)
                    key = f"{title}, {what}" if what != "any" else title
                    shown[key] = _text(
                        localisation_rows(attribution.values[:, row].cpu(), lesion[None]), self.vocabulary.truth
                    )
        for pair, values in seen.items():
            self.maps.setdefault(pair, []).append(values)
            self.masks.setdefault(pair, []).append(lesion)
            self.groups.setdefault(pair, []).append(group)
            self.numbers.setdefault(pair, []).append(self.photographs)
        self.photographs += 1
        return shown

    def measure(self, seed: int = 0) -> list[dict[str, Any]]:
        """Localisation of every method and control over all photographs with a visible lesion, with intervals."""
        measured = []
        for (method, what), maps in self.maps.items():
            masks = torch.stack(self.masks[method, what])
            if not masks.any():
                continue
            found = localisation(torch.stack(maps), masks, self.groups[method, what], seed=seed)
            row: dict[str, Any] = {"method": method, "what": what, "chance": found.chance}
            row |= {name: finite(asdict(interval)) for name, interval in found.intervals.items()}
            measured.append(row | {"empty_masks": found.empty_masks, "undefined_energy": found.undefined_energy})
        return sorted(measured, key=lambda row: row["method"].startswith("control"))

    def table(self, measured: Sequence[dict[str, Any]]) -> Table | None:
        """The measurements for a reader; None where no photograph had a mask."""
        if not measured:
            return None
        rows = []
        for row in measured:
            title = CONTROLS.get(row["method"]) or title_of(row["method"])
            title += " (random weights)" if row.get("weights") == RANDOM else ""
            cells = [cell for name in MEASURES for cell in cells_of(row.get(name))]
            rows.append((title, row["what"], *cells, f"{row['chance']:.3f}"))
        truth, background, groups = self.vocabulary.truth, self.vocabulary.background, self.vocabulary.groups[1]
        head = ("method", "explained", *(cell for name in MEASURES for cell in (TITLES[name], "n")), f"{truth}'s share")
        note = (
            f"Value [95 % interval over {groups}], measured on the square that the model saw. Pointing game: "
            f"the hottest pixel lies on the {truth}. AUPRC: how well heat ranks {truth} above {background} (chance: "
            f"the {truth}'s share). Energy: share of the positive heat that lies on the {truth}; a map without any has "
            f"none, and its n is smaller. Behind fewer than {FEWEST} {groups} only shares of hits have an "
            "interval, the exact one."
        )
        return Table(f"Does the heat lie on the {truth}?", head, tuple(rows), note)


def of_classes(answer: Answer) -> bool:
    """Tell whether an answer is about classes, of which each may have boxes of its own."""
    return any(one.settings.get("target") in ("class", "logit") for one in answer.attributions)


def items_to_measure(answer: Answer) -> list[tuple[int, str]]:
    """Return which items of an answer are measured, and as what: the diagnosis, the whole caption, texts, classes."""
    rows = []
    of_class = of_classes(answer)
    for row, item in enumerate(answer.items):
        if of_class:
            rows.append((row, "class"))
        elif item.score_name == TOTAL_EFFECT:
            if item.label.startswith("diagnosis: "):
                rows.append((row, f"diagnosis, {TOTAL_EFFECT}"))
        elif item.score_name != LOG_PROBABILITY:
            rows.append((row, "contrast" if item.score_name.endswith(MARGIN_SUFFIX) else "similarity"))
        elif item.span is None:
            rows.append((row, "diagnosis" if item.label.startswith("diagnosis: ") else item.label))
    return rows


def _text(rows: dict[str, Tensor], truth: str) -> str:
    values = {name: float(rows[name][0]) for name in (*MEASURES, "chance")}
    if np.isnan(values["pointing"]):
        return f"the model saw nothing of the {truth}"
    hit = "hit" if values["pointing"] >= 1 else "miss" if values["pointing"] <= 0 else f"{values['pointing']:.2f}"
    energy = "undefined (no positive heat)" if np.isnan(values["energy"]) else f"{values['energy']:.2f}"
    return f"pointing {hit}, AUPRC {values['auprc']:.2f}, energy {energy}"


def cells_of(interval: dict[str, Any] | None) -> tuple[str, str]:
    """Return a measure with its interval, and the number of rows that count for it."""
    if interval is None:
        return "–", "0"
    return with_bounds(interval["value"], interval["low"], interval["high"], 3), str(interval["n"])


def finite(values: dict[str, Any]) -> dict[str, Any]:
    """Return values in which None stands for what is not a number."""
    return {
        key: None if isinstance(value, float) and not np.isfinite(value) else value for key, value in values.items()
    }
