"""Features of frozen towers, computed once and kept on disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clip_xai.data.images import UnreadableImageError
from clip_xai.data.locking import one_at_a_time
from clip_xai.errors import UserError
from clip_xai.models.backbones.base import VisionBackbone
from clip_xai.progress import track
from clip_xai.training.feature_parts import parts, read_parts, remove_orphans

SHARD = 2048
_FORMAT = 2  # of the files; others are not looked at


@dataclass(frozen=True)
class FeatureTable:
    """Features by image file.

    Attributes:
        rows: Image file -> memory-mapped array and row in it.
        unreadable: Image file -> why it cannot be read. These have no row.
    """

    rows: dict[Path, tuple[NDArray[np.floating], int]]
    unreadable: dict[Path, str]

    def __getitem__(self, image: Path) -> Tensor:
        """Return the features of one image, ``[D]`` or ``[N, W]``."""
        array, row = self.rows[image]
        return torch.from_numpy(np.array(array[row]))

    def stack(self, images: Sequence[Path]) -> Tensor:
        """Return the features of images, ``[B, D]`` or ``[B, N, W]``."""
        rows = [self.rows[image] for image in images]
        first = rows[0][0]
        stacked = np.empty((len(rows), *first.shape[1:]), first.dtype)
        for target, (array, row) in zip(stacked, rows, strict=True):
            target[...] = array[row]
        return torch.from_numpy(stacked)


class FeatureCache:
    """What a frozen tower says of image files, kept under the content of the file.

    A feature is found again by the SHA-256 of the image file, the backbone's weights, the preprocessing, the number
    format, and whether it is the pooled embedding or the patch tokens; whatever of these changes, it is computed anew.
    Finished parts are kept when a computation is interrupted, and several processes may fill one cache.

    Layout: ``<directory>/<digest of backbone, preprocessing, format>/<pooled|patches|tokens>/<part>.bin``, the rows
    that were computed and no others, beside ``<part>.json``, the file digest of each.
    """

    def __init__(self, directory: Path, backbone: VisionBackbone, dtype: str = "float32") -> None:
        """Open a cache.

        Args:
            directory: Root of the cache, shared by all backbones.
            backbone: The tower, on the device it shall run on.
            dtype: ``float32`` or ``float16``, the format kept on disk.
        """
        self.backbone = backbone
        self.dtype = np.dtype(dtype)
        key = f"{_FORMAT} {backbone.fingerprint} {backbone.preprocess.fingerprint} {self.dtype.name}"
        self.directory = directory / hashlib.sha256(key.encode()).hexdigest()[:24]

    def table(self, images: Sequence[Path], reads: str, batch_size: int = 64) -> FeatureTable:
        """Return the features of image files, those that are missing computed first.

        Args:
            images: Image files.
            reads: ``pooled``, ``patches`` or ``tokens``.
            batch_size: Images per step through the tower.

        Raises:
            UserError: The batch size is less than 1.
            OSError: The disk has no space for the features; whatever was finished before stays.
        """
        if batch_size < 1:
            raise UserError(f"trainer.feature_batch_size: {batch_size} is less than 1")
        digests = {image: _sha256(image) for image in dict.fromkeys(images)}
        with one_at_a_time(self.directory):
            return self._table(digests, reads, batch_size)

    def _table(self, digests: dict[Path, str | None], reads: str, batch_size: int) -> FeatureTable:
        known = self._known(reads)
        by_digest = {digest: image for image, digest in digests.items() if digest is not None}
        missing = [image for digest, image in by_digest.items() if digest not in known]
        unreadable: dict[Path, str] = {}
        if missing:
            shards = [missing[start : start + SHARD] for start in range(0, len(missing), SHARD)]
            progress = iter(track(range(len(missing)), f"Features of {self.backbone.name}"))
            for shard in shards:
                unreadable |= self._compute(shard, digests, reads, batch_size, progress)
            next(progress, None)
            known = self._known(reads)
        for image, digest in digests.items():
            if digest is None:
                unreadable[image] = f"{image}: cannot be opened"
            elif digest not in known:
                unreadable.setdefault(image, unreadable.get(by_digest[digest], f"{image}: unreadable"))
        rows = {image: known[digest] for image, digest in digests.items() if digest is not None and digest in known}
        return FeatureTable(rows, unreadable)

    def _known(self, reads: str) -> Mapping[str, tuple[NDArray[np.floating], int]]:
        for kind in ("pooled", "patches", "tokens"):
            remove_orphans(self.directory / kind)
        return read_parts(self.directory / reads, self._shape(reads), self.dtype)

    def _shape(self, reads: str) -> tuple[int, ...]:
        rows, columns = self.backbone.grid
        patches, width = rows * columns, self.backbone.width
        shapes = {
            "pooled": (self.backbone.embed_dim,),
            "patches": (patches, width),
            "tokens": (self.backbone.image_tower.prefix_tokens + patches, width),
        }
        return shapes[reads]

    def _compute(
        self,
        images: list[Path],
        digests: dict[Path, str | None],
        reads: str,
        batch_size: int,
        progress: Iterator[int],
    ) -> dict[Path, str]:
        """Write one part of the cache; the pooled embeddings come with the tokens at no cost."""
        shapes = {kind: self._shape(kind) for kind in dict.fromkeys([reads, "pooled"])}
        unreadable: dict[Path, str] = {}
        computed: list[str] = []
        device = next(self.backbone.parameters()).device
        with (
            parts(self.directory, shapes, self.dtype, len(images)) as written,
            ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool,
            torch.inference_mode(),
        ):
            for start in range(0, len(images), batch_size):
                batch = images[start : start + batch_size]
                good: dict[str, Tensor] = {}
                for image, pixels in zip(batch, pool.map(self._pixels, batch), strict=True):
                    if isinstance(pixels, Tensor):
                        good[str(digests[image])] = pixels
                    else:
                        unreadable[image] = str(pixels)
                if good:
                    features = self.backbone.features(torch.stack(list(good.values())).to(device))
                    for kind, part in written.items():
                        part.append(features.read(kind).float().cpu().numpy())
                    computed += good
                for _ in batch:
                    next(progress, None)
            if computed:
                for part in written.values():
                    part.finish(computed)
        return unreadable

    def _pixels(self, image: Path) -> Tensor | UnreadableImageError:
        try:
            return self.backbone.preprocess.read(image)
        except UnreadableImageError as error:
            return error


def _sha256(image: Path) -> str | None:
    try:
        return hashlib.sha256(image.read_bytes()).hexdigest()
    except OSError:
        return None
