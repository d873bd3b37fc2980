from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clip_xai.data.record import Record
from clip_xai.errors import UserError
from clip_xai.tasks.captions.data import CaptionData, InOrder, Steps
from clip_xai.training.features import FeatureCache
from clip_xai.training.samplers import EpochSampler
from tests.support.small_captioner import small_captioner


def caption_data(records: list[Record], tmp_path: Path, **settings: object) -> CaptionData:
    captioner = small_captioner()
    features = FeatureCache(tmp_path / "cache", captioner.backbone).table([r.image for r in records], captioner.reads)
    arguments = {"batch_size": 3, "max_tokens": 40, "seed": 0, **settings}
    return CaptionData(captioner, features, records, records, **arguments)  # type: ignore[arg-type]


def test_caption_and_end_are_supervised_and_padding_is_not(records: list[Record], tmp_path: Path) -> None:
    data = caption_data(records, tmp_path)
    tokenizer = small_captioner().tokenizer
    seen = {}
    for batch in data.val_dataloader()[0]:
        seen |= {int(row): tokens.tolist() for row, tokens in zip(batch["row"], batch["tokens"], strict=True)}
    assert sorted(seen) == list(range(len(records)))
    for index, tokens in seen.items():
        wanted = [*tokenizer.encode(records[index].references[0]), tokenizer.eos_id]
        assert tokens == wanted + [-100] * (len(tokens) - len(wanted))


def test_padding_is_supervised_where_the_original_is_followed(records: list[Record], tmp_path: Path) -> None:
    data = caption_data(records, tmp_path, supervise_padding=True)
    tokenizer = small_captioner().tokenizer
    for batch in data.train_dataloader():
        assert int(batch["total"]) == batch["tokens"].numel()
        for row, tokens in zip(batch["row"], batch["tokens"].tolist(), strict=True):
            texts = [tokenizer.encode(text) for text in records[int(row)].references]
            assert tokens in [text + [tokenizer.eos_id] * (len(tokens) - len(text)) for text in texts]
    assert any((batch["tokens"] == -100).any() for batch in data.val_dataloader()[0])


def test_training_draws_a_reference_each_epoch_and_the_draw_depends_on_seed_and_epoch_alone(
    records: list[Record], tmp_path: Path
) -> None:
    def epoch(data: CaptionData, number: int) -> dict[int, str]:
        data.sampler.set_epoch(number)
        tokenizer = small_captioner().tokenizer
        batches = list(data.train_dataloader())
        pairs = [(int(i), t) for batch in batches for i, t in zip(batch["row"], batch["tokens"], strict=True)]
        return {index: tokenizer.decode([int(token) for token in tokens if token >= 0]) for index, tokens in pairs}

    data = caption_data(records, tmp_path)
    epochs = [epoch(data, number) for number in range(24)]
    for index, record in enumerate(records):
        assert {seen[index] for seen in epochs} == set(record.references)
    again = caption_data(records, tmp_path)
    assert list(epoch(again, 5).items()) == list(epochs[5].items())
    assert list(epochs[5]) != list(epochs[6])
    first = caption_data(records, tmp_path, draw_references=False)
    assert epoch(first, 3) == {index: record.references[0] for index, record in enumerate(records)}


@pytest.mark.parametrize("bucket", [None, 2])
def test_devices_and_accumulated_batches_share_the_steps_of_one_device(
    records: list[Record], tmp_path: Path, bucket: int | None
) -> None:
    def steps(accumulate: int, devices: int) -> list[list[Any]]:
        data = caption_data(records, tmp_path, batch_size=5)
        data.sampler.set_epoch(3)
        shares = {"bucket": bucket, "accumulate": accumulate, "devices": devices}
        cut = [list(Steps(data.train_set, data.sampler, 5, rank=rank, **shares)) for rank in range(devices)]  # type: ignore[arg-type]
        assert {len(parts) for parts in cut} == {3 * accumulate}
        return [[parts[step * accumulate + part] for parts in cut for part in range(accumulate)] for step in range(3)]

    def together(step: list[Any]) -> list[int]:
        return sorted(place.row for part in step for place in part)

    whole, shared = steps(1, 1), steps(2, 2)
    data = caption_data(records, tmp_path)
    assert sorted(row for step in whole for row in together(step)) == list(range(12))
    for one, many in zip(whole, shared, strict=True):
        assert together(one) == together(many)
        lengths = [len(data.train_set.caption(3, row)) for row in together(one)]
        places = [place for part in (*one, *many) for place in part]
        assert {place.total for place in places} == {sum(lengths)}
        [padded] = {place.length for place in places}
        assert padded >= max(lengths)
        assert {place.parts for part in many for place in part} == {4}


def test_captions_of_like_length_share_a_step_and_every_record_is_met_once(tmp_path: Path) -> None:
    class Lengths:
        padding = -100
        tokens = tuple([torch.zeros(length)] for length in range(1, 201))

        def caption(self, epoch: int, index: int) -> torch.Tensor:
            return self.tokens[index][0]

    sampler = EpochSampler(range(200), [], 0.0, seed=0)
    steps = list(Steps(Lengths(), sampler, 10, bucket=8))  # type: ignore[arg-type]
    assert sorted(place.row for step in steps for place in step) == list(range(200))
    spread = [max(p.row for p in step) - min(p.row for p in step) for step in steps]
    assert max(spread) == 9  # one pool: sorted through
    assert [step[0].length for step in steps] != sorted(step[0].length for step in steps)
    assert all(step[0].length % 8 == 0 and step[0].length - max(p.row for p in step) - 1 < 8 for step in steps)


@pytest.mark.parametrize(("count", "batch_size", "parts"), [(2000, 8, 8), (1999, 16, 8), (2611, 8, 4), (333, 10, 9)])
def test_buckets_leave_no_part_empty_and_no_step_too_large(count: int, batch_size: int, parts: int) -> None:
    class Lengths:
        padding = -100
        tokens = tuple([torch.zeros(length)] for length in np.random.default_rng(0).integers(5, 90, count))

        def caption(self, epoch: int, index: int) -> torch.Tensor:
            return self.tokens[index][0]

    def cut(rank: int) -> list[list[Any]]:
        sampler = EpochSampler(range(count), [], 0.0, seed=1)
        return list(Steps(Lengths(), sampler, batch_size, bucket=8, devices=parts, rank=rank))  # type: ignore[arg-type]

    steps = list(zip(*(cut(rank) for rank in range(parts)), strict=True))
    sizes = [sum(map(len, step)) for step in steps]
    assert len(steps) == -(-count // batch_size) and min(len(part) for step in steps for part in step) >= 1
    assert max(sizes) <= batch_size and max(sizes) - min(sizes) <= 1
    assert sorted(place.row for step in steps for part in step for place in part) == list(range(count))
    drawn, sorted_steps = (
        np.mean([np.ptp([len(Lengths.tokens[row][0]) for row in step]) for step in cut_steps])
        for cut_steps in (
            np.array_split(np.arange(count), len(steps)),
            [[place.row for part in step for place in part] for step in steps],
        )
    )
    assert sorted_steps < 0.3 * drawn  # captions of like length do share a step


def test_too_many_parts_for_a_step_are_refused(records: list[Record], tmp_path: Path) -> None:
    data = caption_data(records, tmp_path)
    with pytest.raises(UserError, match="cannot be cut into 4 parts"):
        Steps(data.train_set, data.sampler, 3, accumulate=2, devices=2)


def test_validation_is_shared_so_that_every_device_has_as_many_batches(records: list[Record], tmp_path: Path) -> None:
    dataset = caption_data(records, tmp_path).val_set
    for devices in (1, 2, 5):
        cut = [list(InOrder(dataset, 3, devices, rank)) for rank in range(devices)]
        assert len({len(parts) for parts in cut}) == 1
        assert sorted(place.row for parts in cut for part in parts for place in part) == list(range(12))
    with pytest.raises(UserError, match="12 validation photographs on 13 devices"):
        InOrder(dataset, 3, 13, 0)


def test_a_stage_meets_its_sources_whole_and_a_share_of_the_others(records: list[Record], tmp_path: Path) -> None:
    data = caption_data(records, tmp_path, sources=["skincap"], replay=0.5)
    assert {record.source for record in data.val_set.records} == {"skincap"}
    assert data.common_set is not None and {record.source for record in data.common_set.records} == {"ham10000"}
    met: Counter[int] = Counter()
    for number in range(6):
        data.sampler.set_epoch(number)
        indices = list(data.sampler)
        assert len(indices) == len(set(indices)) == len(data.sampler) == 9
        assert set(indices) >= set(range(6))
        met.update(indices)
    assert set(met) == set(range(12))  # every other record is met some time


def test_the_sampler_draws_the_same_share_every_epoch() -> None:
    sampler = EpochSampler(range(4), range(4, 104), 0.25, seed=3)
    assert len(list(sampler)) == len(sampler) == 29
    orders = set()
    for epoch in range(5):
        sampler.set_epoch(epoch)
        orders.add(tuple(sampler))
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
    tokens = next(iter(data.val_dataloader()[0]))["tokens"]
    assert ((tokens >= 0).sum(1) == 3).all()
