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

#: Hashes, and thumbnails, that are compared at a time.
_COMPARED, _BLOCK = 2**18, 4096

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

    def alike(ones: np.ndarray, others: np.ndarray) -> np.ndarray:
        gaps = (thumbnails[ones] - thumbnails[others]).astype(np.float32)
        return np.sqrt((gaps**2).mean(axis=1)) <= difference

    pairs: set[tuple[int, int]] = set()
    leaders: list[int] = []
    by_hash: dict[int, list[int]] = defaultdict(list)
    for row, (code, _) in enumerate(looks):
        first = next((lead for lead in by_hash[code] if alike(np.array([lead]), np.array([row]))[0]), None)
        if first is None:
            by_hash[code].append(row)
            leaders.append(row)
        else:
            pairs.add((first, row))
    positions = np.array(leaders)
    for ones, others in _candidates(np.array([looks[row][0] for row in leaders], dtype=np.uint64), bits):
        for start in range(0, len(ones), _BLOCK):
            one, other = positions[ones[start : start + _BLOCK]], positions[others[start : start + _BLOCK]]
            found = alike(one, other)
            pairs.update(zip(one[found].tolist(), other[found].tolist(), strict=True))
    return sorted(pairs)


def _candidates(codes: np.ndarray, bits: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield ``(i, j)`` with ``i < j``, elementwise, whose codes differ in at most `bits` bits; pairs may come again."""
    for low, high in pairwise(np.linspace(0, 64, bits + 2).astype(int)):
        band = (codes >> np.uint64(low)) & np.uint64((1 << int(high - low)) - 1)
        order = np.argsort(band, kind="stable")
        cuts = np.flatnonzero(np.diff(band[order])) + 1
        for members in np.split(order, cuts):
            rows = max(1, _COMPARED // len(members))
            for start in range(0, len(members) if len(members) > 1 else 0, rows):
                some = members[start : start + rows]
                close = hamming(codes[some][:, None], codes[members][None, :]) <= bits
                ones, others = np.nonzero(close)
                before = others > ones + start
                yield some[ones[before]], members[others[before]]


def hamming(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return in how many bits two arrays of codes (uint64, broadcast together) differ, elementwise."""
    differing = np.ascontiguousarray(one ^ other)
    return _SET_BITS[differing.view(np.uint8).reshape(*differing.shape, 8)].sum(axis=-1)
