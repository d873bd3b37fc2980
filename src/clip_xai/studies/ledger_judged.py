"""Captions of scenes with their ledgers, and what other values in the place of their words do."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from clip_xai.explanations.ledger import LedgerSettings, ReadCaption, ledger_of
from clip_xai.explanations.other_patients import OtherPatients, Stated, drawn_statements
from clip_xai.files import write_json, write_text
from clip_xai.models.captioner import Caption, Captioner
from clip_xai.models.settings import Decoding
from clip_xai.progress import track
from clip_xai.report.ledger import Ledger, LedgerWord, ledger_from_plain
from clip_xai.studies.ledger_captioners import Pictures, accuracy
from clip_xai.xai.slots import DIAGNOSIS, rivals_of, slots_of
from clip_xai.xai.word_swaps import swapped, word_log_probs

RIVALS, SWAPPED = 4, 100  # values that are tried in the place of a word, and captions whose words are swapped


@dataclass(frozen=True)
class Judged:
    """A captioner's captions of scenes with their ledgers.

    Attributes:
        captions: One a scene, drawn at temperature 1.
        ledgers: Their ledgers.
        words: One row a content word: ``scene``, ``kind``, ``value``, ``place``, D, C, T, R, p, share, base, entropy,
            ``carrier`` (place of the credited word or -1), ``drawn`` (whether scenes draw such a kind), ``right``.
        stated: What the captions drawn of each scene state.
        accuracy: Share of scenes whose diagnosis the likeliest caption states.
    """

    captions: list[Caption]
    ledgers: list[Ledger]
    words: pd.DataFrame
    stated: list[Stated]
    accuracy: float


def judge(captioner: Captioner, tested: Pictures, settings: LedgerSettings, seed: int, kept: Path) -> Judged:
    """Write one caption of each scene at temperature 1 and take its ledger against the other scenes.

    Args:
        captioner: The captioner, in evaluation mode.
        tested: The scenes.
        settings: How ledgers are taken.
        seed: Seed of all draws.
        kept: A folder that keeps what was found of each scene; what is there is not found again.
    """
    kept.mkdir(parents=True, exist_ok=True)
    vocabulary = captioner.vocabulary
    count = len(tested.scenes)
    likeliest = [one.text for one in captioner.generate(tested.read, Decoding())]
    captions = captioner.generate(tested.read, Decoding(sample=True, seed=seed + 1), rows=list(range(count)))

    def drawn(row: int) -> Stated:
        place = kept / f"stated_{row:04d}.json"
        if not place.is_file():
            found = drawn_statements(captioner, tested.read[row : row + 1], settings.samples, seed, [row])[0]
            write_json(place, [[*pair, times] for pair, times in found.items()])
        return Counter({(kind, value): times for kind, value, times in json.loads(place.read_text("utf-8"))})

    size = min(settings.others + 1, count)
    stated = [drawn(row) for row in track(range(size), "Captions of other patients")]
    names, samples = tuple(map(str, range(size))), (settings.samples,) * size
    pool = OtherPatients(tested.read[:size], names, tuple(stated[:size]), samples, (None,) * size)
    ledgers, rows = [], []
    for row in track(range(count), "Ledgers"):
        if row >= size:
            stated.append(drawn(row))
        place = kept / f"ledger_{row:04d}.json"
        found = ledger_from_plain(json.loads(place.read_text("utf-8"))) if place.is_file() else None
        if found is None:
            asked = ReadCaption(tested.read[row : row + 1], captions[row].token_ids, stated[row], settings.samples)
            found = ledger_of(captioner, asked, pool.but(str(row), settings.others), pool.but("", 0), seed)
            write_text(place, json.dumps(asdict(found)))
        ledgers.append(found)
        rows += [_row(row, place, word, found, tested, captioner) for place, word in enumerate(found.words)]
    return Judged(captions, ledgers, pd.DataFrame(rows), stated, accuracy(likeliest, tested, vocabulary))


def _row(
    scene: int, place: int, word: LedgerWord, ledger: Ledger, tested: Pictures, captioner: Captioner
) -> dict[str, object]:
    before = [one.text for one in ledger.words[:place]]
    direct, carried, total, remainder = word.columns.values
    return {
        "scene": scene,
        "place": place,
        "kind": word.kind,
        "value": word.value,
        "p": word.p,
        "share": word.share,
        "base": word.columns.base,
        "entropy": word.entropy,
        "D": direct,
        "C": carried,
        "T": total,
        "R": remainder,
        "drawn": tested.truth(scene, word.kind) is not None,
        "right": tested.right(scene, word.kind, word.value, captioner.vocabulary),
        "carrier": -1 if word.carrier is None else before.index(word.carrier),
    }


def moved_by_swaps(captioner: Captioner, tested: Pictures, judged: Judged, seed: int) -> pd.DataFrame:
    """Put other values in the place of words before the diagnosis, and look how far it moves.

    Returns:
        A row for each word before a diagnosis that another word carries: ``scene``, ``kind``, ``credited``, ``change``
        of the diagnosis' log p (mean over rivals, positive where they speak against it), ``lost``, the share of rivals
        behind which the diagnosis is less likely than all else together.
    """
    lot = np.random.default_rng(seed)
    rows: list[dict[str, object]] = []
    for row, ledger in enumerate(track(judged.ledgers[:SWAPPED], "Words swapped")):
        at = next((place for place, word in enumerate(ledger.words) if word.kind == DIAGNOSIS), None)
        credited = None if at is None else judged.words.query("scene == @row and place == @at")["carrier"].item()
        if at is None or credited is None or credited < 0:
            continue
        ids = list(judged.captions[row].token_ids)
        slots = slots_of(captioner, ids)
        captions, places = [ids], [-1]
        for place, slot in enumerate(slots[:at]):
            values = list(rivals_of(slot.kind, slot.value, captioner.vocabulary))[1:]
            chosen = lot.choice(values, size=min(RIVALS, len(values)), replace=False)
            captions += [swapped(captioner, ids, slot, str(value)) for value in chosen]
            places += [place] * len(chosen)
        read = tested.read[row : row + 1].expand(len(captions), *tested.read.shape[1:])
        found = word_log_probs(captioner, read, captions)
        behind = [token - len(ids) for token in slots[at].tokens]  # from the end, which stays as it is
        log_p = np.array(
            [float(one[: len(caption)][behind].sum()) for one, caption in zip(found, captions, strict=True)]
        )
        for place, slot in enumerate(slots[:at]):
            there = log_p[np.array(places) == place]
            rows.append(
                {"scene": row, "kind": slot.kind, "credited": place == credited,
                 "change": float(log_p[0] - there.mean()), "lost": float((there < np.log(0.5)).mean())}
            )  # fmt: skip
    return pd.DataFrame(rows, columns=["scene", "kind", "credited", "change", "lost"]).astype({"credited": bool})
