"""DermaCAP in miniature: rendered photographs in the six publishers' own layouts, names and columns."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from clip_xai.data import descriptions
from clip_xai.data.synthetic.describe import describe
from clip_xai.data.synthetic.layouts import LAYOUTS
from clip_xai.data.synthetic.layouts.common import PlannedPhotograph
from clip_xai.data.synthetic.pool import rendering_pool
from clip_xai.data.synthetic.scene import render
from clip_xai.errors import UserError
from clip_xai.progress import track

STAMP = "dermacap.json"
_OWN = ("ham10000", "pad_ufes_20", "masks", "structures", *(layout.folder for layout in LAYOUTS.values()))


def plan_dermacap(seed: int = 0, scale: float = 0.1) -> list[PlannedPhotograph]:
    """Draw which photographs a miniature consists of, without rendering any.

    Args:
        seed: Another seed, other scenes of the same distribution.
        scale: Share of DermaCAP's 22,755 rows.

    Returns:
        One entry for each row of the publishers' tables.

    Raises:
        ValueError: The scale leaves a data set without rows.
    """
    planned: dict[str, list[PlannedPhotograph]] = {}
    for name, count in row_counts(scale).items():
        planned[name] = LAYOUTS[name].plan(seed, count, planned)
    return [photograph for photographs in planned.values() for photograph in photographs]


def row_counts(scale: float) -> dict[str, int]:
    """Return how many rows each publisher's table has at a scale.

    Raises:
        ValueError: The scale leaves a data set without rows.
    """
    counts = {name: int(layout.rows * scale + 0.5) for name, layout in LAYOUTS.items()}
    if min(counts.values()) < 1:
        raise ValueError(f"scale={scale} leaves a data set without rows: {counts}")
    return counts


def write_dermacap(
    root: Path | str, seed: int = 0, scale: float = 0.1, height: int = 192, width: int = 256, workers: int = 2
) -> dict[str, int]:
    """Write a miniature, or return at once if it is there already.

    Args:
        root: Folder to write to: new, empty, or one that this command wrote before.
        seed: Seed of the scenes and of the fields.
        scale: Share of DermaCAP's rows.
        height: Height of a photograph in pixels.
        width: Width of a photograph in pixels.
        workers: Processes that render.

    Returns:
        Rows of each data set.

    Raises:
        UserError: The folder holds something else.
    """
    root = Path(root)
    counts = row_counts(scale)
    settings = {"seed": seed, "scale": scale, "height": height, "width": width, "code": _code()}
    if _stamp(root) == {**settings, "complete": True}:
        return counts
    _clear(root)
    _write_stamp(root, {**settings, "complete": False})
    planned = plan_dermacap(seed, scale)
    drawn = [photograph for photograph in planned if photograph.on_disk and photograph.copy_of is None]
    for _ in track(_written(root, drawn, height, width, workers), "Rendering photographs", total=len(drawn)):
        pass
    _copy(root, [photograph for photograph in planned if photograph.copy_of is not None], planned)
    for name, layout in LAYOUTS.items():
        layout.write_tables(root, [photograph for photograph in planned if photograph.source == name])
    _write_descriptions(root, [photograph for photograph in planned if photograph.on_disk])
    _write_stamp(root, {**settings, "complete": True})
    return counts


def write_photograph(photograph: PlannedPhotograph, root: Path, height: int, width: int) -> str:
    """Render one photograph and write it with its masks; returns its path."""
    rendering = render(photograph.scene, height, width)
    image = Image.fromarray(rendering.image)
    if photograph.transparent:
        image.putalpha(255)
    _save(image, root / photograph.path)
    _save(Image.fromarray(rendering.lesion_mask.astype(np.uint8) * 255), root / photograph.mask)
    if rendering.structure_masks:
        path = root / photograph.structures
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, allow_pickle=False, **rendering.structure_masks)
    return photograph.path


def _written(root: Path, drawn: list[PlannedPhotograph], height: int, width: int, workers: int) -> Iterator[str]:
    write = partial(write_photograph, root=root, height=height, width=width)
    if workers <= 1:
        yield from map(write, drawn)
        return
    with rendering_pool(workers) as pool:
        yield from pool.map(write, drawn, chunksize=16)


def _copy(root: Path, copies: list[PlannedPhotograph], planned: Iterable[PlannedPhotograph]) -> None:
    originals = {photograph.path: photograph for photograph in planned}
    for copy in copies:
        original = originals[str(copy.copy_of)]
        for source, target in ((original.path, copy.path), (original.mask, copy.mask)) + (
            ((original.structures, copy.structures),) if (root / original.structures).is_file() else ()
        ):
            (root / target).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / source, root / target)


def _write_descriptions(root: Path, planned: list[PlannedPhotograph]) -> None:
    rows = [
        {
            "source": photograph.source,
            "image": photograph.name,
            "captions": list(describe(photograph.scene, 3)),
            "mask": photograph.mask,
        }
        for photograph in planned
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=descriptions.SCHEMA), root / descriptions.FILE)


def _save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() == ".png":
        # The default level takes longer than the rendering and saves a tenth.
        image.save(path, format="PNG", compress_level=3)
    else:
        image.save(path, format="JPEG", quality=95)


def _code() -> str:
    """Digest of the renderer's own code: a changed renderer writes its pictures anew."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _stamp(root: Path) -> dict[str, object] | None:
    path = root / STAMP
    return dict(json.loads(path.read_text())) if path.is_file() else None


def _write_stamp(root: Path, settings: dict[str, object]) -> None:
    root.mkdir(parents=True, exist_ok=True)
    (root / STAMP).write_text(json.dumps(settings, indent=1))


def _clear(root: Path) -> None:
    """Remove what this command wrote before; refuse a folder that it did not write."""
    if not root.exists() or not os.listdir(root):
        return
    if not (root / STAMP).is_file():
        raise UserError(f"{root} holds something else; name a new or empty folder for the rendered data.")
    for name in _OWN:
        shutil.rmtree(root / name, ignore_errors=True)
