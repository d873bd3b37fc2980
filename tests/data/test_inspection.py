"""Every file is looked at once: what was seen survives a kill, and only content that changed is read again."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clip_xai.data import inspection
from clip_xai.data.images import ImageFacts, inspect_image
from clip_xai.data.inspection import inspect_files
from clip_xai.errors import UserError
from tests.data.publishers import photograph


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Names of the files that are really read."""
    seen: list[Path] = []

    def spy(path: Path) -> ImageFacts:
        seen.append(path)
        return inspect_image(path)

    monkeypatch.setattr(inspection, "inspect_image", spy)
    return seen


def test_files_are_read_once_until_they_change(tmp_path: Path, looked_at: list[Path]) -> None:
    paths = [photograph(tmp_path / f"{n}.png", seed=n) for n in range(6)]
    (tmp_path / "bad.png").write_bytes(b"no picture")
    paths += [tmp_path / "bad.png", tmp_path / "gone.png"]
    first = inspect_files(paths, tmp_path / "kept.sqlite", workers=2)
    assert sorted(looked_at) == sorted(paths)
    assert first[paths[0]] == inspect_image(paths[0])
    assert "not a picture" in str(first[paths[6]]) and first[paths[7]] == "no such file"
    looked_at.clear()
    assert inspect_files(paths, tmp_path / "kept.sqlite") == first and looked_at == []
    # Other content under the same size and the same time of writing.
    before = paths[1].stat()
    content = bytearray(paths[1].read_bytes())
    content[-1] ^= 1
    paths[1].write_bytes(content)
    os.utime(paths[1], ns=(before.st_atime_ns, before.st_mtime_ns))
    again = inspect_files(paths, tmp_path / "kept.sqlite")
    assert looked_at == [paths[1]] and again[paths[1]] != first[paths[1]]
    assert {path: again[path] for path in paths if path != paths[1]} == {p: first[p] for p in paths if p != paths[1]}


def test_a_killed_run_goes_on_where_it_stopped(tmp_path: Path, looked_at: list[Path]) -> None:
    paths = [photograph(tmp_path / f"{n}.png", seed=n) for n in range(400)]
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom clip_xai.data import inspection\n"
        "real = inspection.inspect_image\n"
        "def slow(path):\n    time.sleep(0.02)\n    return real(path)\n"
        "inspection.inspect_image = slow\n"
        "root = Path(sys.argv[1])\n"
        "inspection.inspect_files([root / f'{n}.png' for n in range(400)], root / 'kept.sqlite', workers=2)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], env=environment)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not _saved(tmp_path / "kept.sqlite"):
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    saved = _saved(tmp_path / "kept.sqlite")
    assert 0 < saved < 400
    inspect_files(paths, tmp_path / "kept.sqlite")
    assert len(looked_at) == 400 - saved


def test_a_database_that_is_none_is_told_in_words(tmp_path: Path) -> None:
    (tmp_path / "kept.sqlite").write_bytes(b"no database, but long enough to be taken for one" * 40)
    with pytest.raises(UserError, match=r"kept\.sqlite cannot be used .* delete the file"):
        inspect_files([photograph(tmp_path / "a.png")], tmp_path / "kept.sqlite")


def _saved(base: Path) -> int:

    if not base.is_file():
        return 0
    with sqlite3.connect(base) as connection:
        try:
            return int(connection.execute("SELECT count(*) FROM files").fetchone()[0])
        except sqlite3.OperationalError:
            return 0


def test_a_full_disk_is_no_damaged_database(tmp_path: Path) -> None:
    for number in range(40):
        photograph(tmp_path / f"{number}.png", number)
    limited = (
        "import resource, sys; from pathlib import Path; from clip_xai.data.inspection import inspect_files\n"
        "root = Path(sys.argv[1]); resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "try:\n    inspect_files(sorted(root.glob('*.png')), root / 'kept.sqlite')\n"
        "except OSError as error:\n    print(error.errno, error.filename)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    done = subprocess.run(
        [sys.executable, "-c", limited, str(tmp_path)], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout.split()[1:] == [str(tmp_path / "kept.sqlite")]
