"""Photographs that look alike are found by an index; the oracle compares every pair."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from clip_xai.data.images import inspect_image
from clip_xai.data.near import near_pairs
from tests.data.rehearsal import picture


def looks(codes: list[int], shades: list[int]) -> list[tuple[int, bytes]]:
    return [(code, bytes([shade]) * 12) for code, shade in zip(codes, shades, strict=True)]


def components(pairs: list[tuple[int, int]], size: int) -> list[int]:
    """Slow oracle: spread the smallest number until nothing changes."""
    names = list(range(size))
    for _ in range(size):
        for one, two in pairs:
            names[one] = names[two] = min(names[one], names[two])
    return names


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([0, 2**64 - 1, 0x0F0F << 20]), st.sets(st.integers(0, 63), max_size=5),
                  st.sampled_from([0, 3, 9])),
        min_size=1, max_size=25),
    st.integers(0, 9),
)  # fmt: skip
def test_the_index_connects_what_comparing_all_pairs_connects(rows: list, bits: int) -> None:
    codes = [base ^ sum(1 << bit for bit in flipped) for base, flipped, _ in rows]
    seen = looks(codes, [shade for _, _, shade in rows])
    every = [
        (i, j)
        for j in range(len(seen))
        for i in range(j)
        if (codes[i] ^ codes[j]).bit_count() <= bits and abs(seen[i][1][0] - seen[j][1][0]) <= 4
    ]
    found = near_pairs(seen, bits, 4.0)
    assert set(found) <= set(every)
    assert components(found, len(seen)) == components(every, len(seen))


def test_codes_that_share_a_band_in_hundreds_are_each_compared_once_with_every_other() -> None:
    codes = list(range(700))  # the upper bands are the same in all
    every = [(i, j) for j in range(700) for i in range(j) if (i ^ j).bit_count() <= 2]
    assert near_pairs(looks(codes, [7] * 700), 2, 4.0) == sorted(every)


def test_thousands_of_blank_pictures_take_no_more_pairs_than_rows() -> None:
    assert len(near_pairs(looks([5] * 4000, [7] * 4000), 4, 6.0)) == 3999
    assert near_pairs([], 4, 6.0) == []


def test_a_photograph_saved_anew_is_found_and_another_one_is_not(tmp_path: Path) -> None:
    seen, truth = [], []
    for number in range(12):
        image = picture(number).resize((320, 240), Image.Resampling.BICUBIC)
        for width, height, kind, quality in ((320, 240, "PNG", 0), (320, 240, "JPEG", 70), (160, 120, "JPEG", 85)):
            content = io.BytesIO()
            again = image.resize((width, height), Image.Resampling.LANCZOS)
            again.save(content, kind, quality=quality, compress_level=1)
            path = tmp_path / f"{len(seen)}.{kind.lower()}"
            path.write_bytes(content.getvalue())
            facts = inspect_image(path)
            seen.append((facts.phash, facts.thumbnail))
            truth.append(number)
    names = components(near_pairs(seen, 6, 6.0), len(seen))
    assert [names.index(name) // 3 for name in names] == truth


def test_large_files_are_compared_at_a_reduced_size(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    soft = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize(
        (1024, 768), Image.Resampling.BICUBIC
    )
    soft.save(tmp_path / "a.jpg", quality=90)
    soft.save(tmp_path / "a.png", compress_level=1)
    one, two = inspect_image(tmp_path / "a.jpg"), inspect_image(tmp_path / "a.png")
    assert (one.width, one.height) == (two.width, two.height) == (1024, 768)
    assert (one.phash ^ two.phash).bit_count() <= 4
    thumbnails = [np.frombuffer(facts.thumbnail, np.uint8).astype(int) for facts in (one, two)]
    assert np.abs(thumbnails[0] - thumbnails[1]).max() <= 4
