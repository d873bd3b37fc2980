from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from clip_xai.data.record import Record
from clip_xai.errors import UserError
from clip_xai.training.data import CaptionData, EpochSampler
from clip_xai.training.features import FeatureCache

from .conftest import small_captioner


def caption_data(records: list[Record], tmp_path: Path, **settings: object) -> CaptionData:
    captioner = small_captioner()
    features = FeatureCache(tmp_path / "cache", captioner.backbone).table([r.image for r in records], captioner.reads)
    arguments = {"batch_size": 3, "max_tokens": 40, "seed": 0, **settings}
    return CaptionData(captioner, features, records, records, **arguments)  # type: ignore[arg-type]


def test_caption_and_end_are_supervised_and_padding_is_not(records: list[Record], tmp_path: Path) -> None:
    data = caption_data(records, tmp_path)
    tokenizer = small_captioner().tokenizer
    batches = list(data.val_dataloader())
    rows = torch.cat([batch["tokens"] for batch in batches])
    assert len({batch["tokens"].shape[1] for batch in batches}) == 1
    for record, row in zip(records, rows, strict=True):
        wanted = [*tokenizer.encode(record.references[0]), tokenizer.eos_id]
        assert row.tolist() == wanted + [-100] * (len(row) - len(wanted))


def test_training_draws_a_reference_each_epoch_and_the_draw_depends_on_seed_and_epoch_alone(
    records: list[Record], tmp_path: Path
) -> None:
    def epoch(data: CaptionData, number: int) -> dict[int, str]:
        data.sampler.set_epoch(number)
        tokenizer = small_captioner().tokenizer
        batches = list(data.train_dataloader())
        pairs = [(int(i), t) for batch in batches for i, t in zip(batch["index"], batch["tokens"], strict=True)]
        return {index: tokenizer.decode([int(token) for token in tokens if token >= 0]) for index, tokens in pairs}

    data = caption_data(records, tmp_path)
    epochs = [epoch(data, number) for number in range(24)]
    for index, record in enumerate(records):
        assert {seen[index] for seen in epochs} == set(record.references)
    again = caption_data(records, tmp_path)
    assert list(epoch(again, 5).items()) == list(epochs[5].items())
    assert list(epochs[5]) != list(epochs[6])


def test_a_stage_meets_its_sources_whole_and_a_share_of_the_others(records: list[Record], tmp_path: Path) -> None:
    data = caption_data(records, tmp_path, sources=["skincap"], replay=0.5)
    assert {record.source for record in data.val_set.records} == {"skincap"}
    met: Counter[int] = Counter()
    for number in range(6):
        data.sampler.set_epoch(number)
        indices = [index for _, index in data.sampler]
        assert len(indices) == len(set(indices)) == len(data.sampler) == 9
        assert set(indices) >= set(range(6))
        met.update(indices)
    assert set(met) == set(range(12))  # every other record is met some time


def test_the_sampler_draws_the_same_share_every_epoch() -> None:
    sampler = EpochSampler(range(4), range(4, 104), 0.25, seed=3)
    assert len(list(sampler)) == len(sampler) == 29
    assert all(epoch == 0 for epoch, _ in sampler)
    orders = set()
    for epoch in range(5):
        sampler.set_epoch(epoch)
        orders.add(tuple(np.array([index for _, index in sampler])))
    assert len(orders) == 5


def test_unreadable_photographs_take_no_part(records: list[Record], tmp_path: Path) -> None:
    records[0].image.write_bytes(b"nothing")
    data = caption_data(records, tmp_path)
    assert len(data.val_set) == len(data.sampler) == len(records) - 1


def test_a_source_without_photographs_is_said(records: list[Record], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no training photograph of ddi"):
        caption_data(records, tmp_path, sources=["ddi"])


def test_long_captions_are_cut_to_the_limit(records: list[Record], tmp_path: Path) -> None:
    data = caption_data(records, tmp_path, max_tokens=3)
    assert next(iter(data.val_dataloader()))["tokens"].shape == (3, 3)
