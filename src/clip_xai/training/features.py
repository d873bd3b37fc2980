"""Features of frozen towers, computed once and kept on disk."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from clip_xai.data.images import UnreadableImageError
from clip_xai.data.locking import one_at_a_time
from clip_xai.models.backbones.base import Backbone
from clip_xai.progress import track

SHARD = 2048


@dataclass(frozen=True)
class FeatureTable:
    """Features by image file.

    Attributes:
        rows: Image file -> memory-mapped array and row in it.
        unreadable: Image file -> why it cannot be read. These have no row.
    """

    rows: dict[Path, tuple[np.ndarray, int]]
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

    Layout: ``<directory>/<digest of backbone, preprocessing, format>/<pooled|patches>/<part>.npy`` beside
    ``<part>.json``, the list of file digests row by row (null for a row without features).
    """

    def __init__(self, directory: Path, backbone: Backbone, dtype: str = "float32") -> None:
        """Open a cache.

        Args:
            directory: Root of the cache, shared by all backbones.
            backbone: The tower, on the device it shall run on.
            dtype: ``float32`` or ``float16``, the format kept on disk.
        """
        self.backbone = backbone
        self.dtype = np.dtype(dtype)
        key = f"{backbone.fingerprint} {backbone.preprocess.fingerprint} {self.dtype.name}"
        self.directory = directory / hashlib.sha256(key.encode()).hexdigest()[:24]

    def table(self, images: Sequence[Path], reads: str, batch_size: int = 64) -> FeatureTable:
        """Return the features of image files, those that are missing computed first.

        Args:
            images: Image files.
            reads: ``pooled``, ``patches`` or ``tokens``.
            batch_size: Images per step through the tower.
        """
        digests = {image: _sha256(image) for image in dict.fromkeys(images)}
        with one_at_a_time(self.directory):
            return self._table(digests, reads, batch_size)

    def _table(self, digests: dict[Path, str | None], reads: str, batch_size: int) -> FeatureTable:
        known = self._index(reads)
        by_digest = {digest: image for image, digest in digests.items() if digest is not None}
        missing = [image for digest, image in by_digest.items() if digest not in known]
        unreadable: dict[Path, str] = {}
        if missing:
            parts = [missing[start : start + SHARD] for start in range(0, len(missing), SHARD)]
            progress = iter(track(range(len(missing)), f"Features of {self.backbone.name}"))
            for part in parts:
                unreadable |= self._compute(part, digests, reads, batch_size, progress)
            next(progress, None)
            known = self._index(reads)
        for image, digest in digests.items():
            if digest is None:
                unreadable[image] = f"{image}: cannot be opened"
            elif digest not in known:
                unreadable.setdefault(image, unreadable.get(by_digest[digest], f"{image}: unreadable"))
        rows = {image: known[digest] for image, digest in digests.items() if digest in known}
        return FeatureTable(rows, unreadable)

    def _index(self, reads: str) -> dict[str | None, tuple[np.ndarray, int]]:
        index: dict[str | None, tuple[np.ndarray, int]] = {}
        for listing in sorted((self.directory / reads).glob("*.json")):
            array = np.load(listing.with_suffix(".npy"), mmap_mode="r", allow_pickle=False)
            for row, digest in enumerate(json.loads(listing.read_text())):
                if digest is not None:
                    index[digest] = (array, row)
        return index

    def _compute(
        self,
        images: list[Path],
        digests: dict[Path, str | None],
        reads: str,
        batch_size: int,
        progress: Iterator[int],
    ) -> dict[Path, str]:
        """Write one part of the cache; the pooled embeddings come with the tokens at no cost."""
        rows, columns = self.backbone.grid
        patches, width = rows * columns, self.backbone.width
        shapes = {
            "pooled": (self.backbone.embed_dim,),
            "patches": (patches, width),
            "tokens": (self.backbone.image_tower.prefix_tokens + patches, width),
        }
        kinds = dict.fromkeys([reads, "pooled"])
        part = uuid.uuid4().hex
        files = {kind: self.directory / kind / f"{part}.npy" for kind in kinds}
        arrays = {}
        for kind, file in files.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            shape = (len(images), *shapes[kind])
            arrays[kind] = np.lib.format.open_memmap(file, mode="w+", dtype=self.dtype, shape=shape)
        unreadable: dict[Path, str] = {}
        device = next(self.backbone.parameters()).device
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool, torch.inference_mode():
            for start in range(0, len(images), batch_size):
                batch = images[start : start + batch_size]
                pixels = list(pool.map(self._pixels, batch))
                good = [row for row, value in enumerate(pixels) if isinstance(value, Tensor)]
                unreadable |= {batch[row]: str(v) for row, v in enumerate(pixels) if not isinstance(v, Tensor)}
                if good:
                    stacked = torch.stack([value for value in pixels if isinstance(value, Tensor)]).to(device)
                    features = self.backbone.features(stacked)
                    for kind, array in arrays.items():
                        array[[start + row for row in good]] = features.read(kind).float().cpu().numpy()
                for _ in batch:
                    next(progress, None)
        listing = [None if image in unreadable else digests[image] for image in images]
        for kind, file in files.items():
            arrays[kind].flush()
            unfinished = file.with_suffix(".part")
            unfinished.write_text(json.dumps(listing))
            unfinished.rename(file.with_suffix(".json"))  # the array counts from this moment on
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
