"""Words that compete: maps of several words over one picture, held against the place that each word rests on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from clip_xai.explanations.blind_maps import blind_maps
from clip_xai.explanations.causes.games import Coalitions
from clip_xai.explanations.causes.maps import (
    BLIND,
    CONSTANT,
    CONTROL,
    EFFECTS,
    FIELDS,
    effect_map,
    explained_target,
)
from clip_xai.explanations.causes.one_scene import BLIND as NO_WEIGHTS
from clip_xai.explanations.causes.one_scene import RANDOM, TRAINED
from clip_xai.explanations.causes.scene_targets import CONTRAST, Asker
from clip_xai.explanations.causes.several import LESIONS, SeveralPicture, choice
from clip_xai.metrics.intervals import Interval, mean_interval
from clip_xai.metrics.localisation import lay_over
from clip_xai.models.backbones.base import VisionBackbone
from clip_xai.xai.explainer import Explainer
from clip_xai.xai.perturbation_bank import PerturbationBank
from clip_xai.xai.random_fields import LENGTHS, gaussian_fields
from clip_xai.xai.slots import Slot, slot_log_odds
from clip_xai.xai.target import CaptionTarget, ContrastTarget, Target
from clip_xai.xai.words import spans_of_ids, words_of

COLOUR_WORD = "colour word"
UNSIGNED_FIELD = f"{CONTROL}random field without negative values"
RESTS = 0.1  # nats: what a word's own place must bring to it, and more than any other place

Maps = dict[str, list[Tensor]]


def choices(
    asker: Asker, picture: SeveralPicture, methods: Sequence[Explainer], twin: VisionBackbone | None, seed: int = 0
) -> list[dict[str, Any]]:
    """Score the maps of all words of one picture.

    Args:
        asker: The model.
        picture: Several lesions, or a mosaic.
        methods: What explains it.
        twin: The tower at random weights; None to leave it out.
        seed: Seed of random maps.

    Returns:
        A row for each word, method and weights.
    """
    coalitions = Coalitions.of(len(picture.places))
    pooled, read = asker.encoded([picture.draw(present) for present in coalitions.present])
    rows: list[dict[str, Any]] = []
    for words, target, values in _questions(asker, picture, pooled, read):
        effects = coalitions.shapley(values)
        maps = {
            (name, TRAINED): own for name, own in _explained(asker, picture, methods, target, asker.backbone).items()
        }
        if twin is not None:
            random = _explained(asker, picture, methods, target, twin)
            maps |= {(name, RANDOM): own for name, own in random.items()}
        maps |= {(name, NO_WEIGHTS): own for name, own in _controls(asker, picture, effects, seed).items()}
        for (name, weights), own in maps.items():
            signed = any(bool((one < 0).any()) for one in own)
            for place, heat in enumerate(own):
                rows.append(
                    {"picture": picture.seed, "kind": picture.kind, "words": words, "places": len(picture.places),
                     "place": place, "label": target.labels[place], "method": name, "weights": weights,
                     "rests_on_own": _rests(effects[:, place], place), "effect": float(effects[place, place])}
                    | vars(choice(_masses(heat, picture.masks), _areas(picture.masks), place, signed))
                )  # fmt: skip
    return rows


def _questions(
    asker: Asker, picture: SeveralPicture, pooled: Tensor, read: Tensor | None
) -> list[tuple[str, Target, NDArray[np.float64]]]:
    """What is asked, with the score of every drawing ``[C, k]``: a contrast of all diagnoses, and colours in a text."""
    found: list[tuple[str, Target, NDArray[np.float64]]] = []
    if asker.texts is not None:
        rows = [asker.diagnoses.index(name) for name in picture.diagnoses]
        texts = asker.texts.text_embeddings[rows]
        contrast = ContrastTarget(texts, picture.diagnoses, "logit", asker.texts.logit_scale)
        found.append((CONTRAST, contrast, contrast.score(pooled).double().cpu().numpy()))
    if asker.captioner is not None and read is not None and picture.kind == LESIONS:
        text, spans = picture.caption()
        ids = asker.captioner.tokenizer.encode(text)
        if len(ids) <= asker.captioner.room():
            words = words_of(*spans_of_ids(asker.captioner.tokenizer, ids))
            parts = [
                tuple(token for word in words if word.start < end and word.end > start for token in word.tokens)
                for start, end in spans
            ]
            colours = [place.scene.colour for place in picture.places]
            target = CaptionTarget(asker.captioner, ids, parts, colours)
            slots = [
                Slot("colour", colour, *span, part) for colour, span, part in zip(colours, spans, parts, strict=True)
            ]
            scores = [slot_log_odds(asker.captioner, read, ids, slot).numpy() for slot in slots]
            found.append((COLOUR_WORD, target, np.stack(scores, axis=1)))
    return found


def _explained(
    asker: Asker, picture: SeveralPicture, methods: Sequence[Explainer], target: Target, backbone: VisionBackbone
) -> Maps:
    bank = PerturbationBank(backbone, picture.draw()[None].to(asker.device))
    maps: Maps = {}
    for method in methods:
        heats = explained_target(method, backbone, target, bank)[0]
        if heats:
            maps[method.name] = heats
    return maps


def _controls(asker: Asker, picture: SeveralPicture, effects: NDArray[np.float64], seed: int) -> Maps:
    grid, count = asker.backbone.grid, effects.shape[1]
    own = (seed + picture.seed) % 2**31
    fields = {name: gaussian_fields(count, grid, length, own) for name, length in zip(FIELDS, LENGTHS, strict=True)}
    maps = {EFFECTS: [effect_map(picture.masks, effects[:, place]) for place in range(count)]}
    maps |= {CONSTANT: [torch.ones(grid)] * count} | {name: list(one) for name, one in fields.items()}
    maps[UNSIGNED_FIELD] = [one.abs() for one in fields[FIELDS[-1]]]
    blind = blind_maps(picture.draw()[None], asker.backbone.preprocess, grid)
    return maps | {name: [one] * count for name, one in zip(BLIND, blind, strict=True)}


def _masses(heat: Tensor, masks: Tensor) -> NDArray[np.float64]:
    """Positive and negative mass of a map on each place, ``[k, 2]``, both at least 0."""
    laid = lay_over(heat[None].float(), int(masks.shape[-1]))[0].double()
    both = torch.stack([laid.clamp(min=0), -laid.clamp(max=0)]).flatten(1)
    return (masks.flatten(1).double() @ both.T).numpy()


def _areas(masks: Tensor) -> NDArray[np.float64]:
    return masks.flatten(1).sum(dim=1).double().numpy()


def _rests(effects: NDArray[np.float64], place: int) -> bool:
    """Whether a word rests on its own place, more than on any other."""
    return bool(effects[place] >= RESTS and effects.argmax() == place)


@dataclass(frozen=True)
class Chosen:
    """How one method's maps of competing words choose their own places.

    Attributes:
        kind: ``several lesions`` or ``mosaic``.
        words: ``contrast`` or ``colour word``.
        method: Its name and the weights of its maps.
        own: Share of the positive mass on the own place, with the interval over pictures.
        own_chance: What a map that knows nothing has.
        signed: Share of all mass with the right sign.
        signed_chance: Likewise.
        lead: ``own`` above the same at random weights, paired by word; None without a twin.
        words_in_all: How many words there are; ``own.n`` of them rest on their own place and count.
    """

    kind: str
    words: str
    method: tuple[str, str]
    own: Interval
    own_chance: float
    signed: Interval
    signed_chance: float
    lead: Interval | None
    words_in_all: int


def chosen(table: pd.DataFrame, seed: int = 0) -> list[Chosen]:
    """Summarise the words that truly rest on their own place, method by method, the best of each kind first.

    Args:
        table: As :func:`choice_table` gives it.
        seed: Seed of the intervals.
    """
    found = []
    for (kind, words), asked in table.groupby(["kind", "words"], sort=False):
        known = asked[asked["rests_on_own"].astype(bool) & asked["own"].notna() & asked["signed"].notna()]
        in_all = len(asked[["picture", "place"]].drop_duplicates())
        rows = []
        for (name, weights), own in known.groupby(["method", "weights"], sort=False):
            method = (str(name), str(weights))
            groups = own["picture"].astype(str).tolist()
            twin = known[(known["method"] == method[0]) & (known["weights"] == RANDOM)]
            both = own.merge(twin, on=["picture", "place"]) if method[1] == TRAINED else own.iloc[:0]
            lead = None
            if len(both):
                apart = (both["own_x"] - both["own_y"]).to_numpy()
                lead = mean_interval(apart, both["picture"].astype(str).tolist(), seed=seed, span=(-1.0, 1.0))
            shares, signed = (mean_interval(own[key], groups, seed=seed, span=(0.0, 1.0)) for key in ("own", "signed"))
            chances = (float(own["own_chance"].mean()), float(own["signed_chance"].mean()))
            rows.append(Chosen(str(kind), str(words), method, shares, chances[0], signed, chances[1], lead, in_all))
        found += sorted(rows, key=lambda one: -one.own.value)
    return found


def choice_table(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Return the rows as a table; with its columns also where there is none."""
    columns = ["picture", "kind", "words", "places", "place", "label", "method", "weights", "rests_on_own", "effect",
               "own", "own_chance", "signed", "signed_chance"]  # fmt: skip
    return pd.DataFrame(list(rows), columns=columns)
