"""Workers of a loader do not grow from batch to batch."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from clip_xai.training.loader_workers import keep_memory_flat

BATCH = (96, 3, 96, 96)  # 10 MiB


class ReadAhead(IterableDataset[tuple[Tensor, int]]):
    """Batches, and how much memory the process that made them holds, in MiB."""

    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        while True:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            yield torch.randint(0, 255, BATCH, dtype=torch.uint8).float() / 255, pages * os.sysconf("SC_PAGESIZE") >> 20


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_worker_holds_as_much_after_forty_batches_as_after_ten() -> None:
    batches = iter(DataLoader(ReadAhead(), batch_size=None, num_workers=1, worker_init_fn=keep_memory_flat))
    held = [next(batches)[1] for _ in range(41)]
    assert max(held[10:]) - held[10] < 60, held  # it is about 270 where freed blocks stay in the heap
