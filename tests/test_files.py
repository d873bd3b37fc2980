"""Files are written whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clip_xai.files import replacing, write_json, write_text


def test_an_error_while_writing_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    place = tmp_path / "metrics.json"
    write_text(place, "before")
    with pytest.raises(RuntimeError, match="half"), replacing(place) as unfinished:
        unfinished.write_text("hal")
        raise RuntimeError("half")
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.json"]
    assert place.read_text() == "before"


def test_what_was_written_is_there_in_the_end(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"é": [1, None]})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"é": [1, None]}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_json_without_a_number_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert not list(tmp_path.iterdir())
