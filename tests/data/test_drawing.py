"""A drawing takes nothing of a person's away, whatever lies in the folder, and leaves no process behind."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clip_xai.data.synthetic import dermacap
from clip_xai.data.synthetic.dermacap import write_dermacap
from clip_xai.errors import UserError

TINY = {"scale": 0.001, "height": 64, "width": 64, "workers": 1}
#: What the version before this one wrote: settings, and no list of files.
EARLIER = {"seed": 0, "scale": 0.001, "height": 64, "width": 64, "code": "0123456789abcdef", "complete": True}


def contents(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def put(path: Path, content: str = "mine") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


@pytest.mark.parametrize(
    "marker", ["{}", "", "[]", "{", '{"files": {}}', '{"files": {"ham10000/mine.jpg": ""}}', "null"]
)
def test_a_marker_that_no_drawing_wrote_opens_nothing(tmp_path: Path, marker: str) -> None:
    put(tmp_path / "dermacap.json", marker)
    put(tmp_path / "ham10000" / "mine.jpg")
    before = contents(tmp_path)
    with pytest.raises(UserError, match=r"dermacap\.json in it was not written .* data\.root=.*_2, ") as refused:
        write_dermacap(tmp_path, **TINY)
    assert contents(tmp_path) == before and "\n" not in str(refused.value)


def test_another_seed_replaces_what_was_drawn_and_that_alone(tmp_path: Path) -> None:
    write_dermacap(tmp_path, **TINY)
    first = contents(tmp_path)
    listed = set(json.loads((tmp_path / "dermacap.json").read_text())["files"])
    assert listed == set(first) - {"dermacap.json"}
    mine = [put(tmp_path / name) for name in ("ham10000/mine.jpg", "masks/ddi/mine.png", "own/captions.csv", "a.txt")]
    write_dermacap(tmp_path, seed=1, **TINY)
    assert all(path.read_text() == "mine" for path in mine)
    second = {name: digest for name, digest in contents(tmp_path).items() if (tmp_path / name) not in mine}
    write_dermacap(tmp_path / "fresh", seed=1, **TINY)
    assert second == contents(tmp_path / "fresh") != first
    assert not [path for path in tmp_path.rglob("*") if path.is_dir() and not os.listdir(path)]


def test_a_photograph_that_took_the_place_of_a_drawn_one_stays(tmp_path: Path) -> None:
    write_dermacap(tmp_path, **TINY)
    drawn = next((tmp_path / "ddidiversedermatologyimages").glob("*.png"))
    drawn.write_text("mine")
    before = contents(tmp_path)
    with pytest.raises(UserError, match=f"{drawn.name} is no longer the file that was drawn"):
        write_dermacap(tmp_path, seed=1, **TINY)
    write_dermacap(tmp_path, **TINY)  # The same drawing is there as far as its marker says: nothing is to be done.
    assert {name: digest for name, digest in contents(tmp_path).items() if ".drawing" not in name} == before


def test_a_file_where_one_would_be_drawn_stays(tmp_path: Path) -> None:
    write_dermacap(tmp_path, **TINY)
    put(tmp_path / "SkinCAP" / "skincap" / "5.png")  # A larger drawing has a fifth photograph.
    before = contents(tmp_path)
    with pytest.raises(UserError, match=r"5\.png was not drawn by this command"):
        write_dermacap(tmp_path, **{**TINY, "scale": 0.002})
    assert contents(tmp_path) == before


def test_a_drawing_by_an_earlier_version_is_used_or_left_alone(tmp_path: Path) -> None:
    put(tmp_path / "dermacap.json", json.dumps(EARLIER))
    put(tmp_path / "ham10000" / "mine.jpg")
    before = contents(tmp_path)
    write_dermacap(tmp_path, **TINY)
    for asked, told in (({"seed": 1}, EARLIER), ({}, {**EARLIER, "complete": False})):
        put(tmp_path / "dermacap.json", json.dumps(told))
        with pytest.raises(UserError, match=r"drawn by an earlier version, .* data\.root="):
            write_dermacap(tmp_path, **TINY, **asked)
        assert (tmp_path / "ham10000" / "mine.jpg").read_text() == "mine"
    put(tmp_path / "dermacap.json", json.dumps(EARLIER))
    assert contents(tmp_path) == before


def test_a_file_is_no_folder_to_draw_into(tmp_path: Path) -> None:
    put(tmp_path / "thesis")
    with pytest.raises(UserError, match=r"thesis is not a directory; .*thesis_2"):
        write_dermacap(tmp_path / "thesis", **TINY)


def test_a_drawing_that_breaks_off_shows_nothing_and_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    root = tmp_path / "root"
    with monkeypatch.context() as broken, pytest.raises(OSError, match="No space"):
        broken.setattr(dermacap, "_write_descriptions", full)
        write_dermacap(root, **TINY)
    assert [path.name for path in root.iterdir()] == [".drawing"]
    write_dermacap(root, seed=1, **TINY)
    write_dermacap(tmp_path / "fresh", seed=1, **TINY)
    assert contents(root) == contents(tmp_path / "fresh")


def test_a_drawing_that_breaks_off_while_it_moves_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, moved = tmp_path / "root", []
    rename = Path.rename

    def breaks(self: Path, target: Path) -> Path:
        moved.append(target)
        if len(moved) > 9:
            raise KeyboardInterrupt
        return rename(self, target)

    write_dermacap(root, **TINY)
    with monkeypatch.context() as broken, pytest.raises(KeyboardInterrupt):
        broken.setattr(Path, "rename", breaks)
        write_dermacap(root, seed=1, **TINY)
    assert sum(path.is_file() for path in moved) == 9
    write_dermacap(root, **TINY)
    write_dermacap(tmp_path / "fresh", **TINY)
    assert contents(root) == contents(tmp_path / "fresh")


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are counted in /proc")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_no_worker_outlives_the_drawing(tmp_path: Path, how: signal.Signals) -> None:
    draw = (
        "import sys\nfrom clip_xai.data.synthetic.dermacap import write_dermacap\n"
        "if __name__ == '__main__':\n    write_dermacap(sys.argv[1], scale=0.1)"
    )
    (tmp_path / "draw.py").write_text(draw)
    process = subprocess.Popen(
        [sys.executable, tmp_path / "draw.py", tmp_path / "root"],
        stderr=subprocess.DEVNULL,
        # A shell's background job ignores Ctrl-C, and its children would too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    _wait_for(lambda: any((tmp_path / "root").rglob("*.jpg")), "no photograph was drawn")
    helpers = _descendants(process.pid)
    assert len(helpers) >= 2
    process.send_signal(how)
    assert process.wait(20) != 0
    _wait_for(lambda: not any(map(_runs, helpers)), "workers are still there")


def _wait_for(condition: object, otherwise: str) -> None:
    until = time.monotonic() + 60
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < until, otherwise
        time.sleep(0.05)


def _descendants(pid: int) -> list[int]:
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except (OSError, IndexError):
            continue
    found = [child for child, parent in parents.items() if parent == pid]
    return found + [below for child in found for below in _descendants(child)]


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
