"""Planted shortcuts: how much of its evidence a method puts on an artefact that the captioner cheats with.

For captioners that learned the shortcut at several strengths p, one test scene is drawn without the artefact, with it
and with it elsewhere, and the diagnosis that the artefact stands for is explained behind the bare conclusion. All
captioners stand on one tower, so that each method explains them together.

What is true of a scene and a captioner:

- **added, moved**: what the artefact does to the log-odds of the diagnosis, at its place and at another one.
- **effect**: the artefact's Shapley value beside the lesion's, over the four drawings with and without each of them:
  ``phi_a = ((v(la) - v(l)) + (v(a) - v())) / 2``. Its share ``|phi_a| / (|phi_a| + |phi_l|)`` is what a map ought to
  put on the artefact, and a map made of both effects is a control.

What a method's map has on the artefact:

- **share**: of its positive heat, and of its heat whatever its sign, on the artefact; of another part of the scene,
  drawn at random, beside it. A map that knows nothing has the artefact's share of the area.
- **follows**: the share on the other place once the artefact lies there, less that on the same place before.
- *Confounder sensitivity* and *explanation NCC* (Sun, Koch and Baumgartner, MICCAI 2023): share of the artefact's
  pixels among the hottest tenth of all; correlation of the maps with and without it. Both of scenes whose word flips.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clip_xai.data.synthetic.composition import Scene
from clip_xai.data.synthetic.planted import (
    ShortcutScene,
    clear_of,
    moved_artefact,
    with_artefact,
    without_artefact,
    without_lesion,
)
from clip_xai.data.synthetic.profiles import CHEAT
from clip_xai.explanations.blind_maps import blind_maps
from clip_xai.explanations.causes.cheats import CONCLUSION, located, pixels_of
from clip_xai.explanations.causes.maps import BLIND, CONSTANT, EFFECTS, FIELDS, effect_map, explained_target
from clip_xai.explanations.causes.scene_targets import Asker
from clip_xai.explanations.causes.scenes import DrawnScene
from clip_xai.metrics.localisation import lay_over
from clip_xai.models.captioner import Captioner
from clip_xai.xai.explainer import Explainer
from clip_xai.xai.perturbation_bank import PerturbationBank
from clip_xai.xai.random_fields import LENGTHS, gaussian_fields
from clip_xai.xai.slots import DIAGNOSIS, slot_log_odds, slots_of, states
from clip_xai.xai.target import CaptionTarget, Target

STRENGTHS = (0.0, 0.2, 0.5, 0.8, 1.0)
HOTTEST = 0.1  # of all pixels, for the confounder sensitivity
_CLEAN, _DIRTY, _MOVED = range(3)


@dataclass(frozen=True)
class Strength:
    """One of the captioners: at which p it learned, and whether it is the second one that learned nothing."""

    p: float
    again: bool = False

    @property
    def name(self) -> str:
        """For files and people."""
        return f"{self.p:g}{' again' if self.again else ''}"


#: The captioners of one artefact; the second one at 0 says how far two differ that both learned nothing.
LEARNERS = (*map(Strength, STRENGTHS), Strength(0.0, again=True))


class SideBySide(Target):
    """Scores of several targets that read the same: one pass of the tower serves them all."""

    name, score_name = CaptionTarget.name, CaptionTarget.score_name  # what the targets of captions are called

    def __init__(self, targets: Sequence[Target], labels: Sequence[str]) -> None:
        """Take targets with one score each.

        Raises:
            ValueError: They do not read the same.
        """
        if len({target.reads for target in targets}) != 1:
            raise ValueError("targets side by side read the same of the tower")
        self.targets, self.labels, self.reads = list(targets), list(labels), targets[0].reads

    @property
    def any_number(self) -> bool:
        """Whether each of them can score an image of which patches were left out."""
        return all(target.any_number for target in self.targets)

    def score(self, read: Tensor) -> Tensor:
        """Return the scores ``[B, T]``."""
        return torch.cat([target.score(read) for target in self.targets], dim=1)

    def score_and_cotangent(self, read: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores and cotangents; none goes through another target's model."""
        found = [target.score_and_cotangent(read) for target in self.targets]
        return torch.cat([scores for scores, _ in found], dim=1), torch.cat([back for _, back in found], dim=1)


def conclusion_target(learners: Mapping[Strength, Captioner]) -> SideBySide:
    """Return how likely each captioner holds the diagnosis of the shortcut behind the bare conclusion."""
    targets = []
    for captioner in learners.values():
        ids = captioner.tokenizer.encode(CONCLUSION.format(CHEAT))
        [tokens] = [slot.tokens for slot in slots_of(captioner, ids) if slot.kind == DIAGNOSIS]
        targets.append(CaptionTarget(captioner, ids, [tokens], [CHEAT]))
    return SideBySide(targets, [strength.name for strength in learners])


def scene_rows(
    asker: Asker,
    learners: Mapping[Strength, Captioner],
    artefact: str,
    of: ShortcutScene,
    methods: Sequence[Explainer],
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Measure all captioners on one scene: a row for each of them, and for each of them and each method.

    Args:
        asker: The judged model, whose tower all captioners share.
        learners: What learned the shortcut.
        artefact: The artefact.
        of: The scene.
        methods: What explains it.
        seed: Seed of the other part and of random maps.
    """
    scene = of.scene
    pictures = [without_artefact(scene, artefact), with_artefact(scene, artefact)]
    moved = moved_artefact(scene, artefact)
    pictures += [] if moved is None else [moved]
    preprocess = asker.backbone.preprocess
    pixels = [pixels_of(one, preprocess) for one in pictures]
    masks = [located(one, preprocess) for one in pictures[1:]]
    other, lesion = _other_part(asker, clear_of(scene, artefact), masks[0], seed)
    known = {"artefact": artefact, "scene": scene.seed, "cheat": of.diagnosis == CHEAT, "unclear": of.unclear}
    rows, effects = _truths(asker, learners, scene, artefact, pixels)
    heats = _heats(asker, learners, pixels, methods)
    heats |= _controls(asker, pixels, masks, lesion, effects, (seed + scene.seed) % 2**31)
    found: list[dict[str, Any]] = [known | row for row in rows]
    for method, (maps, refused) in heats.items():
        if refused:
            found.append(known | {"method": method, "refused": refused})
            continue
        laid = [lay_over(one.float(), preprocess.image_size) for one in maps]
        for number, row in enumerate(rows):
            own = [one[min(number, len(one) - 1)] for one in laid]
            asked = {name: row[name] for name in ("p", "again", "flips")}
            found.append(known | asked | {"method": method} | scores(own, masks, other))
    return found


def maps_with(
    asker: Asker, learners: Mapping[Strength, Captioner], artefact: str, scene: Scene, method: Explainer
) -> dict[Strength, Tensor]:
    """Return the maps of one method on the scene with the artefact, ``[h, w]``; none where it has none."""
    pixels = pixels_of(with_artefact(scene, artefact), asker.backbone.preprocess)
    maps, refused = _heats(asker, learners, [pixels], [method])[method.name]
    return {} if refused else dict(zip(learners, maps[0], strict=True))


def scores(maps: Sequence[Tensor], masks: Sequence[Tensor], other: Tensor) -> dict[str, Any]:
    """Return what the maps of one method and captioner have on the artefact; None where it cannot be said.

    Args:
        maps: Of the picture without the artefact, with it and, where there is one, with it elsewhere, ``[S, S]`` each.
        masks: Where the artefact is in the second and the third, bool ``[S, S]``.
        other: Another part of the scene, in all of them.
    """
    everywhere = bool(masks[0].all()) or not bool(masks[0].any())  # no place of its own, or none that can be seen
    found: dict[str, Any] = {"area": float(masks[0].double().mean()), "other_area": float(other.double().mean())}
    for kind, heat in (("positive", maps[_DIRTY].clamp(min=0)), ("absolute", maps[_DIRTY].abs())):
        found[kind] = None if everywhere else share_on(heat, masks[0])
        found[f"other_{kind}"] = share_on(heat, other) if other.any() else None
    found["follows"] = None
    if len(maps) > _MOVED and not everywhere and masks[1].any():
        there, before = (share_on(maps[one].clamp(min=0), masks[1]) for one in (_MOVED, _DIRTY))
        found["follows"] = None if there is None or before is None else there - before
    found["sensitivity"] = None if everywhere else confounder_sensitivity(maps[_DIRTY], masks[0])
    found["ncc"] = explanation_ncc(maps[_DIRTY], maps[_CLEAN])
    return found


def share_on(heat: Tensor, mask: Tensor) -> float | None:
    """Return the share of a map without negative values that lies on a mask; None for a blank map."""
    total = float(heat.double().sum())
    return float(heat.double()[mask].sum()) / total if total > 0 else None


def confounder_sensitivity(heat: Tensor, mask: Tensor) -> float:
    """Return the share of a mask's pixels that are among the hottest tenth of all (Sun et al. 2023).

    Pixels as hot as the last one of the tenth count with the chance of being drawn among them, so that a constant map
    has a tenth wherever the mask is.

    >>> confounder_sensitivity(torch.ones(10, 10), torch.eye(10).bool())
    0.1
    """
    flat, inside = heat.flatten(), mask.flatten()
    count = round(HOTTEST * len(flat))
    level = flat.sort(descending=True).values[count - 1]
    above, level_with = flat > level, flat == level
    chance = (count - int(above.sum())) / int(level_with.sum())
    return (int((above & inside).sum()) + chance * int((level_with & inside).sum())) / int(inside.sum())


def explanation_ncc(heat: Tensor, other: Tensor) -> float | None:
    """Return the correlation of two maps over all pixels (Sun et al. 2023); None where one of them is flat."""
    pair = torch.stack([heat.flatten(), other.flatten()]).double()
    return None if bool((pair.std(dim=1) == 0).any()) else float(torch.corrcoef(pair)[0, 1])


def _truths(
    asker: Asker, learners: Mapping[Strength, Captioner], scene: Scene, artefact: str, pixels: Sequence[Tensor]
) -> tuple[list[dict[str, Any]], NDArray[np.float64]]:
    """What the artefact does to each captioner; and the effects of artefact and lesion, ``[K, 3, 2]`` by picture."""
    preprocess, shown = asker.backbone.preprocess, len(pixels)
    bare = [pixels_of(without_lesion(scene, artefact, there), preprocess) for there in (False, True)]
    read = asker.encoded([*pixels, *bare])[1]
    assert read is not None
    rows, effects = [], []
    for strength, captioner in learners.items():
        ids = captioner.tokenizer.encode(CONCLUSION.format(CHEAT))
        [slot] = [one for one in slots_of(captioner, ids) if one.kind == DIAGNOSIS]
        odds = slot_log_odds(captioner, read, ids, slot).double().cpu().numpy()
        clean, dirty, skin, alone = odds[_CLEAN], odds[_DIRTY], odds[-2], odds[-1]
        effect, lesion = ((dirty - clean) + (alone - skin)) / 2, ((clean - skin) + (dirty - alone)) / 2
        away = float(odds[_MOVED] - clean) if shown > _MOVED else None
        written = captioner.generate(read[:shown], asker.decoding)
        says = [states(one.text, DIAGNOSIS, CHEAT, captioner.vocabulary) for one in written]
        rows.append(
            {
                "p": strength.p, "again": strength.again, "added": float(dirty - clean), "moved": away,
                "flips": bool(dirty > 0 >= clean), "effect": float(effect), "lesion_effect": float(lesion),
                "true_share": _part_of(abs(effect), abs(lesion)),
                "says_without": says[_CLEAN], "says_with": says[_DIRTY],
                "says_moved": says[_MOVED] if shown > _MOVED else None,
            }
        )  # fmt: skip
        effects.append([[0.0, clean - skin], [effect, lesion], [0.0 if away is None else away, lesion]])
    return rows, np.array(effects)


def _part_of(one: float, other: float) -> float | None:
    return float(one / (one + other)) if one + other > 0 else None


def _heats(
    asker: Asker, learners: Mapping[Strength, Captioner], pixels: Sequence[Tensor], methods: Sequence[Explainer]
) -> dict[str, tuple[list[Tensor], str]]:
    """Maps of each picture for all captioners, ``[K, h, w]``, or why a method has none."""
    target, found = conclusion_target(learners), {}
    banks = [PerturbationBank(asker.backbone, one[None].to(asker.device)) for one in pixels]
    for method in methods:
        maps, refused = [], ""
        for bank in banks:
            heats, why = explained_target(method, asker.backbone, target, bank)
            if len(heats) != len(learners):
                refused = why[0] if why else f"{method.name} has no map of the picture."
                break
            maps.append(torch.stack(heats))
        found[method.name] = (maps, refused)
    return found


def _controls(
    asker: Asker, pixels: Sequence[Tensor], masks: Sequence[Tensor], lesion: Tensor, effects: NDArray[np.float64],
    seed: int,
) -> dict[str, tuple[list[Tensor], str]]:  # fmt: skip
    """Maps that never saw a model, ``[1, h, w]`` for each picture, and those that are made of the true effects."""
    grid, preprocess = asker.backbone.grid, asker.backbone.preprocess
    found = {CONSTANT: [torch.ones(1, *grid) for _ in pixels]}
    for name, length in zip(FIELDS, LENGTHS, strict=True):
        found[name] = [gaussian_fields(1, grid, length, seed)] * len(pixels)
    blind = [blind_maps(one[None], preprocess, grid) for one in pixels]
    found |= {name: [one[row][None] for one in blind] for row, name in enumerate(BLIND)}
    places = [masks[0], *masks]  # without the artefact its place has no effect
    found[EFFECTS] = [
        torch.stack([effect_map(torch.stack([place, lesion & ~place]), of_one[number]) for of_one in effects])
        for number, place in enumerate(places)
    ]
    return {name: (maps, "") for name, maps in found.items()}


def _other_part(asker: Asker, scene: Scene, artefact: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Another part of the scene, drawn at random, apart from the artefact; and the lesion: bool ``[S, S]`` each."""
    drawn = DrawnScene.of(scene, asker.backbone.preprocess)
    others = [one for mask in drawn.masks if bool((one := mask & ~artefact).any())] or [drawn.lesion & ~artefact]
    return others[int(np.random.default_rng([seed, scene.seed]).integers(len(others)))], drawn.lesion
