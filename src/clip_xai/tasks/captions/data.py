"""Batches of frozen features and caption tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from clip_xai.data.record import Record
from clip_xai.errors import UserError
from clip_xai.models.captioner import IGNORED, Captioner
from clip_xai.text import counted
from clip_xai.training.features import FeatureTable
from clip_xai.training.samplers import EpochSampler

POOL = 32  # steps among which records are sorted by length


class Place(NamedTuple):
    """One record's place in a step of the optimiser.

    Attributes:
        epoch: Chooses the reference, together with ``row``.
        row: Row of the record.
        length: Tokens that captions of this step are padded to.
        total: Supervised tokens of the whole step, over all its parts.
        parts: Parts that the step is cut into: devices times accumulated batches.
    """

    epoch: int
    row: int
    length: int
    total: int = 0
    parts: int = 1


class CaptionDataset(Dataset[dict[str, Any]]):
    """Features and tokens of records; what stands at a place depends on nothing but the place and the seed.

    While training one of a record's references is drawn anew each epoch; otherwise it is always the first.

    Attributes:
        cut: How many references are longer than what is learned of them, and lose their end.
        longest: Tokens of the longest reference, the end marker included.
    """

    def __init__(
        self,
        records: Sequence[Record],
        features: FeatureTable,
        captioner: Captioner,
        max_tokens: int,
        seed: int | None,
        supervise_padding: bool = False,
        prompts: Mapping[Path, str] | None = None,
    ) -> None:
        """Encode all references.

        Args:
            records: Records that have features.
            features: Their features.
            captioner: Its tokenizer encodes the captions.
            max_tokens: Captions are cut after this many tokens, the end marker included.
            seed: Seed of the draw of references, or None for always the first.
            supervise_padding: Teach the end marker at every padded position too, as the original captioner does.
            prompts: A prompt for each record's photograph, or None for the captioner's own.
        """
        self.records = records
        self.prompts = None if prompts is None else [prompts[record.image] for record in records]
        self.features = features
        self.seed = seed
        self.drawn: tuple[int, np.ndarray] | None = None  # the last epoch and its draws
        self.padding = captioner.tokenizer.eos_id if supervise_padding else IGNORED
        whole = [[row[row != IGNORED] for row in captioner.encode_captions(r.references).cpu()] for r in records]
        self.tokens = [[row[:max_tokens] for row in rows] for rows in whole]
        self.cut = sum(len(row) > max_tokens for rows in whole for row in rows)
        self.longest = max((len(row) for rows in whole for row in rows), default=0)

    def __len__(self) -> int:
        return len(self.records)

    def caption(self, epoch: int, index: int) -> Tensor:
        """Return the tokens of the reference that a record has in an epoch, the end marker included."""
        tokens = self.tokens[index]
        if self.seed is None or len(tokens) == 1:
            return tokens[0]
        if self.drawn is None or self.drawn[0] != epoch:
            self.drawn = epoch, np.random.default_rng((self.seed, epoch)).integers(2**31, size=len(self))
        return tokens[self.drawn[1][index] % len(tokens)]

    def __getitems__(self, places: Sequence[Place]) -> dict[str, Any]:
        """Return one part of a step as a batch.

        Returns:
            ``read`` (``[B, D]`` or ``[B, N, W]``), ``tokens`` (``[B, M]``, -100 where there is none), ``row``
            (``[B]``), and the step's ``total`` of supervised tokens and number of ``parts`` (scalars). Where records
            have prompts, ``prompt``: a list of B texts.
        """
        first = places[0]
        tokens = torch.full((len(places), first.length), self.padding)
        for row, place in zip(tokens, places, strict=True):
            caption = self.caption(place.epoch, place.row)
            row[: len(caption)] = caption
        batch: dict[str, Any] = {
            "read": self.features.stack([self.records[place.row].image for place in places]),
            "tokens": tokens,
            "row": torch.tensor([place.row for place in places]),
            "total": torch.tensor(first.total),
            "parts": torch.tensor(first.parts),
        }
        if self.prompts is not None:
            batch["prompt"] = [self.prompts[place.row] for place in places]
        return batch


class Steps(Sampler[list[Place]]):
    """The steps of an epoch, each cut into the parts that devices and accumulated batches take.

    A step holds the same records, padded to the same length, however many devices there are, and every part knows the
    tokens of the whole step; so the gradient is that of one device with one large batch. Captions of like length
    share a step: the epoch's order is cut into steps, ``POOL`` of them at a time are pooled, sorted by length and cut
    again where they were cut, and the steps shuffled.
    """

    def __init__(
        self,
        dataset: CaptionDataset,
        sampler: EpochSampler,
        batch_size: int,
        *,
        bucket: int | None = 8,
        accumulate: int = 1,
        devices: int = 1,
        rank: int = 0,
    ) -> None:
        """Set how an epoch is cut.

        Args:
            dataset: Knows the captions' lengths.
            sampler: The order of each epoch; Lightning tells it the epoch.
            batch_size: Records a step, over all its parts.
            bucket: Captions of like length share a step, and padded lengths are multiples of this; None leaves the
                order as it is drawn and pads each step to its own longest caption.
            accumulate: Parts that one device takes one after the other.
            devices: Parts taken at the same time.
            rank: Which of the devices this is.

        Raises:
            UserError: There are fewer records than parts.
        """
        self.dataset = dataset
        self.sampler = sampler
        self.bucket = bucket
        self.accumulate = accumulate
        self.devices = devices
        self.rank = rank
        self.steps = -(-len(sampler) // batch_size)
        if len(sampler) // self.steps < accumulate * devices:
            raise UserError(
                f"a step of {counted(len(sampler) // self.steps, 'photograph')} cannot be cut into "
                f"{counted(accumulate * devices, 'part')}; raise stage.batch_size, or lower "
                "trainer.devices or trainer.accumulate_grad_batches"
            )
        self.longest = max(len(tokens) for row in dataset.tokens for tokens in row)

    def __len__(self) -> int:
        return self.steps * self.accumulate

    def __iter__(self) -> Iterator[list[Place]]:
        epoch, parts = self.sampler.epoch, self.accumulate * self.devices
        for step in self.cut(list(self.sampler)):
            lengths = [len(self.dataset.caption(epoch, index)) for index in step]
            length = self.padded(max(lengths))
            total = sum(lengths) if self.dataset.padding == IGNORED else length * len(step)
            places = [Place(epoch, index, length, total, parts) for index in step]
            pieces = [places[start::parts] for start in range(parts)]  # of like size, whatever the step's
            yield from pieces[self.rank :: self.devices]

    def cut(self, order: Sequence[int]) -> list[list[int]]:
        """Return the records of each step, in steps whose sizes differ by one at most."""
        epoch = self.sampler.epoch
        drawn_steps = [step.tolist() for step in np.array_split(np.asarray(order), self.steps)]
        if self.bucket is None:
            return drawn_steps
        draw = np.random.default_rng((self.sampler.seed, epoch, 1))
        pools = np.array_split(np.arange(self.steps), -(-self.steps // POOL))
        steps: list[list[int]] = []
        for pool in pools:  # of whole steps, so that each keeps its size
            drawn = [drawn_steps[step] for step in pool]
            pooled = [index for step in drawn for index in step]
            by_length = sorted(pooled, key=lambda index: len(self.dataset.caption(epoch, index)))
            ends = np.cumsum([len(step) for step in drawn])
            steps += [by_length[end - len(step) : end] for step, end in zip(drawn, ends, strict=True)]
        return [steps[index] for index in draw.permutation(len(steps))]

    def padded(self, length: int) -> int:
        """Return the length that captions of at most ``length`` tokens are padded to."""
        multiple = self.bucket or 8
        return min(self.longest, -(-length // multiple) * multiple)


class InOrder(Sampler[list[Place]]):
    """All records once, the shortest captions first, as many batches on each device."""

    def __init__(self, dataset: CaptionDataset, batch_size: int, devices: int = 1, rank: int = 0) -> None:
        self.batches = -(-len(dataset) // (batch_size * devices))
        if len(dataset) < self.batches * devices:
            found = counted(len(dataset), "validation photograph")
            raise UserError(f"too few to validate: {found} on {counted(devices, 'device')}")
        order = sorted(range(len(dataset)), key=lambda index: len(dataset.caption(0, index)))
        pieces = np.array_split(np.asarray(order), self.batches * devices)[rank::devices]
        self.pieces = []
        for piece in pieces:
            length = max(len(dataset.caption(0, int(index))) for index in piece)
            self.pieces.append([Place(0, int(index), -(-length // 8) * 8) for index in piece])

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[list[Place]]:
        return iter(self.pieces)


class CaptionData(LightningDataModule):
    """Training and validation batches of one stage.

    Attributes:
        train_set: Training records.
        val_set: Validation records of the stage's sources: what chooses the checkpoint.
        common_set: Validation records of all other sources, to see what a stage forgets; None where there are none.
    """

    def __init__(
        self,
        captioner: Captioner,
        features: FeatureTable,
        train: Sequence[Record],
        val: Sequence[Record],
        *,
        batch_size: int,
        max_tokens: int,
        seed: int,
        sources: Sequence[str] | None = None,
        replay: float = 0.0,
        accumulate: int = 1,
        bucket: int | None = 8,
        supervise_padding: bool = False,
        draw_references: bool = True,
        prompts: Mapping[Path, str] | None = None,
    ) -> None:
        """Put the batches together; records without features are left out (``features.unreadable`` names them).

        Args:
            captioner: Encodes the captions.
            features: Features of both splits.
            train: Training records.
            val: Validation records.
            batch_size: Records per step of the optimiser, over all devices and accumulated batches.
            max_tokens: Captions are cut after this many tokens.
            seed: Seed of order, replay and choice of references.
            sources: The sources this stage is about, or None for all.
            replay: Share of the other sources' training records mixed into each epoch.
            accumulate: Batches that one step is cut into, one after the other.
            bucket: See :class:`Steps`.
            supervise_padding: See :class:`CaptionDataset`; in training alone.
            draw_references: Draw a record's reference anew each epoch; else take always the first.
            prompts: See :class:`CaptionDataset`.

        Raises:
            UserError: No training or no validation record is left.
        """
        super().__init__()
        self.batch_size = batch_size
        self.accumulate = accumulate
        self.bucket = bucket
        readable = [record for record in train if record.image in features.rows]
        judged = [record for record in val if record.image in features.rows and _belongs(record, sources)]
        common = [record for record in val if record.image in features.rows and not _belongs(record, sources)]
        main = [index for index, record in enumerate(readable) if _belongs(record, sources)]
        others = [index for index, record in enumerate(readable) if not _belongs(record, sources)]
        if not main or not judged:
            wanted = "any source" if sources is None else ", ".join(sources)
            split = "training" if not main else "validation"
            raise UserError(f"there is no {split} photograph of {wanted}; widen data.limit, data.root or stage.sources")
        self.train_set = CaptionDataset(
            readable, features, captioner, max_tokens, seed if draw_references else None, supervise_padding, prompts
        )
        self.val_set = CaptionDataset(judged, features, captioner, max_tokens, None, prompts=prompts)
        self.common_set = (
            CaptionDataset(common, features, captioner, max_tokens, None, prompts=prompts) if common else None
        )
        self.sampler = EpochSampler(main, others, replay, seed)

    @property
    def longest(self) -> int:
        """Tokens that the longest captions of any batch are padded to."""
        train, *judged = ([len(row) for rows in part.tokens for row in rows] for part in self.sets())
        return max(*train, *(-(-length // 8) * 8 for lengths in judged for length in lengths))

    def sets(self) -> list[CaptionDataset]:
        """Training, validation and, where there are any, common records."""
        return [part for part in (self.train_set, self.val_set, self.common_set) if part is not None]

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Batches in an order that epoch and seed fix."""
        devices, rank = self._share()
        steps = Steps(
            self.train_set,
            self.sampler,
            self.batch_size,
            bucket=self.bucket,
            accumulate=self.accumulate,
            devices=devices,
            rank=rank,
        )
        return _loader(self.train_set, steps)

    def val_dataloader(self) -> list[DataLoader[dict[str, Any]]]:
        """First references of the stage's sources, then of all others where there are any."""
        _, *sets = self.sets()
        return [_loader(dataset, InOrder(dataset, self.batch_size, *self._share())) for dataset in sets]

    def _share(self) -> tuple[int, int]:
        return (1, 0) if self.trainer is None else (self.trainer.world_size, self.trainer.global_rank)


def _loader(dataset: CaptionDataset, batches: Sampler[list[Place]]) -> DataLoader[dict[str, Any]]:
    # A generator of its own: otherwise each new iterator would take a number from the global one, and dropout in a
    # resumed run would differ.
    return DataLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=_as_it_is,
        generator=torch.Generator().manual_seed(0),
        pin_memory=torch.cuda.is_available(),
    )


def _as_it_is(batch: Any) -> Any:
    """The data set hands over whole batches."""
    return batch


def _belongs(record: Record, sources: Sequence[str] | None) -> bool:
    return sources is None or record.source in sources
