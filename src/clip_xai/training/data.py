"""Batches of frozen features and caption tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from clip_xai.data.record import Record
from clip_xai.errors import UserError
from clip_xai.models.captioner import Captioner
from clip_xai.training.features import FeatureTable

Place = tuple[int, int]  # epoch, index


class CaptionDataset(Dataset[dict[str, Tensor]]):
    """Features and tokens of records; item ``(epoch, index)`` depends on nothing but its place and the seed.

    While training one of a record's references is drawn anew each epoch; otherwise it is always the first.
    """

    def __init__(
        self, records: Sequence[Record], features: FeatureTable, captioner: Captioner, length: int, seed: int | None
    ) -> None:
        """Encode all references.

        Args:
            records: Records that have features.
            features: Their features.
            captioner: Its tokenizer encodes the captions.
            length: Tokens per caption, the end marker included. One length for all batches: shapes that do not change
                make a small model on a CPU several times as fast.
            seed: Seed of the draw of references, or None for always the first.
        """
        self.records = records
        self.features = features
        self.seed = seed
        self.tokens = [captioner.encode_captions(record.references, length).cpu() for record in records]

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, place: Place) -> dict[str, Tensor]:
        """Return ``read`` (``[D]`` or ``[N, W]``), ``tokens`` (``[M]``, -100 where there is none) and ``index``."""
        epoch, index = place
        tokens = self.tokens[index]
        chosen = 0 if self.seed is None else np.random.default_rng((self.seed, epoch, index)).integers(len(tokens))
        return {
            "read": self.features[self.records[index].image],
            "tokens": tokens[int(chosen)],
            "index": torch.tensor(index),
        }


class EpochSampler(Sampler[Place]):
    """Places of one epoch: all main records and a share of the others, shuffled; a function of seed and epoch alone.

    Lightning calls ``set_epoch``; a resumed run therefore meets the records in the order of an uninterrupted one.
    """

    def __init__(self, main: Sequence[int], others: Sequence[int], replay: float, seed: int) -> None:
        """Set what is drawn from.

        Args:
            main: Indices met in every epoch.
            others: Indices of which a share is met.
            replay: That share, 0 to 1.
            seed: Seed of the order.
        """
        self.main = np.asarray(main, dtype=np.int64)
        self.others = np.asarray(others, dtype=np.int64)
        self.replayed = round(replay * len(self.others))
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.main) + self.replayed

    def __iter__(self) -> Iterator[Place]:
        draw = np.random.default_rng((self.seed, self.epoch))
        replayed = draw.choice(self.others, self.replayed, replace=False) if self.replayed else self.others[:0]
        for index in draw.permutation(np.concatenate([self.main, replayed])):
            yield self.epoch, int(index)


class InOrder(Sampler[Place]):
    """All places in the order of the records."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[Place]:
        return ((0, index) for index in range(self.size))


class CaptionData(LightningDataModule):
    """Training and validation batches of one stage."""

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
    ) -> None:
        """Put the batches together; records without features are left out (``features.unreadable`` names them).

        Args:
            captioner: Encodes the captions.
            features: Features of both splits.
            train: Training records.
            val: Validation records; of ``sources`` alone where these are given.
            batch_size: Records per batch.
            max_tokens: Captions are cut after this many tokens.
            seed: Seed of order, replay and choice of references.
            sources: The sources this stage is about, or None for all.
            replay: Share of the other sources' training records mixed into each epoch.

        Raises:
            UserError: No training or no validation record is left.
        """
        super().__init__()
        self.batch_size = batch_size
        readable = [record for record in train if record.image in features.rows]
        judged = [record for record in val if record.image in features.rows and _belongs(record, sources)]
        main = [index for index, record in enumerate(readable) if _belongs(record, sources)]
        others = [index for index, record in enumerate(readable) if not _belongs(record, sources)]
        if not main or not judged:
            wanted = "any source" if sources is None else ", ".join(sources)
            split = "training" if not main else "validation"
            raise UserError(f"there is no {split} photograph of {wanted}; widen data.limit, data.root or stage.sources")
        length = min(max_tokens, _longest(captioner, [*readable, *judged]))
        self.train_set = CaptionDataset(readable, features, captioner, length, seed)
        self.val_set = CaptionDataset(judged, features, captioner, length, None)
        self.sampler = EpochSampler(main, others, replay, seed)

    def train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Batches in an order that epoch and seed fix."""
        return self._loader(self.train_set, self.sampler)

    def val_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Batches in the records' order, first references."""
        return self._loader(self.val_set, InOrder(len(self.val_set)))

    def _loader(self, dataset: CaptionDataset, sampler: Sampler[Place]) -> DataLoader[dict[str, Tensor]]:
        # A generator of its own: otherwise each new iterator would take a number from the global one, and dropout in a
        # resumed run would differ.
        return DataLoader(dataset, self.batch_size, sampler=sampler, generator=torch.Generator().manual_seed(0))


def _belongs(record: Record, sources: Sequence[str] | None) -> bool:
    return sources is None or record.source in sources


def _longest(captioner: Captioner, records: Sequence[Record]) -> int:
    texts = {text for record in records for text in record.references}
    return max(len(captioner.tokenizer.encode(text)) for text in texts) + 1
