from __future__ import annotations

import pytest

from benchmarks.captioning import main


@pytest.mark.parametrize("mapper", ["resampler", "cross_attention"])
def test_both_sides_of_the_benchmark_write_the_same_captions(mapper: str) -> None:
    command = ["--mapper", mapper, "--images", "3", "--loop-images", "2", "--tokens", "4", "--rounds", "1"]
    table = main(command)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("| ")]
    assert [row[0] for row in rows] == ["decoding", "greedy", "4 beams"]
    for row in rows[1:]:
        assert row[-1] == "2 of 2" and float(row[3].replace(",", "")) > 0
