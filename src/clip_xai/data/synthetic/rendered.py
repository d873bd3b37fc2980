"""Rendered photographs in memory, with captions drawn anew each time, for training the embedded CLIP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from clip_xai.data.preprocess import Preprocess
from clip_xai.data.synthetic.describe import describe, facet_captions, facets
from clip_xai.data.synthetic.pool import rendering_pool
from clip_xai.data.synthetic.scene import Scene, render, sample_scene
from clip_xai.files import replacing
from clip_xai.progress import track

ROWS, COLUMNS = ("upper", "centre", "lower"), ("left", "centre", "right")
CHUNK = 100


@dataclass(frozen=True)
class FacetBatch:
    """Short captions of one kind.

    Attributes:
        texts: T distinct captions.
        positives: Which of them is true of which image, bool ``[B, T]``.
        same: Which of them state the same fact, bool ``[T, T]``.
    """

    texts: list[str]
    positives: np.ndarray
    same: np.ndarray


@dataclass(frozen=True)
class CaptionBatch:
    """Captions of a batch: whole ones for some rows, short ones of each kind for all."""

    whole: list[str]
    whole_rows: list[int]
    short: dict[str, FacetBatch]


class RenderedScenes:
    """Pictures at the model's input size, uint8 ``[M, 3, S, S]``, with the scenes that they show."""

    def __init__(self, scenes: Sequence[Scene], pixels: np.ndarray) -> None:
        self.scenes = list(scenes)
        self.pixels = pixels

    @classmethod
    def render(cls, seeds: Sequence[int], image_size: int, cache: Path | None, workers: int) -> RenderedScenes:
        """Render scenes, or read them from the cache file if it holds the same seeds.

        Args:
            seeds: One a scene.
            image_size: S; the pictures go through the evaluation geometry of the tower.
            cache: An ``.npy`` file, or None.
            workers: Processes.
        """
        scenes = [sample_scene(seed) for seed in seeds]
        if cache is not None and cache.is_file():
            pixels = np.load(cache, mmap_mode=None)
            if pixels.shape == (len(seeds), 3, image_size, image_size):
                return cls(scenes, pixels)
        pixels = np.empty((len(seeds), 3, image_size, image_size), dtype=np.uint8)
        chunks = [list(seeds[start : start + CHUNK]) for start in range(0, len(seeds), CHUNK)]
        with rendering_pool(workers) as pool:
            done = pool.map(_render_chunk, chunks, [image_size] * len(chunks))
            for index, chunk in enumerate(track(done, "Rendering", total=len(chunks))):
                pixels[index * CHUNK : index * CHUNK + len(chunk)] = chunk
        if cache is not None:
            cache.parent.mkdir(parents=True, exist_ok=True)
            with replacing(cache) as unfinished:
                np.save(unfinished, pixels)
        return cls(scenes, pixels)

    def batch(self, rng: np.random.Generator, size: int, whole: int) -> tuple[np.ndarray, CaptionBatch]:
        """Draw pictures, turn and mirror each at random, and caption them as they then look.

        Args:
            rng: Source of all randomness.
            size: B.
            whole: How many of the rows get a whole caption.

        Returns:
            Pictures, uint8 ``[B, 3, S, S]``, and their captions.
        """
        rows = rng.choice(len(self.scenes), size, replace=False)
        turns = rng.integers(0, 8, size)
        pixels = np.stack([turned(self.pixels[row], turn) for row, turn in zip(rows, turns, strict=True)])
        scenes = [
            replace(self.scenes[row], position=turned_position(self.scenes[row].position, turn))
            for row, turn in zip(rows, turns, strict=True)
        ]
        captions = [describe(scene, 3)[rng.integers(3)] for scene in scenes[:whole]]
        return pixels, CaptionBatch(captions, list(range(whole)), short_captions(scenes, rng))


def short_captions(scenes: Sequence[Scene], rng: np.random.Generator) -> dict[str, FacetBatch]:
    """Return, for each kind of short caption, the distinct ones of a batch and the images they are true of."""
    stated = [facet_captions(scene, rng) for scene in scenes]
    values = [facets(scene) for scene in scenes]
    batches = {}
    for kind in stated[0]:
        # A kind such as "diagnosis+colour" is true of every image that shares all its facts, whatever the wording.
        keys = [tuple(value[part] for part in kind.split("+")) for value in values]
        meaning = {caption[kind]: key for caption, key in zip(stated, keys, strict=True)}
        texts = sorted(meaning)
        facts = {key: index for index, key in enumerate(sorted(set(keys)))}
        of_image = np.array([facts[key] for key in keys])
        of_text = np.array([facts[meaning[text]] for text in texts])
        batches[kind] = FacetBatch(texts, positives=of_image[:, None] == of_text, same=of_text[:, None] == of_text)
    return batches


def turned(pixels: np.ndarray, turn: int) -> np.ndarray:
    """Turn ``[3, S, S]`` by ``turn % 4`` quarters counter-clockwise, then mirror left to right if ``turn >= 4``."""
    picture = np.rot90(pixels, turn % 4, axes=(1, 2))
    return np.ascontiguousarray(picture[:, :, ::-1] if turn >= 4 else picture)


@cache
def turned_position(position: str, turn: int) -> str:
    """Return where a position's cell of the 3 x 3 grid goes under :func:`turned`."""
    grid = np.array([[cell_name(row, column) for column in range(3)] for row in range(3)])
    moved = turned(grid[None], turn)[0]
    row, column = np.argwhere(moved == position)[0]
    return cell_name(int(row), int(column))


def cell_name(row: int, column: int) -> str:
    """Name a cell of the 3 x 3 grid: ``upper left`` ... ``centre`` ... ``lower right``."""
    return "centre" if row == column == 1 else f"{ROWS[row]} {COLUMNS[column]}"


def _render_chunk(seeds: list[int], image_size: int) -> np.ndarray:
    preprocess = Preprocess(image_size=image_size)
    squares = [preprocess.square(Image.fromarray(render(sample_scene(seed)).image)) for seed in seeds]
    return np.stack([np.asarray(square).transpose(2, 0, 1) for square in squares])
