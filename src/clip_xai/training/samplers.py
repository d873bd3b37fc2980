"""The order of an epoch, a function of seed and epoch alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler


class EpochSampler(Sampler[int]):
    """Records of one epoch: all main ones and a share of the others, shuffled; a function of seed and epoch alone.

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

    def __iter__(self) -> Iterator[int]:
        draw = np.random.default_rng((self.seed, self.epoch))
        replayed = draw.choice(self.others, self.replayed, replace=False) if self.replayed else self.others[:0]
        return iter(draw.permutation(np.concatenate([self.main, replayed])).tolist())
