"""Captions to be judged: the model's, and those of the baselines beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from clip_xai.data.images import number_of
from clip_xai.data.record import Record
from clip_xai.data.vocabulary import Vocabulary
from clip_xai.errors import UserError
from clip_xai.metrics.baselines import (
    majority_captions,
    nearest_training_rows,
    shuffled_rows,
    shuffled_within_sources,
)
from clip_xai.metrics.results import ACROSS, BLIND, NEAREST, SHUFFLED, SYSTEMS
from clip_xai.metrics.tokens import AUTO
from clip_xai.models.backbones.clip import with_texts
from clip_xai.models.captioner import Caption, Captioner
from clip_xai.models.settings import Decoding
from clip_xai.progress import track
from clip_xai.training.features import FeatureTable


def cut_for_clip(captioner: Captioner, captions: Sequence[str]) -> dict[str, str]:
    """Return a note where captions are longer than what the text tower reads of them for CLIPScore."""
    cut = sum(bool(with_texts(captioner.backbone).unread(caption)) for caption in captions)
    return {"captions of which CLIPScore reads the beginning alone": f"{cut} of {len(captions)}"} if cut else {}


def generate_captions(
    captioner: Captioner,
    records: Sequence[Record],
    reads: FeatureTable,
    decoding: Decoding,
    batch_size: int,
    prompts: Mapping[Path, str] | None = None,
) -> list[Caption]:
    """Return one caption per record, behind the prompt of its photograph where there are prompts."""
    device = next(captioner.parameters()).device
    captions: list[Caption] = []
    for start in track(range(0, len(records), batch_size), "Writing captions"):
        images = [record.image for record in records[start : start + batch_size]]
        read = reads.stack(images).to(device, torch.float32)
        # What is drawn when sampling depends on the photograph alone, not on the batch or on who is asked beside it.
        rows = [number_of(image) for image in images] if decoding.sample else None
        texts = None if prompts is None else [prompts[image] for image in images]
        captions += captioner.generate(read, decoding, texts, rows)
    return captions


def baseline_captions(
    captions: Sequence[str],
    records: Sequence[Record],
    train: Sequence[Record],
    features: Tensor,
    pooled: FeatureTable,
    seed: int,
    tokenizer: str = AUTO,
    vocabulary: Vocabulary | None = None,
) -> tuple[dict[str, list[str | None]], dict[str, str]]:
    """Return the captions of the baselines, and for each that these records do not admit, by its label, the reason."""
    found: dict[str, list[str | None]] = {}
    reasons: dict[str, str] = {}
    if train:
        majority = majority_captions(records, train, seed, tokenizer, vocabulary)
        found[BLIND] = [majority[record.source] for record in records]
    else:
        reasons[SYSTEMS[BLIND]] = reasons[SYSTEMS[NEAREST]] = "the manifest has no training record"
    try:
        if train:
            theirs = pooled.stack([record.image for record in train])
            found[NEAREST] = [train[row].caption for row in nearest_training_rows(features, theirs, records, train)]
    except UserError as error:
        reasons[SYSTEMS[NEAREST]] = str(error)
    groups, sources = [record.group for record in records], [record.source for record in records]
    rows, unshuffled = shuffled_within_sources(groups, sources, seed)
    if (rows >= 0).any():
        found[SHUFFLED] = [captions[row] if row >= 0 else None for row in rows]
        reasons |= {f"{SYSTEMS[SHUFFLED]} ({source})": reason for source, reason in unshuffled.items()}
    else:
        reasons[SYSTEMS[SHUFFLED]] = " ".join(f"{source}: {reason}" for source, reason in unshuffled.items())
    if len(set(sources)) > 1:
        try:
            found[ACROSS] = [captions[row] for row in shuffled_rows(groups, seed)]
        except UserError as error:
            reasons[SYSTEMS[ACROSS]] = str(error)
    return found, reasons


def empty_beams(captions: Sequence[str], decoding: Decoding) -> list[str]:
    """Return the sentence that says why beams leave captions empty, where they do.

    Without a length penalty beams look for the likeliest caption, whose log-probability falls with every word. While a
    captioner has learnt little, to end at once is likelier than any whole caption.
    """
    if decoding.beams == 1 or decoding.length_penalty != 0 or all(caption.strip() for caption in captions):
        return []
    return [
        "With generation.length_penalty=0 beams write the likeliest caption, and while a captioner has learnt little "
        "that is the empty one: train on, or see with generation=greedy what it writes word by word."
    ]
