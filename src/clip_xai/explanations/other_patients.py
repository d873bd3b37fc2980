"""Photographs of other patients: what a captioner says whichever photograph it sees is measured on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from clip_xai.models.captioner import Captioner
from clip_xai.xai.slots import sampled_captions, stated_in

T = TypeVar("T")
Stated = Counter[tuple[str, str]]


@dataclass(frozen=True)
class OtherPatients:
    """Photographs of K patients, one of each, with captions drawn of them.

    Attributes:
        read: What the mapper reads of them, ``[K, D]`` or ``[K, S, W]``.
        groups: Their patients.
        stated: For each, how many of its captions state each kind and value.
        samples: How many captions were drawn of each one.
        diagnoses: The diagnosis that each one's own caption states.
    """

    read: Tensor
    groups: tuple[str, ...]
    stated: tuple[Stated, ...]
    samples: tuple[int, ...]
    diagnoses: tuple[str | None, ...]

    def __len__(self) -> int:
        return len(self.groups)

    def but(self, group: str, most: int, diagnosis: str | None = None) -> OtherPatients:
        """Return those of other patients, the first ones of them.

        Args:
            group: The patient that is left out.
            most: How many at most.
            diagnosis: Those alone whose own caption states it; None for all.
        """
        rows = [
            row
            for row, (one, stated) in enumerate(zip(self.groups, self.diagnoses, strict=True))
            if one != group and (diagnosis is None or stated == diagnosis)
        ][:most]
        return OtherPatients(
            self.read[rows],
            tuple(self.groups[row] for row in rows),
            tuple(self.stated[row] for row in rows),
            tuple(self.samples[row] for row in rows),
            tuple(self.diagnoses[row] for row in rows),
        )


def drawn_statements(
    captioner: Captioner, read: Tensor, samples: int, seed: int, numbers: Sequence[int]
) -> list[Stated]:
    """Draw captions of photographs and count what they state.

    Args:
        captioner: The captioner, in evaluation mode.
        read: What the mapper reads of B photographs.
        samples: Captions of each.
        seed: Seed of the draws.
        numbers: A number of each photograph by its content, which chooses its draws together with the seed.
    """
    found = []
    # One photograph at a time: its captions are one batch, and no more than these are held.
    for row, number in enumerate(numbers):
        captions = sampled_captions(captioner, read[row : row + 1], samples, seed, [number])[0]
        found.append(Counter(pair for one in captions for pair in stated_in(one.text, captioner.vocabulary)))
    return found


def one_of_each_group(items: Sequence[T], groups: Sequence[str], count: int) -> list[T]:
    """Return at most ``count`` items of different groups, at equal steps through the groups."""
    first: dict[str, T] = {}
    for item, group in zip(items, groups, strict=True):
        first.setdefault(group, item)
    chosen = list(first.values())
    kept = min(count, len(chosen))
    return [chosen[index * len(chosen) // kept] for index in range(kept)]


@torch.no_grad()
def read_in_batches(captioner: Captioner, pixels: Sequence[Tensor], batch_size: int = 16) -> Tensor:
    """Return what the mapper reads of photographs ``[3, S, S]``, ``[B, D]`` or ``[B, S, W]``."""
    device = next(captioner.parameters()).device
    parts = [
        captioner.read(torch.stack(list(pixels[start : start + batch_size])).to(device))
        for start in range(0, len(pixels), batch_size)
    ]
    return torch.cat(parts)
