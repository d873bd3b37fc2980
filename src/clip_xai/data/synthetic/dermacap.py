"""DermaCAP in miniature: rendered photographs in the six publishers' own layouts, names and columns."""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from clip_xai.data import descriptions
from clip_xai.data.locking import one_at_a_time
from clip_xai.data.rendered_mark import marked
from clip_xai.data.synthetic.describe import describe
from clip_xai.data.synthetic.layouts import LAYOUTS
from clip_xai.data.synthetic.layouts.shared import PlannedPhotograph
from clip_xai.data.synthetic.marker import (
    MARKER,
    STAGE,
    Marker,
    another,
    check_free,
    digest_of,
    owned,
    read_marker,
    remove,
)
from clip_xai.data.synthetic.pool import rendering_pool
from clip_xai.data.synthetic.scene import render
from clip_xai.errors import UserError
from clip_xai.progress import track

log = logging.getLogger(__name__)


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

    Everything is drawn in a hidden folder below ``root`` first and moved into place when it is whole.

    Args:
        root: Folder to write to: new, empty, or one that this command wrote before. Of that, only files which its
            marker lists are removed.
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
    if _is_there(root, settings):
        return counts
    # Two runs may want the same drawing: the second one waits and finds it there.
    with one_at_a_time(root / STAGE):
        if not _is_there(root, settings):
            _draw(root, settings, workers)
    return counts


def _is_there(root: Path, settings: dict[str, Any]) -> bool:
    marker = owned(root)
    if marker is None:
        return False
    if not marker.earlier:
        return marker.complete and marker.settings == settings
    # What an earlier version drew is used as it stands, since no list tells which files could be drawn anew.
    told = {name: value for name, value in marker.settings.items() if name != "code"}
    if marker.complete and told.items() <= settings.items():
        log.info("%s was drawn by an earlier version and is used as it is", root)
        return True
    raise UserError(f"{root} was drawn by an earlier version, with other settings or in part; {another(root)}.")


def _draw(root: Path, settings: dict[str, Any], workers: int) -> None:
    stage, before = root / STAGE, owned(root)
    planned = plan_dermacap(settings["seed"], settings["scale"])
    names = _names(planned)
    check_free(root, before, names)
    remove(stage, [*(unfinished.files if (unfinished := read_marker(stage)) else ()), MARKER])
    Marker(settings, dict.fromkeys(names, ""), complete=False).write(stage)
    drawn = [photograph for photograph in planned if photograph.on_disk and photograph.copy_of is None]
    written = _written(stage, drawn, settings["height"], settings["width"], workers)
    for _ in track(written, "Rendering photographs", total=len(drawn)):
        pass
    _copy(stage, [photograph for photograph in planned if photograph.copy_of is not None], planned)
    for name, layout in LAYOUTS.items():
        layout.write_tables(stage, [photograph for photograph in planned if photograph.source == name])
    _write_descriptions(stage, [photograph for photograph in planned if photograph.on_disk])
    _publish(root, before, settings, [name for name in names if (stage / name).is_file()])


def _publish(root: Path, before: Marker | None, settings: dict[str, Any], names: list[str]) -> None:
    """Move a drawing from the stage into place. The marker lists every file before it is moved or removed."""
    stage = root / STAGE
    drawing = Marker(settings, {name: digest_of(stage / name) for name in names}, complete=False)
    if before is not None:
        replace(before, complete=False).write(root)
        remove(root, before.files)
    drawing.write(root)
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (stage / name).rename(root / name)
    replace(drawing, complete=True).write(root)
    remove(stage, [*names, MARKER])


def _names(planned: list[PlannedPhotograph]) -> list[str]:
    """Return the path of every file that a drawing may consist of; not every scene has structures."""
    pictures = {
        path
        for photograph in planned
        if photograph.on_disk
        for path in (photograph.path, photograph.mask, photograph.structures)
    }
    tables = {f"{layout.folder}/{table}" for layout in LAYOUTS.values() for table in layout.tables}
    return sorted({*pictures, *tables, descriptions.FILE})


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
        masks: dict[str, Any] = dict(rendering.structure_masks)  # by name: none of them is one of NumPy's own arguments
        np.savez_compressed(path, **masks)
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
        image.save(path, format="PNG", compress_level=3, **marked("PNG"))
    else:
        image.save(path, format="JPEG", quality=95, **marked("JPEG"))


def _code() -> str:
    """Digest of the renderer's own code: a changed renderer writes its pictures anew."""
    digest = hashlib.sha256()
    here = Path(__file__).parent
    for path in sorted(here.rglob("*.py")):
        if path.relative_to(here).parts[0] != "chest":
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
