"""Batches of pixels or frozen features with the labels of their photographs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from lightning import LightningDataModule
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from clip_xai.data.images import UnreadableImageError
from clip_xai.data.preprocess import Preprocess
from clip_xai.data.record import Record
from clip_xai.errors import UserError
from clip_xai.text import counted
from clip_xai.training.loader_workers import keep_memory_flat
from clip_xai.training.samplers import EpochSampler

KEPT_BYTES = 2**31  # of preprocessed pixels that stay in memory between epochs


class Place(NamedTuple):
    """A record's place in a step of the optimiser.

    Attributes:
        row: Row of the record.
        total: Labels that count in the whole step, over all its parts.
        parts: Parts that the step is cut into: devices times accumulated batches.
    """

    row: int
    total: int
    parts: int


class Images(Protocol):
    """Where the inputs of the classifier come from."""

    def stack(self, images: Sequence[Path]) -> Tensor:
        """Return the inputs of images, ``[B, ...]``."""


class Pixels:
    """Preprocessed photographs, read once and kept where they fit into memory.

    Attributes:
        unreadable: Image file -> why it cannot be read.
    """

    def __init__(self, preprocess: Preprocess, images: Sequence[Path]) -> None:
        """Read all photographs once, so that one that cannot be read is known before the first step."""
        self.preprocess = preprocess
        side = preprocess.image_size
        self.keeps = len(images) * 3 * side * side * 4 <= KEPT_BYTES
        self.kept: dict[Path, Tensor] = {}
        self.unreadable: dict[Path, str] = {}
        for image in images:
            try:
                pixels = preprocess.read(image)
            except UnreadableImageError as error:
                self.unreadable[image] = str(error)
                continue
            if self.keeps:
                self.kept[image] = pixels

    def stack(self, images: Sequence[Path]) -> Tensor:
        """Return pixels ``[B, 3, S, S]``."""
        return torch.stack([self.kept[image] if self.keeps else self.preprocess.read(image) for image in images])


class LabelDataset(Dataset[dict[str, Any]]):
    """Inputs and labels of records."""

    def __init__(self, records: Sequence[Record], truth: NDArray[np.float32], images: Images) -> None:
        """Keep what is needed.

        Args:
            records: The records.
            truth: Their labels ``[n, C]``, NaN where none counts.
            images: Gives the inputs.
        """
        self.records, self.images = list(records), images
        self.truth = torch.from_numpy(truth)
        self.stated = (~self.truth.isnan()).sum(dim=1).tolist()

    def __len__(self) -> int:
        return len(self.records)

    def __getitems__(self, places: Sequence[Place]) -> dict[str, Any]:
        """Return one part of a step: ``read [B, ...]``, ``truth [B, C]``, ``row [B]``, ``total`` and ``parts``."""
        rows = [place.row for place in places]
        return {
            "read": self.images.stack([self.records[row].image for row in rows]),
            "truth": self.truth[rows],
            "row": torch.tensor(rows),
            "total": torch.tensor(places[0].total),
            "parts": torch.tensor(places[0].parts),
        }


class LabelSteps(Sampler[list[Place]]):
    """The steps of an epoch, cut into parts: the gradient is that of one device with one large batch."""

    def __init__(
        self,
        dataset: LabelDataset,
        sampler: EpochSampler,
        batch_size: int,
        multilabel: bool,
        accumulate: int = 1,
        devices: int = 1,
        rank: int = 0,
    ) -> None:
        """Set how an epoch is cut.

        Raises:
            UserError: A step has fewer records than parts.
        """
        self.dataset, self.sampler, self.multilabel = dataset, sampler, multilabel
        self.accumulate, self.devices, self.rank = accumulate, devices, rank
        self.steps = -(-len(sampler) // batch_size)
        if len(sampler) // self.steps < accumulate * devices:
            raise UserError(
                f"a step of {counted(len(sampler) // self.steps, 'photograph')} cannot be cut into "
                f"{counted(accumulate * devices, 'part')}; raise stage.batch_size, or lower trainer.devices or "
                "trainer.accumulate_grad_batches"
            )

    def __len__(self) -> int:
        return self.steps * self.accumulate

    def __iter__(self) -> Iterator[list[Place]]:
        parts = self.accumulate * self.devices
        for step in np.array_split(np.fromiter(self.sampler, dtype=np.int64), self.steps):
            rows = step.tolist()
            total = sum(self.dataset.stated[row] for row in rows) if self.multilabel else len(rows)
            places = [Place(row, total, parts) for row in rows]
            pieces = [places[start::parts] for start in range(parts)]
            yield from pieces[self.rank :: self.devices]


class LabelData(LightningDataModule):
    """Training and validation batches of a classifier."""

    def __init__(
        self,
        train: LabelDataset,
        val: LabelDataset,
        *,
        batch_size: int,
        multilabel: bool,
        seed: int,
        accumulate: int = 1,
        workers: int = 0,
    ) -> None:
        """Put the batches together.

        Args:
            train: Training records.
            val: Validation records.
            batch_size: Records a step of the optimiser, over all devices and accumulated batches.
            multilabel: Whether a photograph can show several classes at once.
            seed: Seed of the order.
            accumulate: Batches that one step is cut into, one after the other.
            workers: Processes that read photographs beside the training.
        """
        super().__init__()
        self.train_set, self.val_set = train, val
        self.batch_size, self.multilabel, self.accumulate, self.workers = batch_size, multilabel, accumulate, workers
        self.sampler = EpochSampler(range(len(train)), [], 0.0, seed)

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        """All training records, in an order that epoch and seed fix."""
        devices, rank = self._share()
        steps = LabelSteps(
            self.train_set, self.sampler, self.batch_size, self.multilabel, self.accumulate, devices, rank
        )
        return self._loader(self.train_set, steps)

    def val_dataloader(self) -> DataLoader[dict[str, Any]]:
        """All validation records once, as many batches on each device, each from all over the split."""
        devices, rank = self._share()
        batches = -(-len(self.val_set) // (self.batch_size * devices)) * devices
        if len(self.val_set) < batches:
            found = counted(len(self.val_set), "validation photograph")
            raise UserError(f"too few to validate: {found} on {counted(devices, 'device')}")
        pieces = [range(start, len(self.val_set), batches) for start in range(batches)][rank::devices]
        return self._loader(self.val_set, [[Place(row, len(piece), 1) for row in piece] for piece in pieces])

    def _share(self) -> tuple[int, int]:
        return (1, 0) if self.trainer is None else (self.trainer.world_size, self.trainer.global_rank)

    def _loader(self, dataset: LabelDataset, batches: LabelSteps | list[list[Place]]) -> DataLoader[dict[str, Any]]:
        return DataLoader(
            dataset,
            batch_sampler=batches,
            collate_fn=_whole,
            num_workers=self.workers,
            worker_init_fn=keep_memory_flat,
            generator=torch.Generator().manual_seed(0),
            pin_memory=torch.cuda.is_available(),
        )


def _whole(batch: Any) -> Any:
    """Return the batch, which the data set has put together."""
    return batch
