from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from clip_xai.data.images import read_image
from clip_xai.data.record import Record
from clip_xai.training.features import FeatureCache

from .conftest import small_captioner


def paths(records: list[Record]) -> list[Path]:
    return [record.image for record in records]


@pytest.mark.parametrize("reads", ["pooled", "patches", "tokens"])
def test_cached_features_are_what_the_tower_says_of_the_image(
    records: list[Record], tmp_path: Path, reads: str
) -> None:
    backbone = small_captioner().backbone
    table = FeatureCache(tmp_path / "cache", backbone).table(paths(records), reads, batch_size=5)
    for record in records:
        pixels = backbone.preprocess(read_image(record.image)).unsqueeze(0)
        torch.testing.assert_close(table[record.image], backbone.features(pixels).read(reads)[0], atol=1e-5, rtol=1e-5)


def test_training_loss_on_the_cache_is_the_loss_on_the_images(records: list[Record], tmp_path: Path) -> None:
    captioner = small_captioner()
    table = FeatureCache(tmp_path / "cache", captioner.backbone).table(paths(records), captioner.reads)
    tokens = captioner.encode_captions([record.caption for record in records])
    pixels = torch.stack([captioner.backbone.preprocess(read_image(record.image)) for record in records])
    on_images = captioner.loss(captioner.read(pixels), tokens)
    assert captioner.loss(table.stack(paths(records)), tokens).item() == pytest.approx(on_images.item(), abs=1e-6)


class Counting:
    """Counts what goes through a tower."""

    def __init__(self, backbone: torch.nn.Module) -> None:
        self.images = 0
        backbone.model.visual.conv1.register_forward_hook(self.count)  # type: ignore[union-attr, operator]

    def count(self, module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        self.images += len(output)


def test_nothing_is_computed_twice_and_a_changed_file_is_computed_anew(records: list[Record], tmp_path: Path) -> None:
    backbone = small_captioner().backbone
    counting = Counting(backbone)
    FeatureCache(tmp_path / "cache", backbone).table(paths(records)[:5], "patches")
    FeatureCache(tmp_path / "cache", backbone).table(paths(records), "patches")
    assert counting.images == len(records)
    FeatureCache(tmp_path / "cache", backbone).table(paths(records), "pooled")  # came with the patch tokens
    assert counting.images == len(records)
    shutil.copy(records[1].image, tmp_path / "elsewhere.png")
    before = FeatureCache(tmp_path / "cache", backbone).table([tmp_path / "elsewhere.png"], "patches")
    assert counting.images == len(records)
    shutil.copy(records[2].image, records[1].image)
    after = FeatureCache(tmp_path / "cache", backbone).table(paths(records), "patches")
    assert counting.images == len(records)
    assert not torch.equal(after[records[1].image], before[tmp_path / "elsewhere.png"])
    torch.testing.assert_close(after[records[1].image], after[records[2].image])


def test_another_tower_and_another_format_have_features_of_their_own(records: list[Record], tmp_path: Path) -> None:
    one, other = small_captioner(seed=0).backbone, small_captioner(seed=1).backbone
    first = FeatureCache(tmp_path / "cache", one).table(paths(records), "pooled")
    second = FeatureCache(tmp_path / "cache", other).table(paths(records), "pooled")
    assert not torch.allclose(first[records[0].image], second[records[0].image])
    half = FeatureCache(tmp_path / "cache", one, dtype="float16").table(paths(records), "pooled")
    assert half[records[0].image].dtype == torch.float16


def test_unreadable_images_are_named_and_have_no_features(records: list[Record], tmp_path: Path) -> None:
    broken, missing = tmp_path / "broken.jpg", tmp_path / "missing.jpg"
    broken.write_bytes(b"\xff\xd8 no photograph")
    for _ in range(2):  # also when the rest is known already
        backbone = small_captioner().backbone
        table = FeatureCache(tmp_path / "cache", backbone).table([*paths(records), broken, missing], "patches")
        assert set(table.rows) == set(paths(records))
        assert set(table.unreadable) == {broken, missing}
        assert "broken.jpg" in table.unreadable[broken]
        assert "missing.jpg" in table.unreadable[missing]


def test_a_part_that_was_interrupted_does_not_count(records: list[Record], tmp_path: Path) -> None:
    backbone = small_captioner().backbone
    cache = FeatureCache(tmp_path / "cache", backbone)
    (cache.directory / "patches").mkdir(parents=True)
    np.save(cache.directory / "patches" / "half.npy", np.zeros((2, 9, 32), dtype=np.float32))
    table = cache.table(paths(records), "patches")
    assert all(table[path].abs().sum() > 0 for path in paths(records))
