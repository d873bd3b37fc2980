from __future__ import annotations

from pathlib import Path

import pytest

from clip_xai.config.schemas import DataConfig
from clip_xai.data.record import Record
from clip_xai.errors import UserError
from clip_xai.runs.records import evenly, load_records


def record(index: int, source: str) -> Record:
    return Record(Path(f"/{index}.jpg"), source, f"{index}.jpg", str(index), None, None, "a", ("a",))


@pytest.mark.parametrize("limit", [1, 3, 7, 20])
def test_a_limited_choice_is_spread_over_the_list(limit: int) -> None:
    records = [record(index, "a" if index < 10 else "b") for index in range(20)]
    chosen = evenly(records, limit)
    assert len(chosen) == len({r.name for r in chosen}) == limit
    positions = [int(r.group) for r in chosen]
    gaps = {after - before for before, after in zip(positions, [*positions[1:], 20], strict=True)}
    assert positions[0] == 0 and max(gaps) - min(gaps) <= 1
    assert evenly(records, None) == evenly(records, 99) == records


def test_real_data_that_is_not_there_is_named(tmp_path: Path) -> None:
    data = DataConfig(
        name="real",
        root=str(tmp_path / "nowhere"),
        output_dir=str(tmp_path / "out"),
        cache_dir=str(tmp_path / "cache"),
    )
    with pytest.raises(UserError, match="nowhere: there is no such directory"):
        load_records(data, "test")
