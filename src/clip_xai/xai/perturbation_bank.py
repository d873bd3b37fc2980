"""Questions by perturbation: one stream of masked images, read once for every method, every text and every curve."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator

import torch
from torch import Tensor

from clip_xai.models.backbones.base import Features, VisionBackbone
from clip_xai.models.backbones.chunks import in_chunks
from clip_xai.models.backbones.recording import evaluation_mode, outside_inference
from clip_xai.models.backbones.transformer import TransformerTower
from clip_xai.xai.imputation import Road
from clip_xai.xai.masks import CellMasks, Masks
from clip_xai.xai.target import Target

Fill = float | Tensor | Road


class PerturbationBank:
    """Masked copies of B images and what the tower hands over for them.

    A bank is a stream: ``x * m + fill * (1 - m)`` for one mask m after the other, in chunks, so that memory holds one
    chunk of images however many masks there are. The tower runs in evaluation mode and without gradients, whatever the
    caller's mode; a chunk that does not fit into memory is halved and the stream goes on. The numbers do not depend on
    the chunk size beyond rounding.

    Pooled embeddings are small, so the bank keeps them (up to ``keep_bytes``): a second target, method or curve that
    asks for the same masks costs no forward pass. One pass gives embeddings and patch tokens both, so what was read for
    a target of patch tokens is there for one of the embedding. Patch tokens themselves are never kept.

    Attributes:
        backbone: The tower.
        pixels: ``[B, 3, S, S]``, normalised.
        forwards: Masked and whole images that went through the tower so far.

    Example:
        >>> from clip_xai.xai.examples import example
        >>> backbone, pixels, target = example()
        >>> bank = PerturbationBank(backbone, pixels)
        >>> bank.scores(CellMasks(torch.ones(5, *backbone.grid)), target).shape
        torch.Size([2, 5, 2])
        >>> bank.forwards
        10
    """

    def __init__(self, backbone: VisionBackbone, pixels: Tensor, keep_bytes: int = 2**28) -> None:
        """Take images; nothing is run yet.

        Args:
            backbone: The tower.
            pixels: ``[B, 3, S, S]``, normalised.
            keep_bytes: Pooled embeddings that may be kept.
        """
        self.backbone = backbone
        self.pixels = outside_inference(pixels).detach()
        self.forwards = 0
        self._keep_bytes = keep_bytes
        self._kept: dict[Hashable, Tensor] = {}
        self._whole: Features | None = None
        self._embedded: Tensor | None = None

    def whole(self, reads: str) -> Tensor:
        """Return what the tower hands over for the images themselves, ``[B, D]`` or ``[B, N, W]``; run once."""
        if self._whole is None:
            self._whole = self._features(self.pixels)
        return self._whole.read(reads)

    def embedded(self) -> Tensor:
        """Return what enters the first block of a transformer for the images, ``[B, P + N, W]``; computed once."""
        tower = self.backbone.image_tower
        assert isinstance(tower, TransformerTower)
        if self._embedded is None:
            with torch.no_grad(), evaluation_mode(self.backbone):
                self._embedded = tower.embed(self.pixels)
        return self._embedded

    def whole_scores(self, target: Target) -> Tensor:
        """Return the target's scores of the images themselves, ``[B, T]``, float32."""
        with torch.no_grad():
            return target.score(self.whole(target.reads)).float()

    def stream(
        self, masks: Masks | Tensor, *, reads: str = "pooled", fill: Fill = 0.0, fill_key: Hashable | None = None,
        chunk_size: int = 64,
    ) -> Iterator[tuple[slice, Tensor]]:  # fmt: skip
        """Read the tower on masked images.

        The rows of the stream run over the masks of the first image, then those of the second, and so on.

        Args:
            masks: What is kept: a family, or cells ``[M, h, w]`` or ``[B, M, h, w]``.
            reads: ``"pooled"``, ``"patches"`` or ``"tokens"``.
            fill: What stands where nothing is kept, in normalised values: a number (0 is the mean colour of the tower's
                training data), images ``[B or 1, 3, S, S]``, such as a blurred copy, or a fill that is made anew for
                each mask.
            fill_key: Names a fill of images, so that what was read of it can be shared; None for one that is not.
            chunk_size: Masked images in one forward pass.

        Yields:
            Rows of the stream, of ``B * M``, and what the tower hands over for them: ``[rows, D]`` or ``[rows, N, W]``.

        Raises:
            ValueError: The masks do not fit the images.
            torch.OutOfMemoryError: Not even a single image fits.
        """
        family = masks if isinstance(masks, Masks) else CellMasks(masks)
        family.check(len(self.pixels), self.pixels.shape[-1])
        filled = fill_key if isinstance(fill, Tensor) else fill
        key = None if family.key is None or filled is None else (family.key, filled)
        total = len(self.pixels) * family.count
        if reads == "pooled" and key in self._kept:
            kept = self._kept[key]
            for first in range(0, total, chunk_size):
                yield slice(first, min(first + chunk_size, total)), kept[first : first + chunk_size]
            return
        store = self._storage(key, total)
        for rows, (pooled, read) in in_chunks(lambda rows: self._masked(family, fill, rows, reads), total, chunk_size):
            if store is not None:
                store.append(pooled)
            yield rows, read
        if store is not None:
            self._kept[key] = torch.cat(store)

    def scores(self, masks: Masks | Tensor, target: Target, *, fill: Fill = 0.0, chunk_size: int = 64) -> Tensor:
        """Return the target's scores of every masked image, ``[B, M, T]`` in float32; all T share each forward pass.

        Args:
            masks: As for ``stream``.
            target: What is asked.
            fill: As for ``stream``.
            chunk_size: As for ``stream``.
        """
        stream = self.stream(masks, reads=target.reads, fill=fill, chunk_size=chunk_size)
        with torch.no_grad():
            scores = torch.cat([scores_in_parts(target.score, read) for _, read in stream])
        return scores.unflatten(0, (len(self.pixels), -1))

    def _masked(self, family: Masks, fill: Fill, rows: slice, reads: str) -> tuple[Tensor, Tensor]:
        """Pooled embeddings of some masked images, and what is read of them."""
        pixels = self.pixels
        index = torch.arange(rows.start, rows.stop)
        images, numbers = index // family.count, index % family.count
        mask = family.pixels(images, numbers, pixels.shape[-1])[:, None].to(pixels)
        images = images.to(pixels.device)
        if isinstance(fill, Road):
            mixed = fill.mixed(pixels[images], mask)
        else:
            background = fill if isinstance(fill, Tensor) else torch.full((1, 1, 1, 1), fill)
            background = background.to(pixels).expand_as(pixels)[images]
            mixed = torch.lerp(background, pixels[images], mask)
        if reads != "pooled":
            features = self._features(mixed)
            return features.pooled, features.read(reads)
        with torch.no_grad(), evaluation_mode(self.backbone):
            pooled = self.backbone.image_tower.encode(mixed)
        self.forwards += len(mixed)
        return pooled, pooled

    def _features(self, pixels: Tensor) -> Features:
        with torch.no_grad(), evaluation_mode(self.backbone):
            features = self.backbone.features(pixels)
        self.forwards += len(pixels)
        return features

    def _storage(self, key: Hashable | None, rows: int) -> list[Tensor] | None:
        """An empty list if the pooled embeddings of so many rows may be kept, else None."""
        held = sum(kept.nbytes for kept in self._kept.values())
        size = rows * self.backbone.embed_dim * self.pixels.element_size()
        return [] if key is not None and held + size <= self._keep_bytes else None


def scores_in_parts(score: Callable[[Tensor], Tensor], read: Tensor) -> Tensor:
    """Return scores ``[n, T]`` of what was read of n images: a language model behind the tower may hold fewer at once.

    Args:
        score: Of a target.
        read: ``[n, D]`` or ``[n, N, W]``.
    """
    parts = in_chunks(lambda rows: score(read[rows]).float(), len(read), len(read))
    return torch.cat([part for _, part in parts])
