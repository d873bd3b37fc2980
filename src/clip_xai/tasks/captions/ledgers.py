"""Taking the ledgers of an evaluation, after what they cost was said."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

import torch

from clip_xai.data.images import number_of
from clip_xai.data.lexicon import read_diagnosis
from clip_xai.data.record import Record
from clip_xai.explanations.ledger import LedgerSettings, ReadCaption, ledger_of, slot_log_probs
from clip_xai.explanations.other_patients import OtherPatients, Stated, drawn_statements, one_of_each_group
from clip_xai.explanations.run_ledger import RunLedger
from clip_xai.models.captioner import Caption, Captioner
from clip_xai.models.retrieval import Retrieval
from clip_xai.progress import track
from clip_xai.report.ledger import FEWEST, Ledger
from clip_xai.runs.records import evenly
from clip_xai.text import counted
from clip_xai.training.features import FeatureTable
from clip_xai.xai.slots import slots_of
from clip_xai.xai.word_swaps import count_swaps

log = logging.getLogger(__name__)


def why_no_ledger(photographs: int, records: Sequence[Record], retrieval: Retrieval | None) -> str:
    """Return why an evaluation has no ledger; empty where it has one.

    Args:
        photographs: How many were asked for.
        records: What is judged.
        retrieval: Makes prompts of photographs, where the captioner reads any.
    """
    if not photographs:
        return "ledger=0"
    if retrieval is not None:
        return "retrieved captions stand before each caption, so that words before it differ between photographs"
    patients = len({record.group for record in records})
    if patients <= FEWEST:
        return f"{counted(patients, 'patient')}, and a caption is compared with photographs of {FEWEST} others at least"
    return ""


def run_ledger(
    captioner: Captioner,
    records: Sequence[Record],
    captions: Sequence[Caption],
    reads: FeatureTable,
    count: int,
    settings: LedgerSettings,
) -> RunLedger:
    """Take the ledger of some captions; what it costs is said first.

    Args:
        captioner: The captioner, in evaluation mode, on the device it shall run on.
        records: All records that are judged.
        captions: Their captions.
        reads: What the mapper reads of them.
        count: How many captions have a ledger, at equal steps through the records.
        settings: How.
    """
    rows = list(range(len(records)))
    chosen = evenly(rows, count)
    groups = [record.group for record in records]
    stated = [read_diagnosis(caption.text, captioner.vocabulary) for caption in captions]
    # One patient more than are asked for: a caption's own is left out. Photographs that are drawn anyway come first.
    first = [*chosen, *(row for row in evenly(rows, None) if row not in set(chosen))]
    common = one_of_each_group(first, [groups[row] for row in first], len(first))[: settings.others + 1]
    alike = {
        diagnosis: _of_diagnosis(diagnosis, first, groups, stated, settings.others + 1)
        for diagnosis in dict.fromkeys(stated[row] for row in chosen)
        if diagnosis is not None
    }
    drawn_of = list(dict.fromkeys([*chosen, *common, *(row for part in alike.values() for row in part)]))
    device = next(captioner.parameters()).device

    def read(some: Sequence[int]) -> torch.Tensor:
        return reads.stack([records[row].image for row in some]).to(device, torch.float32)

    samples = {row: settings.of_others for row in drawn_of} | dict.fromkeys(chosen, settings.samples)
    said = _Cost(captioner, [captions[row] for row in chosen], settings, len(drawn_of), sum(samples.values()))
    log.info("%s", said.words)
    known: dict[int, Stated] = {}
    for row in track(drawn_of, "Captions drawn for the ledger"):
        started = time.perf_counter()
        numbers = [number_of(records[row].image)]
        known[row] = drawn_statements(captioner, read([row]), samples[row], settings.seed, numbers)[0]
        if len(known) == 1:
            log.info("%s", said.seconds(time.perf_counter() - started, read([row])))

    def others(some: Sequence[int]) -> OtherPatients:
        return OtherPatients(
            read(some), tuple(groups[row] for row in some), tuple(known[row] for row in some),
            tuple(samples[row] for row in some), tuple(stated[row] for row in some),
        )  # fmt: skip

    everyone = others(common)
    ledgers: dict[int, Ledger] = {}
    for row in track(chosen, "Ledgers"):
        asked = ReadCaption(read([row]), captions[row].token_ids, known[row], settings.samples)
        diagnosis = stated[row]
        of_diagnosis = everyone if diagnosis is None else others(alike[diagnosis])
        ledgers[row] = ledger_of(
            captioner,
            asked,
            everyone.but(groups[row], settings.others),
            of_diagnosis.but(groups[row], settings.others, diagnosis),
            settings.seed,
        )
    return RunLedger(ledgers, {row: groups[row] for row in chosen}, captioner.vocabulary.groups)


def _of_diagnosis(
    diagnosis: str, rows: Sequence[int], groups: Sequence[str], stated: Sequence[str | None], most: int
) -> list[int]:
    """Rows of different patients whose captions state a diagnosis."""
    same = [row for row in rows if stated[row] == diagnosis]
    return one_of_each_group(same, [groups[row] for row in same], len(same))[:most]


class _Cost:
    """What a ledger costs, said before it is taken."""

    def __init__(
        self, captioner: Captioner, captions: Sequence[Caption], settings: LedgerSettings, photographs: int, drawn: int
    ) -> None:
        self.captioner, self.captions, self.settings = captioner, captions, settings
        self.photographs, self.drawn = photographs, drawn
        self.readings = len(captions) * (1 + 2 * settings.others) + sum(
            count_swaps(captioner, slots_of(captioner, caption.token_ids)) for caption in captions
        )

    @property
    def words(self) -> str:
        """Passes of the language model."""
        return (
            f"ledger of {counted(len(self.captions), 'caption')}: "
            f"{counted(self.drawn, 'caption')} drawn anew of "
            f"{counted(self.photographs, 'photograph')} and at most {counted(self.readings, 'reading')} of a caption "
            "(ledger=0 for none)"
        )

    def seconds(self, one: float, read: torch.Tensor) -> str:
        """Seconds for all of it, from those that the captions of one photograph took and a timed reading."""
        rows = self.settings.others
        longest = max(self.captions, key=lambda caption: len(caption.token_ids))
        slots = slots_of(self.captioner, longest.token_ids)
        started = time.perf_counter()
        if slots:
            slot_log_probs(self.captioner, read.expand(rows, *read.shape[1:]), longest.token_ids, slots)
        reading = (time.perf_counter() - started) / rows
        each = one / self.settings.samples
        return f"ledger: about {each * self.drawn + reading * self.readings:.0f} s"
