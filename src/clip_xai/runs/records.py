"""From the data settings to records: drawn where the embedded default is missing, then built into a manifest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar

from clip_xai.config.schemas import DataConfig, SyntheticConfig
from clip_xai.data.locking import one_at_a_time
from clip_xai.data.manifest import load_manifest
from clip_xai.data.manifest_builder import build_manifest
from clip_xai.data.record import Record
from clip_xai.data.settings import BuildSettings
from clip_xai.data.synthetic.chest.image_folder import FolderSettings, write_folder
from clip_xai.data.synthetic.chest.nih import ChestSettings, write_chest
from clip_xai.data.synthetic.dermacap import write_dermacap
from clip_xai.errors import UserError

T = TypeVar("T")


def prepare_manifest(data: DataConfig) -> Path:
    """Return the manifest of a data set, written first where it is missing.

    The embedded default is drawn where ``data.root`` does not hold it yet; both steps return at once when nothing
    changed.

    Raises:
        UserError: ``data.root`` does not exist and the data set is not a drawn one.
    """
    root, drawn = Path(data.root), data.synthetic
    if drawn is None and not root.is_dir():
        raise UserError(f"data.root={root}: there is no such directory; set data.root to the directory of the sources")
    chosen = {item.name: getattr(data, item.name) for item in fields(BuildSettings)}
    with one_at_a_time(Path(data.output_dir)):
        if drawn is not None:
            draw(root, drawn)
        return build_manifest(root, Path(data.output_dir), BuildSettings(**chosen))


def draw(root: Path, drawn: SyntheticConfig) -> None:
    """Draw a data set; at once where the same is there already.

    Raises:
        UserError: The folder holds something else.
    """
    if drawn.kind == "chest":
        told = {name: getattr(drawn, name) for name in ("patients", "seed", "size", "tube", "hospital", "test_share")}
        write_chest(root, ChestSettings(**told))
    elif drawn.kind == "folder":
        told = {name: getattr(drawn, name) for name in ("train", "test", "seed", "size")}
        write_folder(root, FolderSettings(**told))
    else:
        write_dermacap(root, seed=drawn.seed, scale=drawn.scale, height=drawn.height, width=drawn.width)


def load_records(data: DataConfig, split: str) -> list[Record]:
    """Return the records of a split, at most ``data.limit`` of them, spread evenly over the manifest.

    Args:
        data: The data settings.
        split: ``train``, ``val``, ``test``, or ``all``.

    Raises:
        UserError: The split holds no record.
    """
    return of_split(load_manifest(prepare_manifest(data)), split, data.limit)


def of_split(manifest: Sequence[Record], split: str, limit: int | None = None) -> list[Record]:
    """Return the records of a split of a manifest, at most ``limit`` of them, spread evenly.

    Args:
        manifest: All records.
        split: ``train``, ``val``, ``test``, or ``all``.
        limit: How many at most.

    Raises:
        UserError: The split holds no record.
    """
    chosen = [record for record in manifest if split == "all" or record.split == split]
    if not chosen:
        splits = sorted({record.split for record in manifest if record.split})
        raise UserError(f"split={split} holds no photograph; the manifest has {', '.join(splits) or 'none'} and all")
    return evenly(chosen, limit)


def digest_of(records: Iterable[Record]) -> str:
    """Return a digest of what is learned from records: photographs, captions, labels, their places, groups, splits."""
    digest = hashlib.sha256()
    for record in records:
        known: tuple[Any, ...] = (record.identifier, record.sha256, record.split, record.group, *record.references)
        if record.labels or record.boxes or record.label_masks:
            known += (record.labels, [asdict(box) for box in record.boxes], record.label_masks)
        digest.update(json.dumps(known, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:16]


def evenly(items: Sequence[T], limit: int | None) -> list[T]:
    """Return at most ``limit`` items, at equal steps through the list (so that every source of records is met)."""
    if limit is None or limit >= len(items):
        return list(items)
    return [items[index * len(items) // limit] for index in range(limit)]
