"""Maps that follow the words, held against what parts do to captions that are written anew.

A part's effect on a word in captions written anew takes every way, also through earlier words; a word's own map shows
the direct way alone. For each method the composed map of :mod:`clip_xai.explanations.composed_maps` stands beside the
direct one, beside maps composed with equal and with permuted shares, and beside the map of the whole caption.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from clip_xai.explanations.causes.maps import masses
from clip_xai.explanations.causes.scene_targets import Asker, SceneQuestion
from clip_xai.explanations.causes.scenes import fresh_scenes
from clip_xai.explanations.composed_maps import composed_maps
from clip_xai.explanations.ledger import LedgerSettings, ReadCaption, ledger_of
from clip_xai.explanations.other_patients import OtherPatients, drawn_statements
from clip_xai.models.captioner import Captioner
from clip_xai.report.ledger import Ledger
from clip_xai.xai.explainer import Explainer, explain_apart
from clip_xai.xai.perturbation_bank import PerturbationBank
from clip_xai.xai.slots import slots_of
from clip_xai.xai.target import CaptionTarget

DIRECT, FOLLOWED, EQUAL, PERMUTED, WHOLE = "direct", "followed", "equal shares", "permuted shares", "whole caption"
VARIANTS = (DIRECT, FOLLOWED, EQUAL, PERMUTED, WHOLE)
_OTHERS = 900_001  # added to a run's seed: scenes of other patients are none of those that are judged
Followed = dict[tuple[str, str], NDArray[np.float64]]  # (method, variant) -> masses of T things on n parts, [T, n]


@dataclass(frozen=True)
class WordFollower:
    """What maps are composed with.

    Attributes:
        others: Scenes of other patients, with captions drawn of them.
        settings: How ledgers are taken.
    """

    others: OtherPatients
    settings: LedgerSettings

    @classmethod
    def of(cls, asker: Asker, settings: LedgerSettings) -> WordFollower:
        """Draw the scenes of other patients."""
        assert asker.captioner is not None
        drawn = fresh_scenes(settings.others, asker.backbone.preprocess, settings.seed + _OTHERS)
        _, read = asker.encoded([one.pixels for one in drawn])
        assert read is not None
        numbers = [one.scene.seed % 2**40 for one in drawn]
        stated = drawn_statements(asker.captioner, read, settings.of_others, settings.seed, numbers)
        names, samples = tuple(map(str, numbers)), (settings.of_others,) * len(read)
        return cls(OtherPatients(read, names, tuple(stated), samples, (None,) * len(read)), settings)

    def masses(
        self, question: SceneQuestion, methods: Sequence[Explainer], known: Mapping[str, Mapping[int, Tensor]]
    ) -> tuple[Ledger | None, Followed, list[str]]:
        """Return the ledger of a scene's caption, and how much of each variant's map lies on each part, ``[T, n]``.

        NaN for what is not a word of the caption. Methods that draw one map for every word are not there; those that
        are not defined for words of a caption, or fail, are not either, and the third is a sentence about each.

        Args:
            question: What is asked about the scene.
            methods: The explainers.
            known: Direct maps by method and the number of what is asked, ``[h, w]``; they are not made again.
        """
        captioner, caption = question.asker.captioner, question.caption
        asked = {number: one.slot for number, one in enumerate(question.asked) if one.slot is not None}
        if captioner is None or caption is None or not asked:
            return None, {}, []
        ledger = self.ledger(captioner, question)
        slots = slots_of(captioner, caption.token_ids)
        rows = {number: slots.index(slot) for number, slot in asked.items()}
        own = self.settings.seed + question.drawn.scene.seed
        found: Followed = {}
        left_out: list[str] = []
        behind = words_behind(ledger, rows.values())
        for method in methods:
            own_maps = {row: known[method.name][number] for number, row in rows.items()
                        if number in known.get(method.name, {})}  # fmt: skip
            made = [row for row in behind if row not in own_maps]
            maps, why = _direct_maps(method, question, captioner, [slots[row].tokens for row in made])
            left_out += why
            if maps is None:
                continue
            direct = maps.new_zeros(len(slots), *maps.shape[1:])  # of words that nothing asked follows from
            direct[made] = maps[:-1]
            for row, heat in own_maps.items():
                direct[row] = heat.to(direct)
            for variant, composed in variants(direct, maps[-1], ledger, own % 2**31).items():
                chosen = {number: composed[row] for number, row in rows.items()}
                found[method.name, variant] = masses(chosen, question.drawn.masks, len(question.asked))[:, :, 0]
        return ledger, found, left_out

    def ledger(self, captioner: Captioner, question: SceneQuestion) -> Ledger:
        """Take the ledger of a scene's caption."""
        assert question.caption is not None
        _, read = question.asker.encoded([question.drawn.pixels])
        assert read is not None
        number = question.drawn.scene.seed % 2**40
        stated = drawn_statements(captioner, read, self.settings.samples, self.settings.seed, [number])[0]
        caption = ReadCaption(read, question.caption.token_ids, stated, self.settings.samples)
        return ledger_of(captioner, caption, self.others, self.others.but("", 0), self.settings.seed)


def words_behind(ledger: Ledger, rows: Iterable[int]) -> list[int]:
    """Return some content words and all that they follow from, in their order: whose direct maps are composed.

    Args:
        ledger: The ledger of the caption.
        rows: Places of the words in it.
    """
    found: set[int] = set()
    left = [*rows]
    while left:
        row = left.pop()
        if row not in found:
            found.add(row)
            left += ledger.shares(row)
    return sorted(found)


def variants(direct: Tensor, whole: Tensor, ledger: Ledger, seed: int) -> dict[str, Tensor]:
    """Return the maps of T content words in every way, each ``[T, h, w]``.

    Args:
        direct: Their direct maps.
        whole: The map of the whole caption, ``[h, w]``.
        ledger: The ledger of the caption.
        seed: Of the permutation of shares.
    """
    lot = np.random.default_rng(seed)
    shares = [ledger.shares(t) for t in range(len(ledger.words))]
    equal = [dict.fromkeys(one, 1 / len(one)) if one else {} for one in shares]
    permuted = [dict(zip(one, lot.permutation(list(one.values())).tolist(), strict=True)) for one in shares]
    return {
        DIRECT: direct,
        FOLLOWED: composed_maps(direct, ledger),
        EQUAL: composed_maps(direct, ledger, equal),
        PERMUTED: composed_maps(direct, ledger, permuted),
        WHOLE: whole.expand_as(direct),
    }


def _direct_maps(
    method: Explainer, question: SceneQuestion, captioner: Captioner, parts: Sequence[Sequence[int]]
) -> tuple[Tensor | None, list[str]]:
    """The maps of some words and, last, of the whole caption; none where a method does not tell words apart, or why."""
    assert question.caption is not None
    ids = question.caption.token_ids
    labels = [str(number) for number in range(len(parts) + 1)]
    target = CaptionTarget(captioner, ids, [*parts, range(len(ids))], labels)
    backbone = question.asker.backbone
    reason = method.refusal(backbone, target)
    if reason is not None:
        return None, [f"{method.name} {reason}."]
    pixels = question.drawn.pixels[None].to(question.asker.device)
    _, found, failed = explain_apart([method], backbone, pixels, target, PerturbationBank(backbone, pixels))
    known = [one for one in found if one.kind == "image" and one.text_dependent and len(one.labels) == len(labels)]
    return (known[0].values[0].double().cpu().nan_to_num() if known else None), failed
