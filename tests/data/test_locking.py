"""Several processes that write one directory."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from clip_xai.data.locking import one_at_a_time

COUNT = """
import sys, time
from pathlib import Path
from clip_xai.data.locking import one_at_a_time
directory = Path(sys.argv[1])
for _ in range(20):
    with one_at_a_time(directory):
        number = int((directory / "number").read_text())
        time.sleep(0.002)
        (directory / "number").write_text(str(number + 1))
"""


def test_no_process_loses_what_another_wrote(tmp_path: Path) -> None:
    (tmp_path / "number").write_text("0")
    running = [subprocess.Popen([sys.executable, "-c", COUNT, str(tmp_path)]) for _ in range(3)]
    assert [process.wait() for process in running] == [0, 0, 0]
    assert (tmp_path / "number").read_text() == "60"


def test_who_waits_says_so_and_a_killed_process_holds_nobody_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hold = (
        "import sys, time; from pathlib import Path; from clip_xai.data.locking import one_at_a_time\n"
        "with one_at_a_time(Path(sys.argv[1])):\n    print('in', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", hold, str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "in\n"
        killer = subprocess.Popen([sys.executable, "-c", f"import os, time; time.sleep(1); os.kill({holder.pid}, 9)"])
        with caplog.at_level(logging.INFO), one_at_a_time(tmp_path):
            assert holder.wait() == -9
        killer.wait()
    assert "another process is writing" in caplog.text


def test_an_error_inside_lets_the_next_one_in(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="x"), one_at_a_time(tmp_path / "new"):
        raise ValueError("x")

    with one_at_a_time(tmp_path / "new"):
        assert (tmp_path / "new" / ".lock").is_file()
