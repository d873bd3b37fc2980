"""Planted shortcuts: how much of its evidence a method puts on an artefact that the captioner cheats with.

For captioners that learned the shortcut at strength p, on test scenes drawn with the artefact, without it and with it
elsewhere, the diagnosis that the artefact stands for is explained behind the bare conclusion:

- **reliance**: what adding the artefact does to the word's log-odds, the truth that maps are held against.
- **excess**: share of the positive heat on the artefact less its share of the area; for a control the same of another
  part of the scene, drawn at random. A method reveals the cheat from p on if this excess lies above that at p = 0, by
  scene, at p and at every larger one.
- *Confounder sensitivity* and *explanation NCC* (Sun, Koch and Baumgartner, MICCAI 2023): share of the artefact's
  pixels among the hottest tenth of all; correlation of the maps with and without it. Both of scenes whose word flips.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from clip_xai.data.synthetic.composition import Scene
from clip_xai.data.synthetic.planted import Picture, moved_artefact, with_artefact, without_artefact
from clip_xai.data.synthetic.profiles import CHEAT
from clip_xai.explanations.causes.cheats import CONCLUSION, pixels_of
from clip_xai.explanations.causes.maps import explained_target
from clip_xai.explanations.causes.scene_targets import Asker
from clip_xai.explanations.causes.scenes import DrawnScene
from clip_xai.metrics.intervals import Interval, mean_interval
from clip_xai.metrics.localisation import lay_over
from clip_xai.models.captioner import Captioner
from clip_xai.xai.explainer import Explainer
from clip_xai.xai.perturbation_bank import PerturbationBank
from clip_xai.xai.slots import DIAGNOSIS, Slot, slot_log_odds, slots_of
from clip_xai.xai.target import CaptionTarget

STRENGTHS = (0.0, 0.2, 0.5, 0.8, 1.0)
HOTTEST = 0.1  # of all pixels, for the confounder sensitivity


def shortcut_rows(
    asker: Asker, captioner: Captioner, artefact: str, p: float, scenes: Sequence[Scene], methods: Sequence[Explainer],
    seed: int = 0,
) -> list[dict[str, Any]]:  # fmt: skip
    """Measure one captioner: a row for each scene, and for each scene and method.

    Args:
        asker: The judged model, whose tower all captioners share.
        captioner: What learned the shortcut.
        artefact: The artefact.
        p: At which strength.
        scenes: Scenes to judge on.
        methods: What explains it.
        seed: Seed of the other part.
    """
    rows: list[dict[str, Any]] = []
    ids = captioner.tokenizer.encode(CONCLUSION.format(CHEAT))
    slot = next(one for one in slots_of(captioner, ids) if one.kind == DIAGNOSIS)
    target = CaptionTarget(captioner, ids, [slot.tokens], [CHEAT])
    for scene in scenes:
        clean, dirty = without_artefact(scene, artefact), with_artefact(scene, artefact)
        moved = moved_artefact(scene, artefact)
        odds = _log_odds(asker, captioner, ids, slot, [clean, dirty, *([] if moved is None else [moved])])
        known: dict[str, Any] = {"artefact": artefact, "p": p, "scene": scene.seed, "cheat": scene.diagnosis == CHEAT}
        flips = bool(odds[1] > 0 >= odds[0])
        away = None if moved is None else float(odds[2] - odds[0])
        rows.append(known | {"added": float(odds[1] - odds[0]), "flips": flips, "moved": away})
        masks = _masks(asker, scene, dirty, seed)
        banks = [
            PerturbationBank(asker.backbone, pixels_of(one, asker.backbone.preprocess)[None].to(asker.device))
            for one in (dirty, clean)
        ]
        for method in methods:
            heats = [explained_target(method, asker.backbone, target, bank)[0] for bank in banks]
            if not all(heats):
                continue
            with_it, without_it = (lay_over(heat[0][None].float(), int(masks.shape[-1]))[0] for heat in heats)
            rows.append(known | {"method": method.name, "flips": flips} | _scores(with_it, without_it, masks))
    return rows


def _log_odds(
    asker: Asker, captioner: Captioner, ids: Sequence[int], slot: Slot, pictures: Sequence[Picture]
) -> NDArray[np.float64]:
    read = asker.encoded([pixels_of(one, asker.backbone.preprocess) for one in pictures])[1]
    assert read is not None
    return slot_log_odds(captioner, read, ids, slot).numpy()


def _masks(asker: Asker, scene: Scene, dirty: Picture, seed: int) -> Tensor:
    """The artefact and, for a control, another part of the scene apart from it, bool ``[2, S, S]``."""
    drawn = DrawnScene.of(scene, asker.backbone.preprocess)
    height, width = dirty.mask.shape
    geometry = asker.backbone.preprocess.geometry(width, height)
    artefact = geometry.locate(torch.from_numpy(dirty.mask), asker.backbone.preprocess.image_size) >= 0.5
    others = [one for mask in drawn.masks if bool((one := mask & ~artefact).any())] or [drawn.lesion & ~artefact]
    chosen = int(np.random.default_rng([seed, scene.seed]).integers(len(others)))
    return torch.stack([artefact, others[chosen]])


def _scores(with_it: Tensor, without_it: Tensor, masks: Tensor) -> dict[str, Any]:
    """Excess on the artefact and on another part, confounder sensitivity, explanation NCC."""
    heat = with_it.double().clamp(min=0)
    total = float(heat.sum())
    excess = [float((heat * mask).sum()) / total - float(mask.double().mean()) if total > 0 else None for mask in masks]
    nowhere = bool(masks[0].all()) or not bool(masks[0].any())  # a cast is everywhere, and a cut may hide a ruler
    flat = with_it.flatten()
    hottest = flat.argsort(descending=True, stable=True)[: round(HOTTEST * len(flat))]
    hit = float(masks[0].flatten()[hottest].sum()) / max(1, int(masks[0].sum()))
    pair = torch.stack([with_it.flatten(), without_it.flatten()]).double()
    return {
        "excess": None if nowhere else excess[0],
        "excess_elsewhere": excess[1] if masks[1].any() else None,
        "sensitivity": None if nowhere else hit,
        "ncc": None if bool((pair.std(dim=1) == 0).any()) else float(torch.corrcoef(pair)[0, 1]),
    }


@dataclass(frozen=True)
class Reliance:
    """What an artefact truly does to the word it stands for, at one strength.

    Attributes:
        artefact: Its name.
        p: The strength.
        added: Change of the word's log-odds when it is added, in nats.
        moved: The same at another place; None where it has none.
        beyond: ``added`` above that of the captioner that learned nothing (p = 0), paired by scene.
        flips: How many scenes' word flips, of ``added.n``.
    """

    artefact: str
    p: float
    added: Interval
    moved: Interval | None
    beyond: Interval
    flips: int


@dataclass(frozen=True)
class Revealed:
    """How one method fares on one artefact.

    Attributes:
        artefact: Its name.
        method: The method.
        excess: Mean excess of heat on the artefact at each strength.
        beyond: At each strength above 0, the excess above that at p = 0, paired by scene.
        elsewhere: The same of another part of the scene.
        reveals_from: The smallest strength from which on the lower bound of ``beyond`` is above 0; None for none.
        sensitivity: Confounder sensitivity at the largest strength, of scenes that flip; None where none does.
        ncc: Explanation NCC, likewise.
    """

    artefact: str
    method: str
    excess: dict[float, float]
    beyond: dict[float, Interval]
    elsewhere: dict[float, Interval]
    reveals_from: float | None
    sensitivity: float | None
    ncc: float | None


def reliances(rows: Sequence[Mapping[str, Any]], seed: int = 0) -> list[Reliance]:
    """Summarise what the artefacts truly do."""
    table = pd.DataFrame([row for row in rows if "added" in row])
    found = []
    for artefact, own in table.groupby("artefact", sort=False) if len(table) else ():
        added = own.pivot(index="scene", columns="p", values="added")
        scenes = added.index.astype(str).tolist()
        strengths = _strengths(own)
        for p in strengths:
            at = own[own["p"] == p]
            moved = at["moved"].dropna()
            places = at.loc[moved.index, "scene"].astype(str).tolist()
            found.append(
                Reliance(
                    str(artefact), p, mean_interval(added[p], scenes, seed=seed),
                    mean_interval(moved, places, seed=seed) if len(moved) else None,
                    mean_interval(added[p] - added[strengths[0]], scenes, seed=seed), int(at["flips"].sum()),
                )
            )  # fmt: skip
    return found


def revealed(rows: Sequence[Mapping[str, Any]], seed: int = 0) -> list[Revealed]:
    """Summarise from which strength on each method reveals the cheat, those that do so earliest first."""
    table = pd.DataFrame([row for row in rows if "method" in row])
    found = []
    for (artefact, method), own in table.groupby(["artefact", "method"], sort=False) if len(table) else ():
        on_it = _above_none(own, "excess", seed)
        strongest = own[(own["p"] == own["p"].max()) & own["flips"].astype(bool)]
        excess = {p: _mean(own.loc[own["p"] == p, "excess"]) for p in _strengths(own)}
        found.append(
            Revealed(
                str(artefact), str(method), {p: value for p, value in excess.items() if value is not None}, on_it,
                _above_none(own, "excess_elsewhere", seed), reveals_from(on_it),
                _mean(strongest["sensitivity"]), _mean(strongest["ncc"]),
            )
        )  # fmt: skip
    return sorted(found, key=lambda one: (one.artefact, one.reveals_from is None, one.reveals_from or 0, one.method))


def reveals_from(beyond: Mapping[float, Interval]) -> float | None:
    """Return the smallest strength from which on every lower bound is above 0.

    >>> def at(low): return Interval(0.2, low, 0.3, 9, 9, 9.0)
    >>> reveals_from({0.2: at(0.1), 0.5: at(-0.1), 0.8: at(0.1), 1.0: at(0.2)})
    0.8
    """
    found = None
    for p in sorted(beyond, reverse=True):
        if not beyond[p].low > 0:
            break
        found = p
    return found


def _above_none(own: pd.DataFrame, key: str, seed: int) -> dict[float, Interval]:
    pairs = own.pivot(index="scene", columns="p", values=key).astype(float)
    strengths = _strengths(own)
    found = {}
    for p in strengths[1:]:
        apart = (pairs[p] - pairs[strengths[0]]).dropna()
        if len(apart):
            found[p] = mean_interval(apart, apart.index.astype(str).tolist(), seed=seed, span=(-1.0, 1.0))
    return found


def _strengths(own: pd.DataFrame) -> list[float]:
    return sorted(float(p) for p in own["p"].unique())


def _mean(values: pd.Series) -> float | None:
    known = values.dropna()
    return float(known.astype(float).mean()) if len(known) else None
