"""What the writers share: planned photographs, lesions that are photographed twice, and tables in plain formats."""

from __future__ import annotations

import csv
import hashlib
import io
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import openpyxl

from clip_xai.data.synthetic.composition import Scene, sample_scene

#: Weights of the values of a field, in any unit.
Weights = Mapping[Any, float]

#: Photographs of a data set that other data sets show as well: source -> what was planned for it so far.
Shares = Mapping[str, "list[PlannedPhotograph]"]

_QUARTER = 32  # A quarter of the 128 directions of an outline.


@dataclass(frozen=True)
class PlannedPhotograph:
    """One row of a publisher's table and the scene that its photograph shows.

    Attributes:
        source: Name of the data set.
        path: Where the photograph lies below the data root.
        row: The publisher's columns.
        scene: What is drawn.
        diagnosis: What a reader of the table can know; coarser than the scene's where the publisher's classes are.
        group: What the publisher's keys say belongs together.
        mask: Where the lesion mask lies below the data root.
        transparent: Written with an alpha channel.
        on_disk: False for rows whose photograph the publisher forgot.
        copy_of: Path of the photograph of another data set of which this is a copy.
        official_split: The publisher's own split.
    """

    source: str
    path: str
    row: dict[str, Any]
    scene: Scene
    diagnosis: str | None
    group: str
    mask: str
    transparent: bool = False
    on_disk: bool = True
    copy_of: str | None = None
    official_split: str | None = None

    @property
    def name(self) -> str:
        """File name of the photograph."""
        return PurePosixPath(self.path).name

    @property
    def structures(self) -> str:
        """Where the masks of the sub-structures lie below the data root (``.npz``, a bool ``[H, W]`` by name)."""
        return f"structures/{self.source}/{PurePosixPath(self.path).stem}.npz"


def mask_path(source: str, photograph: str) -> str:
    """Return where the lesion mask of a photograph lies for publishers that ship none."""
    return f"masks/{source}/{PurePosixPath(photograph).stem}.png"


def stream(seed: int, source: str) -> np.random.Generator:
    """Return the random numbers of one data set's fields."""
    return np.random.default_rng(_digest(f"fields/{seed}/{source}"))


def scene_seed(seed: int, source: str, number: int) -> int:
    """Return the seed of a data set's n-th scene; 48 bits, so that two data sets never share one by accident."""
    return _digest(f"scene/{seed}/{source}/{number}")


def pick(rng: np.random.Generator, weights: Weights) -> Any:
    """Draw one value."""
    shares = np.cumsum(list(weights.values()))
    return list(weights)[int(np.searchsorted(shares, rng.random() * shares[-1], side="right"))]


def balanced(rng: np.random.Generator, values: Sequence[str]) -> Iterator[str]:
    """Yield the values for ever, each once before any comes again, in ever new order."""
    while True:
        for index in rng.permutation(len(values)):
            yield values[int(index)]


def family_sizes(rng: np.random.Generator, weights: Weights, total: int) -> Iterator[int]:
    """Yield sizes that add up to `total`."""
    left = total
    while left > 0:
        size = min(int(pick(rng, weights)), left)
        left -= size
        yield size


def photographed_again(scene: Scene, seed: int, turns: int, view: str | None = None) -> Scene:
    """Return the same lesion in another photograph: the camera turned, other light, other surroundings.

    Args:
        scene: The first photograph.
        seed: Seed of the second one.
        turns: Quarter turns clockwise.
        view: ``clinical`` or ``dermoscopic`` where it changes.
    """
    other = sample_scene(seed, diagnosis=scene.diagnosis, view=view or scene.view, fitzpatrick=scene.fitzpatrick)
    turned = scene
    for _ in range(turns % 4):
        turned = _turned(turned)
    fallen = {mark.kind for mark in other.marks}
    kept = [name for name in other.distractors if name not in fallen] + [mark.kind for mark in turned.marks]
    return replace(
        turned,
        seed=seed,
        view=other.view,
        hair=scene.hair,
        lighting=other.lighting,
        light_direction=other.light_direction,
        distractors=tuple(dict.fromkeys(kept)),
    )


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]], encoding: str = "utf-8") -> None:
    """Write a table; None becomes an empty cell."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding=encoding, newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_xlsx(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a spreadsheet with one sheet, byte for byte the same for the same rows."""
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.title = "Sheet1"
    sheet.append(list(columns))
    for row in rows:
        sheet.append([row[name] for name in columns])
    saved = io.BytesIO()
    book.save(saved)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The library stamps the time of day into the file and into the archive's entries.
    with zipfile.ZipFile(saved) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            content = source.read(name)
            if name == "docProps/core.xml":
                content = re.sub(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", b"2024-01-01T00:00:00Z", content)
            target.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")


def _turned(scene: Scene) -> Scene:
    """Turn what the camera sees by a quarter clockwise: the point (x, y) goes to (-y, x), with y downwards."""
    words = {"upper": (0, -1), "lower": (0, 1), "left": (-1, 0), "right": (1, 0), "centre": (0, 0)}
    steps = [words[word] for word in scene.position.split()]
    x, y = (sum(step[axis] for step in steps) for axis in (0, 1))
    return replace(
        scene,
        position=_cell(-y, x),
        centre_x=-scene.centre_y,
        centre_y=scene.centre_x,
        outline=scene.outline[-_QUARTER:] + scene.outline[:-_QUARTER],
        marks=tuple(replace(mark, x=-mark.y, y=mark.x) for mark in scene.marks),
    )


def _cell(x: int, y: int) -> str:
    if (x, y) == (0, 0):
        return "centre"
    return f"{('upper', 'centre', 'lower')[y + 1]} {('left', 'centre', 'right')[x + 1]}"
