"""Files are written whole or not at all."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from clip_xai.errors import UserError
from clip_xai.files import read_json, remove_unfinished, replacing, whole_files, write_json, write_text
from clip_xai.training.checkpoint_files import read_checkpoint


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


def test_what_a_killed_process_left_unfinished_is_removed(tmp_path: Path) -> None:
    code = "import os, sys; from pathlib import Path; from clip_xai.files import replacing\n"
    code += "with replacing(Path(sys.argv[1])) as unfinished:\n    unfinished.touch(); os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.json")], check=False)
    [left] = tmp_path.iterdir()
    assert "unfinished" in left.name and whole_files(tmp_path, "*.json") == []
    with replacing(tmp_path / "mine.json") as unfinished:  # of a process that runs: ours
        unfinished.write_text("{}")
        remove_unfinished(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.json"]


def test_a_long_name_has_room_for_the_unfinished_one(tmp_path: Path) -> None:
    place = tmp_path / ("病変" * 40 + ".json")
    write_json(place, {})
    assert place.read_text() == "{}\n"


@pytest.mark.parametrize("content", ["", "{", "[1]", "\x00\x00"])
def test_a_damaged_file_of_an_earlier_run_does_not_count_and_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str
) -> None:
    place = tmp_path / "run.json"
    assert read_json(place) is None and not caplog.messages
    place.write_text(content)
    assert read_json(place) is None
    assert caplog.messages == [f"{place} is empty or damaged: it does not count"]
    write_json(place, {"a": 1})
    assert read_json(place) == {"a": 1}


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 half a checkpoint", b"<html>"])
def test_a_damaged_checkpoint_is_named_in_one_line(tmp_path: Path, content: bytes) -> None:
    place = tmp_path / "last.ckpt"
    place.write_bytes(content)
    with pytest.raises(UserError, match=f"{place} is empty or damaged .*; name another checkpoint") as raised:
        read_checkpoint(place)
    assert len(str(raised.value).splitlines()) == 1
