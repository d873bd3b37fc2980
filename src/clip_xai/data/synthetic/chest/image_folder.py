"""Rendered water fleas as a folder of images: ``train/CLASS/*.png`` and ``test/CLASS/*.png``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

from PIL import Image

from clip_xai.data.rendered_mark import marked
from clip_xai.data.synthetic.chest.drawing import draw_once
from clip_xai.data.synthetic.chest.parts import Part, box_of, packed, write_parts
from clip_xai.data.synthetic.chest.water_fleas import CLASSES, MINIMUM_SIDE, Flea, render_flea, sample_flea
from clip_xai.data.synthetic.pool import rendering_pool
from clip_xai.progress import track
from clip_xai.ranges import SEEDS, Checked, setting

SPLITS = ("train", "test")


@dataclass
class FolderSettings(Checked):
    """What a folder of rendered images consists of.

    Attributes:
        train: Images of each class below ``train``.
        test: Images of each class below ``test``.
        seed: Seed of all images.
        size: Side of a picture in pixels.
        workers: Processes that render.
    """

    prefix: ClassVar[str] = "folder"

    train: int = setting(200, least=1)
    test: int = setting(50, least=1)
    seed: int = setting(0, least=0, most=SEEDS)
    size: int = setting(128, least=MINIMUM_SIDE, most=2048)
    workers: int = setting(2, least=1)


def write_folder(root: Path | str, settings: FolderSettings | None = None) -> dict[str, int]:
    """Write the folder, or return at once if the same one is there already.

    ``synthetic/parts.parquet`` beside ``train`` and ``test`` holds a mask and a box of every part of every image.

    Args:
        root: A new or empty folder, or one with the same images.
        settings: What to draw.

    Returns:
        Number of images of ``train`` and of ``test``.

    Raises:
        UserError: The folder holds something else.
    """
    settings = settings or FolderSettings()
    decisive = {name: value for name, value in asdict(settings).items() if name != "workers"}
    draw_once(Path(root), {"kind": "water fleas", **decisive}, partial(_draw, settings=settings))
    return {split: len(CLASSES) * getattr(settings, split) for split in SPLITS}


def _draw(root: Path, settings: FolderSettings) -> None:
    planned = [
        (f"{split}/{kind}/{kind}_{number:04d}.png", sample_flea(settings.seed, kind, number))
        for kind in CLASSES
        for split, numbers in (
            ("train", range(settings.train)),
            ("test", range(settings.train, settings.train + settings.test)),
        )
        for number in numbers
    ]
    for split in SPLITS:
        for kind in CLASSES:
            (root / split / kind).mkdir(parents=True)
    parts = [
        part for found in track(_written(root, planned, settings), "Rendering", total=len(planned)) for part in found
    ]
    write_parts(root, parts)


def _written(root: Path, planned: Sequence[tuple[str, Flea]], settings: FolderSettings) -> Iterator[list[Part]]:
    write = partial(write_flea, root=root, size=settings.size)
    if settings.workers <= 1:
        yield from map(write, planned)
        return
    with rendering_pool(settings.workers) as pool:
        yield from pool.map(write, planned, chunksize=16)


def write_flea(planned: tuple[str, Flea], root: Path, size: int) -> list[Part]:
    """Render one image to its path below the root and return its parts."""
    path, flea = planned
    drawn = render_flea(flea, size)
    Image.fromarray(drawn.image).save(root / path, format="PNG", compress_level=3, **marked("PNG"))
    return [
        Part(path, name, "artefact" if name == "debris" else "structure", "", "", "", box_of(mask), packed(mask))
        for name, mask in drawn.masks.items()
        if mask.any()
    ]
