"""Which photographs of other patients the ledgers of a run are measured on, and what that costs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from clip_xai.config.schemas import ExplainConfig
from clip_xai.data.images import number_of
from clip_xai.data.lexicon import read_diagnosis
from clip_xai.data.manifest import load_manifest
from clip_xai.data.record import Record
from clip_xai.errors import UserError
from clip_xai.explanations.ledger import LedgerSettings, ReadCaption, ledger_of
from clip_xai.explanations.other_patients import OtherPatients, drawn_statements, one_of_each_group, read_in_batches
from clip_xai.explanations.photographs import Photograph
from clip_xai.models.captioner import Caption, Captioner
from clip_xai.report.ledger import FEWEST, Ledger
from clip_xai.runs.judged import data_of
from clip_xai.runs.records import of_split
from clip_xai.text import counted
from clip_xai.xai.slots import DIAGNOSIS
from clip_xai.xai.targets.base import CAPTION, needing

log = logging.getLogger(__name__)
SAMPLES = 32  # captions drawn of a photograph that is explained: half of what an evaluation draws


@dataclass(frozen=True)
class LedgerPlan:
    """What the ledgers of a run are measured on.

    Attributes:
        records: Photographs of different patients, one more than are asked for: a caption's own is left out.
        settings: How.
    """

    records: tuple[Record, ...]
    settings: LedgerSettings

    def cost_in_words(self, photographs: int) -> str:
        """Say what the ledgers cost before they are taken."""
        samples = self.settings.samples
        return (
            f"ledger: {counted(len(self.records) * self.settings.of_others, 'caption')} drawn of "
            f"{counted(len(self.records), 'other photograph')} "
            f"and {samples} of each of {counted(photographs, 'photograph')}, some hundred readings of each caption "
            "(ledger=0 for none)"
        )

    @torch.no_grad()
    def others(self, captioner: Captioner) -> OtherPatients:
        """Read the photographs and draw their captions; those that cannot be read are left out by name."""
        pixels, read = [], []
        for record in self.records:
            try:
                pixels.append(captioner.backbone.preprocess.read(record.image))
                read.append(record)
            except UserError as error:
                log.warning("ledger: left out of the other patients: %s", error)
        seen = read_in_batches(captioner, pixels)
        numbers = [number_of(record.image) for record in read]
        stated = drawn_statements(captioner, seen, self.settings.of_others, self.settings.seed, numbers)
        diagnoses = [
            max(((count, name) for (kind, name), count in one.items() if kind == DIAGNOSIS), default=(0, None))[1]
            for one in stated
        ]
        groups = tuple(record.group for record in read)
        samples = (self.settings.of_others,) * len(read)
        return OtherPatients(seen, groups, tuple(stated), samples, tuple(diagnoses))

    def ledger(
        self, captioner: Captioner, read: Tensor, caption: Caption, photograph: Photograph, others: OtherPatients
    ) -> Ledger:
        """Take the ledger of one caption.

        Args:
            captioner: The captioner, in evaluation mode.
            read: What the mapper reads of the photograph, ``[1, D]`` or ``[1, S, W]``.
            caption: Its caption.
            photograph: What is known of it.
            others: As :meth:`others` returned them.
        """
        settings = self.settings
        number = number_of(photograph.path) if photograph.path.is_file() else 0
        # The same photograph may have come by another path, under no patient's name.
        group = next((one.group for one in self.records if number_of(one.image) == number), photograph.group)
        stated = drawn_statements(captioner, read, settings.samples, settings.seed, [number])[0]
        asked = ReadCaption(read, caption.token_ids, stated, settings.samples)
        everyone = others.but(group, settings.others)
        diagnosis = read_diagnosis(caption.text, captioner.vocabulary)
        return ledger_of(captioner, asked, everyone, everyone.but(group, settings.others, diagnosis), settings.seed)


def ledger_plan(
    config: ExplainConfig, place: Path | None, records: Sequence[Record], captioner: Captioner | None, retrieves: bool
) -> tuple[LedgerPlan | None, str]:
    """Return how ledgers are taken, or the sentence that says why there are none; neither where none is asked for.

    Args:
        config: The settings.
        place: The model's.
        records: Those that photographs are chosen from; none where files were named.
        captioner: The captioner, where there is one.
        retrieves: Whether retrieved captions stand before its captions.
    """
    asks_of_words = set(config.target.names) & set(needing(CAPTION))
    if not config.ledger or captioner is None or place is None or not asks_of_words:
        return None, ""
    if retrieves:
        return None, "No ledger of the caption's words: the retrieved captions before it differ between photographs"
    known = list(records) or records_at_hand(config, place)
    chosen = one_of_each_group(known, [record.group for record in known], config.ledger + 1)
    if len(chosen) <= FEWEST:
        return None, (
            f"No ledger of the caption's words: it needs photographs of {FEWEST} other patients, and here are "
            f"{max(0, len(chosen) - 1)}: give data=NAME (data.root=DIR) or another split="
        )
    return LedgerPlan(tuple(chosen), LedgerSettings(config.ledger, SAMPLES, seed=config.seed)), ""


def records_at_hand(config: ExplainConfig, place: Path) -> list[Record]:
    """Return the records of the data that are named or that a model was trained on, where their manifest is written.

    Args:
        config: The settings.
        place: The model's.
    """
    try:
        manifest = Path(data_of(config, place).output_dir) / "manifest.parquet"
        return of_split(load_manifest(manifest), config.split) if manifest.is_file() else []
    except UserError:
        return []
