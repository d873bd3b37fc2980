from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from clip_xai.data.images import read_image
from clip_xai.data.record import Record
from clip_xai.errors import UserError
from clip_xai.training.features import FeatureCache
from tests.support.small_captioner import small_captioner


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
    counting = Counting(one)
    first = FeatureCache(tmp_path / "cache", one).table(paths(records), "pooled")
    second = FeatureCache(tmp_path / "cache", other).table(paths(records), "pooled")
    assert not torch.allclose(first[records[0].image], second[records[0].image])
    half = FeatureCache(tmp_path / "cache", one, dtype="float16").table(paths(records), "pooled")
    assert half[records[0].image].dtype == torch.float16
    again = FeatureCache(tmp_path / "cache", one).table(paths(records), "pooled")
    assert torch.equal(again.stack(paths(records)), first.stack(paths(records)))
    assert counting.images == 2 * len(records)  # neither format takes the other's place


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


def test_another_preprocessing_has_features_of_its_own(records: list[Record], tmp_path: Path) -> None:
    backbone = small_captioner().backbone
    images = paths(records)[:3]
    FeatureCache(tmp_path / "cache", backbone).table(images, "pooled")
    # Built alike, the weights and so their fingerprint are the same.
    backbone.preprocess = replace(backbone.preprocess, mean=(0.9, 0.1, 0.5))
    table = FeatureCache(tmp_path / "cache", backbone).table(images, "pooled")
    pixels = torch.stack([backbone.preprocess(read_image(image)) for image in images])
    torch.testing.assert_close(table.stack(images), backbone.features(pixels).read("pooled"), atol=1e-5, rtol=1e-5)


def files_of(directory: Path) -> dict[str, int]:
    """Everything below a directory but locks: path -> size."""
    files = [file for file in directory.rglob("*") if file.is_file() and file.name != ".lock"]
    return {file.relative_to(directory).as_posix(): file.stat().st_size for file in files}


@pytest.mark.parametrize("batch_size", [0, -1])
def test_no_batch_is_refused_and_leaves_nothing_that_counts(
    records: list[Record], tmp_path: Path, batch_size: int
) -> None:
    cache = FeatureCache(tmp_path / "cache", small_captioner().backbone)
    with pytest.raises(UserError, match=f"feature_batch_size: {batch_size} is less than 1"):
        cache.table(paths(records), "tokens", batch_size)
    table = cache.table(paths(records), "tokens")
    assert table.stack(paths(records)).flatten(1).norm(dim=1).min() > 0


def test_unreadable_photographs_take_no_space(records: list[Record], tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path / "cache", small_captioner().backbone)
    broken = [tmp_path / f"{number}.jpg" for number in range(5)]
    for number, image in enumerate(broken):
        image.write_bytes(b"no photograph %d" % number)
    mixed = [image for pair in zip(paths(records)[:5], broken, strict=True) for image in pair]
    table = cache.table(mixed, "tokens", batch_size=4)
    assert set(table.unreadable) == set(broken)
    for image in paths(records)[:5]:
        pixels = cache.backbone.preprocess(read_image(image)).unsqueeze(0)
        expected = cache.backbone.features(pixels).read("tokens")[0]
        torch.testing.assert_close(table[image], expected, atol=1e-5, rtol=1e-5)
    before = files_of(cache.directory)
    assert sum(size for name, size in before.items() if "tokens" in name and name.endswith(".bin")) == 5 * 10 * 32 * 4
    for _ in range(2):
        cache.table(mixed, "tokens", batch_size=4)
    assert files_of(cache.directory) == before


FILLING = """
import os, signal, sys
from pathlib import Path
from clip_xai.training.features import FeatureCache
from tests.support.small_captioner import small_captioner

backbone = small_captioner().backbone
backbone.model.visual.conv1.register_forward_hook(lambda *_: os.kill(os.getpid(), signal.SIGKILL))
FeatureCache(Path(sys.argv[1]), backbone).table([Path(image) for image in sys.argv[2:]], "tokens")
"""


def test_what_a_killed_process_left_is_removed_by_the_next(records: list[Record], tmp_path: Path) -> None:
    command = [sys.executable, "-c", FILLING, str(tmp_path / "cache"), *map(str, paths(records))]
    killed = subprocess.run(command, cwd=Path(__file__).parents[2], env=os.environ, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert any(name.endswith(".bin") for name in files_of(tmp_path / "cache"))  # reserved, and never filled
    cache = FeatureCache(tmp_path / "cache", small_captioner().backbone)
    mine = cache.directory / "tokens" / "notes.bin"
    mine.write_bytes(b"somebody else's")
    table = cache.table(paths(records), "tokens")
    assert all(table[path].abs().sum() > 0 for path in paths(records))
    whole = {name for name in files_of(cache.directory) if name.endswith(".json")}
    assert set(files_of(cache.directory)) == whole | {name.replace(".json", ".bin") for name in whole} | {
        "tokens/notes.bin"
    }


@pytest.mark.parametrize("damage", ["", "{", '{"rows": [1]}', "cut", "gone"])
def test_a_damaged_part_is_computed_anew(records: list[Record], tmp_path: Path, damage: str) -> None:
    cache = FeatureCache(tmp_path / "cache", small_captioner().backbone)
    images = paths(records)[:4]
    expected = cache.table(images, "pooled").stack(images)
    [listing] = (cache.directory / "pooled").glob("*.json")
    numbers = listing.with_suffix(".bin")
    if damage == "cut":
        numbers.write_bytes(numbers.read_bytes()[:-7])
    elif damage == "gone":
        numbers.unlink()
    else:
        listing.write_text(damage)
    torch.testing.assert_close(cache.table(images, "pooled").stack(images), expected)
    assert len(files_of(cache.directory)) == 2


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="the limit stands in for a full disk")
def test_a_full_disk_is_an_error_that_names_the_file_and_leaves_none(records: list[Record], tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path / "cache", small_captioner().backbone)
    cache.table(paths(records)[:2], "tokens")
    before = files_of(cache.directory)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as raised:
            cache.table(paths(records), "tokens")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert Path(raised.value.filename).parent == cache.directory / "tokens"
    assert files_of(cache.directory) == before
