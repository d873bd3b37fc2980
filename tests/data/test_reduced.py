"""Large JPEG files may be decoded at a reduced size: the model sees the same picture, the geometry the same scene."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clip_xai.data.images import read_image, read_reduced
from clip_xai.data.preprocess import REDUCED_MARGIN, Preprocess


def clinical(path: Path, width: int, height: int, orientation: int = 1, kind: str = "JPEG") -> Path:
    """Write a photograph with soft forms, a sharp edge and grain."""
    rng = np.random.default_rng(width + height)
    soft = Image.fromarray(rng.integers(60, 220, (height // 40, width // 40, 3), dtype=np.uint8))
    pixels = np.asarray(soft.resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
    pixels[height // 3 : height // 2, width // 4 : width // 2] -= 50
    pixels = (pixels + rng.normal(0, 4, pixels.shape)).clip(0, 255).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, kind, quality=92, exif=exif)
    return path


@pytest.mark.parametrize("resize", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_model_sees_the_same_within_a_level(tmp_path: Path, resize: str, orientation: int) -> None:
    path = clinical(tmp_path / "a.jpg", 1280, 960, orientation)
    transform = Preprocess(112, resize)
    full, reduced = transform(read_image(path)), transform.read(path)
    levels = ((full - reduced).abs() * torch.tensor(transform.std).view(3, 1, 1) * 255).flatten()
    assert 0 < levels.mean() < 0.6 and levels.quantile(0.999) < 6
    # An eighth or a quarter of the height would shift or blur the edge by more than the levels above allow.
    width, height = read_image(path).size
    _, size = read_reduced(path, 224)
    assert size == (width, height) == ((960, 1280) if orientation > 4 else (1280, 960))


@pytest.mark.parametrize(
    ("width", "height", "at_least", "expected"),
    [
        (1280, 960, 240, (320, 240)),
        (1280, 960, 241, (640, 480)),
        (1280, 960, 481, (1280, 960)),
        (4032, 3024, 300, (504, 378)),
        (1282, 962, 100, (641, 481)),
        (1281, 961, 100, (1281, 961)),
    ],
)
def test_no_side_gets_too_short_and_no_scene_is_cut(
    tmp_path: Path, width: int, height: int, at_least: int, expected: tuple[int, int]
) -> None:
    path = clinical(tmp_path / "a.jpg", width, height)
    image, size = read_reduced(path, at_least)
    assert image.size == expected and size == (width, height) and not image.info


def test_small_files_and_other_formats_are_read_in_full(tmp_path: Path) -> None:
    transform = Preprocess(96)
    small = clinical(tmp_path / "a.jpg", 600, 100 * REDUCED_MARGIN + 180)
    for path in (small, clinical(tmp_path / "b.png", 800, 640, kind="PNG")):
        assert torch.equal(transform.read(path), transform(read_image(path)))


def test_a_truncated_file_is_seen_at_a_reduced_size_too(tmp_path: Path) -> None:
    path = clinical(tmp_path / "a.jpg", 1280, 960)
    content = path.read_bytes()
    from clip_xai.data.images import UnreadableImageError, inspect_image

    for share in (0.1, 0.5, 0.97):
        path.write_bytes(content[: int(len(content) * share)])
        for read in (lambda: read_reduced(path, 100), lambda: inspect_image(path)):
            with pytest.raises(UnreadableImageError, match=r"a\.jpg"):
                read()
