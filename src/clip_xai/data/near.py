"""Photographs that look alike: proposed by an index of perceptual hashes, confirmed by their thumbnails.

Two 64-bit hashes that differ in at most `bits` bits agree on at least one of `bits + 1` bands of their bits whole
(pigeonhole principle), so only rows that share a band are ever compared: Norouzi, Punjani, Fleet, "Fast search in
Hamming space with multi-index hashing", CVPR 2012. Hashes alone merge dark blots on pale skin that have nothing to do
with each other; a candidate counts only when its thumbnails agree as well.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

#: A 64-bit hash and a thumbnail, as `clip_xai.data.images.inspect_image` gives them.
Looks = tuple[int, bytes]

_SET_BITS = np.array([bin(value).count("1") for value in range(256)], dtype=np.uint8)


def near_pairs(looks: Sequence[Looks], bits: int, difference: float) -> list[tuple[int, int]]:
    """Return pairs of rows that look alike.

    Args:
        looks: Hash and thumbnail of every row.
        bits: Largest number of bits in which two hashes may differ.
        difference: Largest root mean square difference of two thumbnails, of 255 levels.

    Returns:
        Pairs ``(i, j)`` with ``i < j``, in order. Rows of one and the same hash are compared with the first of each
        look only, and stand behind it from then on: thousands of blank pictures must not make millions of pairs.
    """
    if not looks:
        return []
    thumbnails = np.frombuffer(b"".join(thumbnail for _, thumbnail in looks), dtype=np.uint8)
    thumbnails = thumbnails.reshape(len(looks), -1).astype(np.int16)

    def alike(one: int, others: np.ndarray) -> np.ndarray:
        gaps = (thumbnails[others] - thumbnails[one]).astype(np.float32)
        return np.sqrt((gaps**2).mean(axis=1)) <= difference

    pairs: set[tuple[int, int]] = set()
    leaders: list[int] = []
    by_hash: dict[int, list[int]] = defaultdict(list)
    for row, (code, _) in enumerate(looks):
        first = next((lead for lead in by_hash[code] if alike(lead, np.array([row]))[0]), None)
        if first is None:
            by_hash[code].append(row)
            leaders.append(row)
        else:
            pairs.add((first, row))
    codes = np.array([looks[row][0] for row in leaders], dtype=np.uint64)
    for one, others in _candidates(codes, bits):
        rows = np.array([leaders[other] for other in others])
        pairs.update((leaders[one], int(row)) for row in rows[alike(leaders[one], rows)])
    return sorted(pairs)


def _candidates(codes: np.ndarray, bits: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yield ``(i, js)`` with ``j > i`` whose codes differ in at most `bits` bits; a pair may come more than once."""
    edges = np.linspace(0, 64, bits + 2).astype(int)
    for low, high in pairwise(edges):
        band = (codes >> np.uint64(low)) & np.uint64((1 << int(high - low)) - 1)
        order = np.argsort(band, kind="stable")
        cuts = np.flatnonzero(np.diff(band[order])) + 1
        for members in np.split(order, cuts):
            for place, one in enumerate(members[:-1]):
                others = members[place + 1 :]
                close = others[hamming(codes[others], codes[one]) <= bits]
                if len(close):
                    yield int(one), close


def hamming(codes: np.ndarray, code: np.uint64) -> np.ndarray:
    """Return in how many bits each of the codes (uint64 ``[n]``) differs from one code."""
    return _SET_BITS[(codes ^ code).view(np.uint8)].reshape(-1, 8).sum(axis=1)
